"""The wake queue: a lossy channel that says that something changed, never what is true."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from oncue.dsn import is_postgres
from oncue.errors import ConfigError
from oncue.redis_url import is_redis, parse_redis

if TYPE_CHECKING:
    from oncue.wake.bullmq import Carrier

UNPROVED = "is not proved yet"
"""What ``healthy`` says of a channel that is being connected for the first time."""
Send = Callable[[str], Awaitable[object]]
"""Sends a payload over the store's own connection to all who listen on the schema's channel."""


class Wake(Protocol):
    """A hint channel. Losing, doubling or reordering hints makes jobs late by at most a sweep, no more."""

    hears_commits: bool
    """Whether every commit to the database is heard, and not only those that announce what is due."""
    timers: bool
    """Whether workers start jobs by their own timers; where not, only when the carrier delivers them."""

    @property
    def carrier(self) -> Carrier | None:
        """What carries announcements of jobs and delivers them when they are due, where there is such a queue."""
        ...

    async def start(self) -> None:
        """Begin to listen. A channel that can't be had now is no error: ``healthy`` says so, and it is tried again."""
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...

    def listen(self, heard: Callable[[int | None], None]) -> Callable[[], None]:
        """Have ``heard(due)`` called on this loop for each hint; the returned function ends that.

        ``due`` is the earliest due time hinted at, in microseconds; None when only "something changed" is known, or
        that something may have: after a time in which nothing could be heard, and again and again while nothing can.
        A hint may be heard a moment before its commit can be read: who must not miss it looks with the write lock.

        On SQLite every commit to the file is heard, whoever made it. On PostgreSQL a transaction is heard that sends
        its hint: all of OnCue's do. SQL of others does it by ``SELECT pg_notify('oncue_<schema>', '')``, else it is
        noticed by the next sweep.
        """
        ...

    def reconnect(self) -> None:
        """Try a channel that doesn't work again at once, and prove one that seems to. Never blocks, never raises."""
        ...

    def hint(self, due: int) -> None:
        """Tell this process that something is due at ``due``; others hear by the commit. Never blocks, never raises."""
        ...

    @property
    def counts(self) -> dict[str, int]:
        """What came since the start: hints ``sent``, ``heard`` and ``lost`` (proofs of the channel that failed among
        them), ``reconnects``, ``polls``; of a carrier what its ``Stats`` say, as ``carrier_NAME``."""
        ...

    @property
    def healthy(self) -> str | None:
        """None where hints from other processes arrive at once; else what is wrong and what happens instead."""
        ...


def open_wake(url: str | None, database: str, send: Send | None = None) -> Wake:
    """Return the wake queue for a URL, beside the ``database``.

    None is what fits the database: its file on SQLite, LISTEN on the same server on PostgreSQL. There, another
    ``postgresql://`` URL is a second way to the same database, for LISTEN alone: past a pooler that can't. A
    ``redis://`` URL adds Redis to what fits the database. ``send`` is needed on PostgreSQL, to prove the channel.
    Raises ConfigError.
    """
    if url is not None and is_redis(url):
        from oncue.wake.redis import RedisWake

        return RedisWake(parse_redis(url), open_wake(None, database, send))
    if is_postgres(database) and (url is None or is_postgres(url)):
        from oncue.wake.postgres import PostgresWake

        if send is None:
            raise TypeError("open_wake() needs send= for a PostgreSQL database")
        return PostgresWake(database, send, listen_url=url)
    if not is_postgres(database) and (url or "local://").partition(":")[0] == "local":
        from oncue.wake.local import LocalWake

        return LocalWake(database)
    fits = "postgresql://... (past a pooler)" if is_postgres(database) else "local://"
    raise ConfigError(
        f"No wake queue for {_scheme(url)!r}: this version knows {fits} and redis://... beside this database. Leave "
        "wake= out, or name one of these."
    )


def _scheme(url: str | None) -> str:
    # The rest may hold a password.
    scheme, colon, _ = (url or "").partition("://")
    return scheme + colon
