"""Faults of the network and of the messenger, each for the messages that it is meant for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, get_args

from oncue.errors import ConfigError

Action = Literal[
    "reset", "hang", "error", "html-502",
    "accept-reset", "accept-hang", "accept-500", "accept-html-502", "accept-truncated", "slow-body",
    "lose-status", "fail",
]  # fmt: skip
BEFORE = frozenset({"reset", "hang", "error", "html-502"})
"""The message is not accepted."""
_TOO_MANY = frozenset({4, 80007, 130429, 131048, 131056})


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, for which messages, how often.

    ``reset``, ``hang``, ``error`` (with ``code``), ``html-502``: not accepted. ``accept-...`` and ``slow-body``:
    accepted, only the response fails. ``lose-status``: accepted, and no status of it arrives. ``fail``: accepted, and
    a status ``failed`` with ``code`` instead of ``delivered``. Raises ConfigError for what can't be.
    """

    action: Action
    to: str | None = None
    """Only messages to this person (phone number or user id)."""
    type: str | None = None
    """Only messages of this type: text, interactive, template, reaction, read."""
    text: str | None = None
    """Only messages that have this in their text."""
    nth: int | Collection[int] | None = None
    """Only the so-manieth of those that match, from 1; or several of them."""
    probability: float = 1
    times: int | None = None
    """At most so often."""
    seed: int | None = None
    """Default: the simulator's."""
    seconds: float = 30
    """How long it hangs, or how slow the body is."""
    code: int = 130429
    status: int | None = None
    """The HTTP status of ``error``; default: 429 where the code means too many, else 400."""
    retry_after: int | None = None
    """A Retry-After header with ``error``."""

    def __post_init__(self) -> None:
        """Refuse what can't be."""
        if self.action not in get_args(Action):
            raise ConfigError(f"There is no fault {self.action!r}; there is: {', '.join(get_args(Action))}.")
        if not 0 <= self.probability <= 1:
            raise ConfigError(f"A fault's probability lies between 0 and 1, not {self.probability!r}.")
        if any(number < 1 for number in self.numbers):
            raise ConfigError(f"A fault's nth counts from 1, not {self.nth!r}.")

    @property
    def numbers(self) -> Collection[int]:
        """Which of the matching messages are meant; empty: all."""
        if self.nth is None:
            return ()
        return (self.nth,) if isinstance(self.nth, int) else self.nth

    @property
    def http_status(self) -> int:
        """The HTTP status of ``error``."""
        return self.status or (429 if self.code in _TOO_MANY else 400)

    def meant(self, message: Mapping[str, Any]) -> bool:
        """Tell whether a request's body is one of those that the fault is for."""
        if self.to is not None and self.to.lstrip("+") not in (message.get("to"), message.get("recipient")):
            return False
        if self.type is not None and self.type != ("read" if "status" in message else message.get("type")):
            return False
        return self.text is None or self.text in str(message)


class Faults:
    """The faults that are on, and how often each has matched and happened."""

    def __init__(self, faults: Collection[Fault], seed: int) -> None:
        self._seed = seed
        self._on: list[_Armed] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Switch one on. The first that is due happens."""
        number = len(self._on)
        self._on.append(_Armed(fault, Random(f"{self._seed if fault.seed is None else fault.seed}:fault:{number}")))

    def clear(self) -> None:
        """Switch all off."""
        self._on.clear()

    def listing(self) -> list[tuple[Fault, int, int]]:
        """Return the faults that are on, each with how often it matched and happened."""
        return [(armed.fault, armed.matched, armed.happened) for armed in self._on]

    def pick(self, message: Mapping[str, Any]) -> Fault | None:
        """Return what goes wrong with a message, if anything."""
        due = [armed.fault for armed in self._on if armed.strikes(message)]
        return due[0] if due else None


@dataclass(slots=True)
class _Armed:
    fault: Fault
    dice: Random
    matched: int = 0
    happened: int = 0

    def strikes(self, message: Mapping[str, Any]) -> bool:
        if not self.fault.meant(message):
            return False
        self.matched += 1
        if self.fault.times is not None and self.happened >= self.fault.times:
            return False
        if self.fault.numbers and self.matched not in self.fault.numbers:
            return False
        if self.fault.probability < 1 and self.dice.random() >= self.fault.probability:
            return False
        self.happened += 1
        return True
