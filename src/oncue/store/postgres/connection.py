"""Connections to PostgreSQL as OnCue wants them: a small pool, and patience while a server restarts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from oncue.dsn import PostgresUrl, each_host
from oncue.errors import NotOpen, StoreError
from oncue.store.postgres.trouble import (
    TROUBLE,
    is_locked,
    is_rolled_back,
    is_standby,
    is_unreachable,
    is_unsent,
    translate,
)

T = TypeVar("T")
if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any]
else:
    # Generic for those who read types only.
    Connection = asyncpg.Connection
_TRIES = 6
_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
# So long a transaction of ours may stand still (its process stopped, its host cut off) before the server ends it.
_STANDSTILL = "2s"
LOCK_WAIT = 3.0
# A statement that is a transaction by itself doesn't wait for a row's lock: an outcome, and what comes after it in its
# worker, would wait for somebody's open transaction.
ROW_WAIT = 0.2
# The hot statements have one good plan each, by an index. Planners that have no statistics yet, or old ones, choose
# another at times and are a hundred times slower, so what they would choose is ruled out. One plan a statement: by
# itself PostgreSQL makes five more first, for the values of the first five calls.
SETTINGS = {
    "application_name": "oncue",
    # A due value reads the same on every connection, and CURRENT_DATE in a source's condition is UTC's, as on SQLite.
    "timezone": "UTC",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "idle_in_transaction_session_timeout": _STANDSTILL,
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_LOCAL = "; ".join(
    f"SET LOCAL {name} = '{value}'"
    for name, value in SETTINGS.items()
    if name.startswith(("enable", "jit", "plan", "idle"))
)
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"


async def connect(url: PostgresUrl, timeout: float, lock_wait: float = LOCK_WAIT) -> Connection:
    """Connect to the server that takes writes. ``timeout``: seconds, for statements too; ``lock_wait``: as much of it
    as a statement may wait for a lock. Raises what asyncpg does.

    Of several hosts each gets its share of the time: one that is silent doesn't keep us from the others.
    """
    hosts = each_host(url.dsn)
    failures: list[Exception] = []
    for host in hosts:
        try:
            return await _connect(host, url.pooled, timeout / len(hosts), timeout, lock_wait)
        except TROUBLE as error:
            if not is_unreachable(error):
                raise
            failures.append(error)
    # That one takes no writes says more than that another is away.
    raise next((one for one in failures if isinstance(one, asyncpg.TargetServerAttributeNotMatched)), failures[-1])


async def _connect(dsn: str, pooled: bool, timeout: float, patience: float, lock_wait: float) -> Connection:
    if pooled:
        # A pooler hands its connections to others too: they must not get our settings or our statements.
        settings = {name: SETTINGS[name] for name in ("application_name", "timezone")}
    else:
        settings = {**SETTINGS, "lock_timeout": _lock_timeout(patience, lock_wait)}
    return cast(
        "Connection",
        await asyncpg.connect(
            dsn,
            timeout=timeout,
            command_timeout=patience,
            server_settings=settings,
            statement_cache_size=0 if pooled else 200,
            target_session_attrs=SessionAttribute.read_write,
        ),
    )


def _lock_timeout(patience: float, lock_wait: float = LOCK_WAIT) -> str:
    """Less than the patience: the server then says that nothing was done, where silence would leave that open."""
    return f"{max(0.05, min(lock_wait, 0.8 * patience)) * 1000:.0f}ms"


class Pool:
    """Up to ``size`` connections, opened when they are needed and closed when they fail; and ``apart`` more for work
    that never waits for others' locks, so that it need not wait for work that does.

    ``patience``: how long, in seconds, work waits for a server that can't be reached, and for an answer.
    """

    def __init__(self, url: PostgresUrl, size: int, patience: float, apart: int = 0) -> None:
        self.url, self.patience = url, patience
        self.commits = 0
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(size)
        self._apart = asyncio.Semaphore(apart) if apart else self._room
        self.loop = asyncio.get_running_loop()
        self._closed = False

    async def run(
        self, work: Callable[[Connection], Awaitable[T]], *, waits: bool = True, patience: float | None = None
    ) -> T:
        """Run ``work`` on a connection; anew where the server took it back for others (deadlock, serialization), and
        where others hold a lock until the patience (this one's, in seconds, or the pool's) is over, unless it is said
        that it never ``waits``.

        Raises a StoreError. Where the connection broke under way, it is unknown whether a commit came through. On
        another loop than the one that opened the pool, the work is done on that one.
        """
        return await on(self.loop, lambda: self._run(work, waits, self.patience if patience is None else patience))

    async def _run(self, work: Callable[[Connection], Awaitable[T]], waits: bool, patience: float) -> T:
        tried, end = 0, time.monotonic() + patience
        while True:
            async with self.connection(waits=waits) as conn:
                try:
                    return await work(conn)
                except TROUBLE as error:
                    if isinstance(error, TimeoutError) or is_standby(error) or is_unsent(error):
                        # Its answer may never come; or it was the primary once, and the next one is to be found.
                        conn.terminate()
                    elif not conn.is_closed() and conn.is_in_transaction():
                        await _rollback(conn)
                    if not (waits and is_locked(error) and time.monotonic() < end):
                        tried += 1
                        if tried == _TRIES or not (is_rolled_back(error) or is_standby(error)):
                            raise translate(error, self.url) from error
            await asyncio.sleep(_PAUSE * 2 ** max(0, tried - 1) * random.uniform(0.5, 1.0))

    async def transaction(
        self,
        work: Callable[[Connection], Awaitable[T]],
        lock: int | None = None,
        *,
        waits: bool = True,
        lock_wait: float | None = None,
    ) -> T:
        """Run ``work`` in a transaction of its own, READ COMMITTED; under the advisory lock where one is given.

        ``lock_wait``: a statement waits for a lock only so long, in seconds, and isn't tried again after that.
        """

        async def in_transaction(conn: Connection) -> T:
            await conn.execute(self.begin(lock, lock_wait))
            result = await work(conn)
            await conn.execute("COMMIT")
            self.commits += 1
            return result

        return await self.run(in_transaction, waits=waits, patience=None if lock_wait is None else 0)

    def begin(self, lock: int | None = None, lock_wait: float | None = None) -> str:
        """Return what begins a transaction, in one message to the server."""
        wait = _lock_timeout(self.patience, LOCK_WAIT if lock_wait is None else lock_wait)
        parts = [BEGIN, f"SET LOCAL lock_timeout = '{wait}'"]
        if self.url.pooled:
            parts.append(_LOCAL)
        if lock is not None:
            parts.append(f"SELECT pg_advisory_xact_lock({lock})")
        return "; ".join(parts)

    @asynccontextmanager
    async def connection(self, *, waits: bool = True) -> AsyncIterator[Connection]:
        """Lend a connection; one that is broken, or was left inside a transaction, is closed afterwards."""
        async with self._room if waits else self._apart:
            conn = await self._take()
            usable = False
            try:
                yield conn
                usable = True
            except Exception:
                usable = True
                raise
            finally:
                # After a cancelled wait the answer is still to come, so the connection is not used again.
                if self._closed or not usable or (not conn.is_closed() and conn.is_in_transaction()):
                    conn.terminate()
                elif not conn.is_closed():
                    self._idle.append(conn)

    async def _take(self) -> Connection:
        while self._idle:
            conn = self._idle.pop()
            if not conn.is_closed():
                return conn
        if self._closed:
            raise StoreError(f"{self.url.shown}: the store is closed. Open the application (async with app) first.")
        end, pause = time.monotonic() + self.patience, _PAUSE
        while True:
            try:
                return await connect(self.url, max(0.1, self.patience), ROW_WAIT)
            except TROUBLE as error:
                if not is_unreachable(error) or time.monotonic() + pause > end:
                    raise translate(error, self.url, connected=False) from error
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def close(self) -> None:
        """Close the connections; those in use close when they come back."""
        self._closed = True
        for conn in self._idle:
            try:
                await conn.close(timeout=2)
            except TROUBLE:
                conn.terminate()
        self._idle.clear()
        # A socket closes in the loop's next round.
        await asyncio.sleep(0)


async def on(loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await ``work()`` on that loop: connections belong to the loop that made them."""
    if asyncio.get_running_loop() is loop:
        return await work()
    if not loop.is_running():
        raise NotOpen("The event loop that opened the application runs no more: open it on this one.")
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), loop))


async def _rollback(conn: Connection) -> None:
    try:
        await conn.execute("ROLLBACK")
    except TROUBLE:
        conn.terminate()
