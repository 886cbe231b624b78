"""What the suite needs of a messenger: a stand-in that listens on loopback, and a person who has it in their hand.

A new transport passes the suite when a `Kind` of its own stands in `KINDS` of conftest.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from oncue.transport import Address, Content, Template, Transport


@dataclass(frozen=True, slots=True)
class Update:
    """An update as the messenger posts it. ``headers`` have lower-case names."""

    headers: Mapping[str, str]
    raw: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """A message that the person has before them. ``options``: (id, title) of what can be tapped."""

    external_id: str
    text: str
    options: tuple[tuple[str, str], ...] = ()


class Kind(ABC):
    """A messenger's stand-in, running within ``async with``."""

    url: str
    secrets: tuple[str, ...]
    """What must never be shown."""
    person: Address
    """Somebody who may be written to."""
    template: Template | None = None
    """One that may be sent, where there are templates."""
    refused: Sequence[Content] = ()
    """What `check` refuses, besides what the capabilities tell."""
    signs: bool
    """Whether what proves an update genuine is bound to its body."""
    forged: Mapping[str, str]
    """Headers that prove nothing."""
    question: Mapping[str, str] | None = None
    """The handshake, rightly asked, where there is one."""
    answer: str = ""
    """The right answer to it."""

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def transport(self, url: str, *, timeout: float = 20) -> Transport:
        """Return the transport under test, which finds the messenger at ``url``."""

    @abstractmethod
    def seen(self) -> list[Seen]:
        """Return the messages that the person has before them, the oldest first."""

    @abstractmethod
    async def write(self, text: str) -> Update:
        """Have the person write."""

    @abstractmethod
    async def tap(self, title: str) -> Update:
        """Have the person tap what they were shown under this title."""

    @abstractmethod
    async def others(self) -> list[Update]:
        """Have the person send what is neither text nor tapped: a picture, a sticker, a reaction."""

    async def statuses(self, external_id: str) -> list[Update]:
        """Wait for the updates that tell of this message, up to the one that it is delivered."""
        raise NotImplementedError
