"""How the simulator behaves. All times are in seconds, all shares between 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from oncue.clock import Clock
from oncue.errors import ConfigError
from oncue.whatsapp.simulator.faults import Fault
from oncue.whatsapp.simulator.people import Person

Category = Literal["utility", "marketing", "authentication"]
State = Literal["approved", "paused", "disabled"]


@dataclass(frozen=True, slots=True)
class Template:
    """A template as Meta's review left it. ``parameters``: how many places its body has."""

    name: str
    language: str = "en"
    parameters: int = 0
    category: Category = "utility"
    state: State = "approved"
    body: str = ""
    """What the person sees, with ``{{1}}`` and so on for the parameters."""

    def __post_init__(self) -> None:
        """Refuse a category or state that there isn't."""
        if self.category not in get_args(Category):
            raise ConfigError(
                f"A template's category is one of {', '.join(get_args(Category))}, not {self.category!r}."
            )
        if self.state not in get_args(State):
            raise ConfigError(f"A template's state is one of {', '.join(get_args(State))}, not {self.state!r}.")
        if self.parameters < 0:
            raise ConfigError(f"A template has 0 parameters or more, not {self.parameters}.")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a number may send. None: no such limit."""

    throughput: float | None = 80
    """Messages a second; so many at once."""
    inbound_counts: bool = True
    pair_every: float | None = 6
    """Seconds for each message to one person, ``pair_burst`` of them ahead of time."""
    pair_burst: int = 45
    strict_payback: bool = False
    """After the first ``pair_every`` seconds of a burst nothing more goes before all of it is paid back."""
    window: float | None = 86_400
    """Free-form messages so long after the person's last one."""
    people_a_day: int | None = None
    """Unique people that templates reach outside their windows, in a moving 24 hours."""


@dataclass(frozen=True, slots=True)
class Delays:
    """Medians of log-normal delays, counted from the acceptance, and their spread (sigma of the logarithm)."""

    sent: float = 0.3
    delivered: float = 1.5
    read: float = 3.0
    """Counted from the delivery."""
    spread: float = 0.6
    response: tuple[float, float] = (0.05, 0.2)
    """From the acceptance to the HTTP response; uniform."""

    @classmethod
    def none(cls) -> Delays:
        """Everything at once, in its order."""
        return cls(0, 0, 0, 0, (0, 0))

    @classmethod
    def short(cls) -> Delays:
        """Some hundredths of a second, for tests by the machine's clock."""
        return cls(0.01, 0.03, 0.05, 0.6, (0, 0.01))


@dataclass(frozen=True, slots=True)
class Webhooks:
    """How updates are delivered. The shares say how many of the updates it happens to."""

    duplicated: float = 0
    reordered: float = 0
    """Held back for a moment (median ``held`` seconds), so that others overtake."""
    held: float = 1.0
    bad_signature: float = 0
    """An altered copy with a wrong signature comes along."""
    status_first: float = 0
    """The status ``sent`` arrives before the HTTP response does."""
    statuses_lost: float = 0
    """Of the messages: none of their statuses ever arrives."""
    delivered_skipped: float = 0
    """Of the messages that are read: ``read`` comes without a ``delivered``."""
    late_failed: float = 0
    """Of the messages: a ``failed`` comes after ``delivered``."""
    contacts_absent: float = 0
    echo_on_failed: bool = True
    batch_within: float = 0
    """Updates that arise within so many seconds share a POST, on a random level of it each."""
    batch_most: int = 50
    retry_first: float = 1.0
    """Seconds to the second try; they double with each try, up to ``retry_most``."""
    retry_most: float = 3_600
    give_up_after: float = 7 * 86_400
    timeout: float = 10
    """Seconds for the application's response, always by the machine's clock."""
    connections: int = 16
    """POSTs at once."""

    @classmethod
    def rough(cls) -> Webhooks:
        """Everything that happens to updates, all the time: doubled, late, lost, batched, forged."""
        return cls(
            duplicated=0.2, reordered=0.2, held=0.3, bad_signature=0.05, status_first=0.2, statuses_lost=0.02,
            delivered_skipped=0.2, late_failed=0.02, contacts_absent=0.2, batch_within=0.05, retry_first=0.2,
            retry_most=2,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Config:
    """A simulated number, the people who have it, and what goes wrong."""

    token: str = "local-token"  # noqa: S105 - made up
    app_secret: str = "local-secret"  # noqa: S105 - made up
    number: str = "100000000000001"
    """The phone number id, as in the path; requests for another are refused."""
    display_number: str = "15550100000"
    account: str = "200000000000002"
    ledger: Path | None = None
    """A file of JSON lines to append to."""
    seed: int = 1
    """What delays, chances and the ids of messages are drawn from: another one for each run beside a database that is
    kept, which takes a message whose id it knows for a repetition."""
    limits: Limits = Limits()
    delays: Delays = Delays()
    webhooks: Webhooks = Webhooks()
    faults: Sequence[Fault] = ()
    templates: Sequence[Template] = (Template("hello_world", "en", body="Hello World"),)
    people: Sequence[Person] = ()
    strangers: Literal["join", "unreachable"] = "join"
    """Whether a number that nobody was given belongs to somebody silent, or to nobody (a failed status)."""
    clock: Clock | None = None
    """None: the machine's clock, which the control plane may move on."""

    def __post_init__(self) -> None:
        """Refuse what looks like a real token, and shares that are none."""
        if self.token.startswith("EAA"):
            raise ConfigError(
                "This token looks like a real one of Meta's (it starts with EAA). Give the simulator a made-up token."
            )
        for name in ("duplicated", "reordered", "bad_signature", "status_first", "statuses_lost", "delivered_skipped",
                     "late_failed", "contacts_absent"):  # fmt: skip
            if not 0 <= (share := getattr(self.webhooks, name)) <= 1:
                raise ConfigError(f"Webhooks.{name} is a share between 0 and 1, not {share!r}.")
