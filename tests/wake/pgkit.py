"""What tests of the wake queue on PostgreSQL share: a sender, a quick timing, and waiting for the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg

from oncue.wake import Send
from oncue.wake.postgres import PostgresWake, Timing
from tests.wake.conftest import Ear

CHANNEL = "oncue_oncue"
# Patient where an answer is expected, else as quick as can be.
QUICK = Timing(probe_every=0.1, prove_within=5.0, poll_every=0.02, first_pause=0.02, longest_pause=0.1)
# For channels that stay silent: a probe is given up soon.
HASTY = Timing(probe_every=0.1, prove_within=0.3, poll_every=0.02, first_pause=0.02, longest_pause=0.1)


def sender(dsn: str, channel: str = CHANNEL) -> Send:
    """As a store does it, over a connection of its own."""

    async def send(payload: str) -> None:
        await execute(dsn, "SELECT pg_notify($1, $2)", channel, payload)

    return send


async def execute(dsn: str, sql: str, *args: object) -> None:
    connection = await asyncpg.connect(dsn, statement_cache_size=0, timeout=5, command_timeout=30)
    try:
        await connection.execute(sql, *args)
    finally:
        connection.terminate()


async def listeners(dsn: str) -> list[int]:
    """The server's processes that serve LISTEN connections of this database."""
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'oncue wake'"
    )
    await connection.close()
    return [row["pid"] for row in rows]


class Log(logging.Handler):
    """What the wake queue says, by level, and an event a test can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelname, record.getMessage()))
        self._loop.call_soon_threadsafe(self._news.set)

    def of(self, level: str) -> list[str]:
        return [text for name, text in self.lines if name == level]

    async def until(self, level: str, count: int = 1) -> str:
        """Wait for so many lines of a level; return the last."""
        while len(self.of(level)) < count:
            self._news.clear()
            await self._news.wait()
        return self.of(level)[-1]


@asynccontextmanager
async def hearing(
    database: str, send: Send | None = None, listen: str | None = None, timing: Timing = QUICK
) -> AsyncIterator[tuple[PostgresWake, Ear]]:
    """A wake queue with a listener; closed afterwards."""
    wake, ear = PostgresWake(database, send or sender(database), listen, timing), Ear()
    await wake.start()
    wake.listen(ear)
    try:
        yield wake, ear
    finally:
        await wake.close()


async def is_so(wake: PostgresWake, ear: Ear, wanted: Callable[[str | None], bool]) -> None:
    """Wait until ``healthy`` is as wanted, looking at it after each hint (a lost channel gives many)."""
    while not wanted(wake.healthy):
        seen = len(ear.heard)
        await ear.until(lambda heard: len(heard) > seen)  # noqa: B023 - awaited at once


async def proved(wake: PostgresWake, ear: Ear) -> None:
    await is_so(wake, ear, lambda problem: problem is None)
    ear.heard.clear()
