"""The wake queue: a lossy channel that says that something changed, never what is true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from oncue.errors import ConfigError


class Wake(Protocol):
    """A hint channel. Losing, doubling or reordering hints makes jobs late by at most a sweep, no more."""

    async def start(self) -> None:
        """Begin to listen."""
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...

    def listen(self, heard: Callable[[int | None], None]) -> Callable[[], None]:
        """Have ``heard(due)`` called on this loop for each hint; the returned function ends that.

        ``due`` is the earliest due time hinted at, in microseconds; None when only "something changed" is known.
        A hint may be heard a moment before its commit can be read: who must not miss it looks with the write lock.
        """
        ...

    def hint(self, due: int) -> None:
        """Say that something is due at ``due``. Never blocks, never raises."""
        ...

    @property
    def healthy(self) -> str | None:
        """None where hints from other processes arrive at once; else what is wrong and what happens instead."""
        ...


def open_wake(url: str | None, database: str) -> Wake:
    """Return the wake queue for a URL, beside the ``database``; ``local://`` (the default) needs no server.

    Raises ConfigError.
    """
    scheme = (url or "local://").partition(":")[0]
    if scheme == "local":
        from oncue.wake.local import LocalWake

        return LocalWake(database)
    raise ConfigError(f"No wake queue for {url!r}: this version knows local:// only. Leave wake= out.")
