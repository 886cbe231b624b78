"""Synchronous calls without a connection of the caller's: a thread with an event loop and connections of its own."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from msgspec.json import decode

from oncue.errors import StoreError
from oncue.store.postgres.connection import Connection, Pool
from oncue.store.postgres.run import named, perform, qualified
from oncue.store.postgres.schema import prepare, version_of
from oncue.store.steps import Steps

if TYPE_CHECKING:
    from oncue.store.postgres import PostgresStore

T = TypeVar("T")
_CONNECTIONS = 3

HOME = """SELECT json_build_array(
  current_database(),
  (SELECT value FROM oncue_counter WHERE name = 'identity'),
  coalesce((SELECT value FROM oncue_counter WHERE name = 'schema'), 0),
  coalesce((SELECT value FROM oncue_counter WHERE name = 'schema_oldest'), 0),
  (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)::text"""


class Home(NamedTuple):
    """Where a store's tables are: the database's name, and the number that was drawn when the tables were made."""

    database: str
    identity: int


class Portal:
    """Does synchronous work of a store, from any thread, also while the store is open in a loop of the caller's.

    It starts when it is first needed, and again in a forked child, which must not use its parent's connections.
    """

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self.home: Home | None = None
        self._lock = threading.Lock()
        self._inside: _Inside | None = None
        self._stop_when_dropped: Any = None
        self._pid = os.getpid()
        self._left_behind: list[Any] = []

    def change(self, steps: Callable[[], Steps[T]], hint: int | None = None) -> T:
        """Run steps in a transaction of their own, with a NOTIFY for what is due at ``hint``. Raises a StoreError.

        On a database without OnCue's tables, or with older ones, these are made first.
        """
        store = self._store

        async def work(conn: Connection) -> T:
            answer = await perform(conn, steps(), store.schema_name)
            if payload := store.hint(hint):
                await self._notify(conn, payload)
            return answer

        async def within(inside: _Inside) -> T:
            return await (await inside.opened(store)).transaction(work)

        return self._run(within)

    def ping(self) -> None:
        """Send one notification without meaning. Raises a StoreError."""

        async def within(inside: _Inside) -> None:
            pool = await inside.opened(self._store)
            await pool.run(lambda conn: self._notify(conn, ""))

        self._run(within)

    async def _notify(self, conn: Connection, payload: str) -> None:
        began = self._store.began()
        values = {"channel": self._store.channel, "hint": payload}
        text, args = named("notify", self._store.schema_name, values)
        self._store.learn(began, int(await conn.fetchval(text, *args)))

    def find_home(self) -> Home | None:
        """Return where the store's tables are, and learn the server's time; None where there are none.

        Asked once. Nothing is made. Raises a StoreError.
        """
        if self.home is None:

            async def within(inside: _Inside) -> Home | None:
                if inside.pool is not None:
                    return await inside.pool.run(self.look)
                # A process that only ever uses connections of its own keeps none of ours open.
                pool = Pool(self._store.address, 1, self._store.patience)
                try:
                    return await pool.run(self.look)
                finally:
                    await pool.close()

            self.home = self._run(within)
        return self.home

    async def look(self, conn: Connection) -> Home | None:
        """Ask a connection of the store's where its tables are, and what time it is there."""
        store = self._store
        if not await version_of(conn, store.schema_name):
            began = store.began()
            text, args = named("time", store.schema_name, {})
            store.learn(began, int(await conn.fetchval(text, *args)))
            return None
        sql = qualified(HOME, store.schema_name)
        # Prepared first: it is the way there and back that is measured.
        asked = await conn.prepare(sql)
        began = store.began()
        database, identity, _, _, now = decode(await asked.fetchval())
        store.learn(began, now)
        return Home(database, identity)

    def _run(self, work: Callable[[_Inside], Coroutine[Any, Any, T]]) -> T:
        if self._pid != os.getpid():
            self._forget_parent()
        with self._lock:
            if self._inside is None:
                try:
                    self._inside = self._start()
                except RuntimeError:
                    # At the interpreter's exit no thread starts any more.
                    return asyncio.run(_once(work))
            future = asyncio.run_coroutine_threadsafe(work(self._inside), self._inside.loop)
        try:
            return future.result()
        except BaseException as error:
            if not future.done():
                future.cancel()
            elif future.cancelled():
                raise StoreError("The application was closed meanwhile. Whether it was stored is unknown.") from error
            raise

    def _start(self) -> _Inside:
        inside = _Inside()
        thread = threading.Thread(target=lambda: asyncio.run(inside.live()), name="oncue-sync", daemon=True)
        thread.start()
        inside.ready.wait()
        inside.thread = thread
        self._stop_when_dropped = weakref.finalize(self, inside.stop)
        # At exit it may be needed until the very end, and goes with the process.
        self._stop_when_dropped.atexit = False
        return inside

    def _forget_parent(self) -> None:
        # Kept, so that nothing of it is cleaned up: it shares its sockets with the parent's.
        self._left_behind.append(self._inside)
        if self._stop_when_dropped is not None:
            self._stop_when_dropped.detach()
        self._lock, self._inside, self._pid = threading.Lock(), None, os.getpid()

    def close(self) -> None:
        """Finish what was handed in and disconnect. Another call starts anew."""
        if self._pid != os.getpid():
            self._forget_parent()
        with self._lock:
            inside, self._inside = self._inside, None
            if inside is not None:
                self._stop_when_dropped.detach()
                inside.stop()
        if inside is not None and inside.thread is not None:
            inside.thread.join()


class _Inside:
    """The thread's loop, and what lives in it."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.thread: threading.Thread | None = None
        self.pool: Pool | None = None
        self.loop: asyncio.AbstractEventLoop
        self._door: asyncio.Lock
        self._stopping: asyncio.Event

    def enter(self) -> None:
        """Belong to the loop that runs."""
        self.loop = asyncio.get_running_loop()
        self._door, self._stopping = asyncio.Lock(), asyncio.Event()

    async def live(self) -> None:
        """Run until it is stopped, and end when all that was begun is done."""
        self.enter()
        self.ready.set()
        await self._stopping.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)
        await self.close()

    async def close(self) -> None:
        """Disconnect."""
        if self.pool is not None:
            await self.pool.close()

    def stop(self) -> None:
        """Have ``live`` end; from any thread."""
        self.loop.call_soon_threadsafe(self._stopping.set)

    async def opened(self, store: PostgresStore) -> Pool:
        """Return the connections to a database whose tables are up to date."""
        async with self._door:
            if self.pool is None:
                pool = Pool(store.address, _CONNECTIONS, store.patience)
                try:
                    await pool.run(lambda conn: prepare(conn, store.address, migrate=True))
                except BaseException:
                    await pool.close()
                    raise
                self.pool = pool
            return self.pool


async def _once(work: Callable[[_Inside], Awaitable[T]]) -> T:
    inside = _Inside()
    inside.enter()
    try:
        return await work(inside)
    finally:
        await inside.close()
