"""What conversations need of a messenger: content, addresses, what comes in, and the protocol of a transport."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

Verdict = Literal[
    "sent",  # accepted; the answer has its external id
    "retry",  # certainly not sent; may be tried again
    "wait_channel",  # not sent: we are too fast for the channel
    "wait_person",  # not sent: we are too fast for this person
    "refused",  # not sent, and never will be as it is
    "unknown",  # it may have been sent
    "stop_channel",  # not sent; nobody gets anything before a human has put something right
    "stop_person",  # not sent; this person can't be reached
    "no_marketing",  # not sent; this person wants no marketing
    "use_template",  # not sent: the window is shut
    "disable_template",  # not sent; this template can't be used
]
"""What came of handing a message to a messenger, and with it what may be done next."""


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Plain text."""

    body: str


class Option(msgspec.Struct, frozen=True):
    """One answer to choose. ``id`` is what comes back."""

    id: str
    title: str
    description: str = ""


class Choices(msgspec.Struct, frozen=True, tag="choices"):
    """A text with answers to tap: buttons where the messenger has so many, else a list that ``button`` opens."""

    body: str
    options: tuple[Option, ...]
    button: str = "Choose"


class Template(msgspec.Struct, frozen=True, tag="template"):
    """A message that the messenger has approved beforehand: all that may be sent while the window is shut.

    ``parameters`` fill the body's places in order. ``category`` is as approved; marketing respects who opted out of it.
    """

    name: str
    language: str = "en"
    parameters: tuple[str, ...] = ()
    category: Literal["utility", "marketing", "authentication"] = "utility"


Content = Text | Choices | Template


class Address(msgspec.Struct, frozen=True):
    """A person's names on a channel: where to send, the provider's id of the person, or both."""

    address: str | None = None
    user_id: str | None = None


class Outgoing(msgspec.Struct, frozen=True):
    """One message to hand to a messenger. ``echo`` comes back in its statuses, where the messenger can do that."""

    to: Address
    content: Content
    echo: str


class Answer(msgspec.Struct, frozen=True):
    """What the messenger made of a message. ``after``: seconds to wait at least, where it said so; ``to``: what it
    calls the person, where it said that."""

    verdict: Verdict
    external_id: str | None = None
    code: int | None = None
    reason: str = ""
    after: float | None = None
    to: Address | None = None


class Inbound(msgspec.Struct, frozen=True):
    """One message of a person. ``sent_at``: microseconds since the epoch, by the provider's clock."""

    external_id: str
    sender: Address
    sent_at: int
    kind: str
    """``text``, ``choice`` (a tapped answer), or the provider's word: ``image``, ``reaction``, ``unsupported``, ..."""
    text: str = ""
    """What was written: the text, the title of what was tapped, or a caption."""
    choice: str | None = None
    """The id of the tapped answer."""
    replies_to: str | None = None
    """The external id of our message that it answers, where that was given."""
    name: str | None = None
    """What the person is called, where that was given."""
    raw: Mapping[str, Any] = {}
    """As received."""
    moved_to: Address | None = None
    """Not written by the person, but told by the messenger: from now on these are their names, the sender's no more."""


class Status(msgspec.Struct, frozen=True):
    """What became of a message of ours. ``at``: microseconds since the epoch, by the provider's clock."""

    external_id: str
    status: str
    """``sent``, ``delivered``, ``read``, ``failed``; others are kept and mean nothing."""
    at: int
    echo: str | None = None
    code: int | None = None
    reason: str = ""
    verdict: Verdict | None = None
    """For ``failed``: what the error means."""


class Preference(msgspec.Struct, frozen=True):
    """A person wants marketing, or wants none any more."""

    person: Address
    at: int
    marketing: bool


class Batch(msgspec.Struct):
    """What one update brought, in its order. ``unread``: what could not be read, and why; the rest is good."""

    inbound: list[Inbound] = []
    statuses: list[Status] = []
    preferences: list[Preference] = []
    unread: list[str] = []


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a messenger can do. ``window``: free-form messages so many seconds after the person's last; None: always."""

    echo: bool
    statuses: bool
    templates: bool
    typing: bool
    window: float | None
    buttons: int
    rows: int
    text_length: int


class Transport(Protocol):
    """A messenger's number, bot or page. ``name`` tells the application's channels apart and is stored."""

    name: str
    capabilities: Capabilities
    throughput: float
    """Messages a second that the channel may send."""
    inbound_counts: bool
    """Whether messages of people count against it."""
    pair: tuple[float, float, int] | None
    """Messages to one person: (rate, per seconds, burst)."""

    def check(self, content: Content) -> None:
        """Raise InvalidJob where the messenger would refuse this content: too long, too many options, ..."""
        ...

    async def send(self, message: Outgoing) -> Answer:
        """Hand a message over, once; never raises for what the network or the messenger does."""
        ...

    async def typing(self, external_id: str) -> None:
        """Show the person whose message that was that an answer is being written; failures don't matter."""
        ...

    def genuine(self, headers: Mapping[str, str], raw: bytes) -> bool:
        """Tell whether an update comes from the messenger. ``headers`` have lower-case names."""
        ...

    def handshake(self, query: Mapping[str, str]) -> str | None:
        """Answer the messenger's question whether this is our address for updates; None: a wrong or no question."""
        ...

    def read(self, raw: bytes) -> Batch:
        """Read an update: never raises, and one bad item leaves the others readable."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


@runtime_checkable
class Replies(Protocol):
    """A transport whose messenger takes a request of ours in the answer to its update: a tapped button, for example."""

    def reply(self, raw: bytes) -> bytes:
        """Return the JSON to answer an update with once it is stored, or nothing. Never raises."""
        ...


@runtime_checkable
class Addresses(Protocol):
    """A transport that knows how people write addresses, and what can't be one."""

    def address(self, given: str) -> Address:
        """Return an address as updates have it. Raises InvalidJob, in words for people, for what can't be one."""
        ...
