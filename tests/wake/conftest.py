"""The wake queues under test. Another joins by a branch of ``backend``; no test knows which one it has."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from oncue.clock import SystemClock
from oncue.store import open_store
from oncue.wake import Wake, open_wake


@dataclass(frozen=True)
class Backend:
    """A wake queue of one test beside its database; ``commit`` is plain SQL in a process that knows no OnCue."""

    database: str
    wake: str | None
    commit: list[str]

    async def foreign_commit(self) -> None:
        """Commit a change to the database from a process of its own."""
        made = await asyncio.create_subprocess_exec(*self.commit)
        assert await made.wait() == 0


async def local_backend(tmp_path: Path) -> Backend:
    path = tmp_path / "jobs.db"
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
        "c.execute('CREATE TABLE IF NOT EXISTS mine (n)'); c.execute('INSERT INTO mine VALUES (1)'); c.commit()"
    )
    return Backend(f"sqlite:///{path}", None, [sys.executable, "-c", script, str(path)])


@pytest.fixture(params=["local"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    made = await {"local": local_backend}[request.param](tmp_path)
    store = open_store(made.database, SystemClock())
    await store.open()
    yield made
    await store.close()


class Ear:
    """A listener that keeps what it heard and can be waited for."""

    def __init__(self) -> None:
        self.heard: list[int | None] = []
        self._news = asyncio.Event()

    def __call__(self, due: int | None) -> None:
        self.heard.append(due)
        self._news.set()

    async def until(self, wanted: Callable[[list[int | None]], bool]) -> None:
        """Wait until what was heard is as wanted; the test's own timeout ends a wait in vain."""
        while not wanted(self.heard):
            self._news.clear()
            await self._news.wait()

    async def anything(self) -> None:
        await self.until(bool)


@pytest.fixture
async def started(backend: Backend) -> AsyncIterator[Callable[[], Awaitable[Wake]]]:
    """Starts one more wake queue on the same database."""
    async with AsyncExitStack() as stack:

        async def start() -> Wake:
            wake = open_wake(backend.wake, backend.database)
            await wake.start()
            stack.push_async_callback(wake.close)
            return wake

        yield start
