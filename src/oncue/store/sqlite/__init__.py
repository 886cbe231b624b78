"""The embedded store: one SQLite file, one writing thread, commits shared by all who wait."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from oncue.clock import Clock
from oncue.errors import NotOpen
from oncue.job import Ack, Claimed, Inserted, NewJob
from oncue.store import Claim, Claims, WorkerRow
from oncue.store.base import SharedStore
from oncue.store.lock import LifeLock, forget, hold, is_dead
from oncue.store.sqlite import schema, state
from oncue.store.sqlite.connection import ConnectionThread, data_version, path_of
from oncue.store.sqlite.lease import LeaseKeeper
from oncue.store.sqlite.run import SQL, perform
from oncue.store.sqlite.source import SqliteSources
from oncue.store.sqlite.transaction import SyncConnections
from oncue.store.steps import Steps, claim, manage
from oncue.store.steps.insert import insert_jobs
from oncue.store.views import Check, SchemaView

T = TypeVar("T")
_Asked = tuple[NewJob, "asyncio.Future[Inserted]"]


class SqliteStore(SharedStore):
    """The store behind ``sqlite:///file.db``."""

    def __init__(self, url: str, clock: Clock, busy_timeout: float = 10.0) -> None:
        self.url = url
        self.path = path_of(url)
        self.clock = clock
        self.hint_within = 0
        self._busy_timeout = busy_timeout
        self._writer: ConnectionThread | None = None
        self._reader: ConnectionThread | None = None
        # By loop: a future may be settled by its own loop only.
        self._pending: dict[asyncio.AbstractEventLoop, list[_Asked]] = {}
        self._pending_lock = threading.Lock()
        self._version = -1
        self._sync = SyncConnections(self.path, busy_timeout)
        self._lives = self.path.with_name(self.path.name + "-workers")

    @property
    def writes(self) -> int:
        """Write transactions that this store has committed."""
        return self._writer.commits if self._writer else 0

    async def open(self, *, migrate: bool = True) -> None:
        """Create or migrate the tables; raises a StoreError that names the file and the remedy.

        With ``migrate=False`` nothing is created or changed: raises NoDatabase, SchemaTooOld or SchemaTooNew instead.
        """
        if self._writer is not None:
            return
        if not migrate:
            state.require_current(await self.schema())
        writer = ConnectionThread(self.path, "oncue-writer", write=True, busy_timeout=self._busy_timeout)
        try:
            if migrate:
                await writer.submit(schema.migrate)
        except BaseException:
            await writer.close()
            raise
        self._writer = writer
        self._reader = ConnectionThread(self.path, "oncue-reader", write=False, busy_timeout=self._busy_timeout)

    async def close(self) -> None:
        """Finish what was handed in and close the file."""
        writer, reader = self._writer, self._reader
        self._writer = self._reader = None
        if writer is not None and reader is not None:
            await reader.close()
            await writer.close()
            self._sync.close()

    async def write(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``operation(connection)`` inside a write transaction; return its answer once that is durable."""
        return await self._thread(self._writer).submit(operation)

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``operation(connection)`` inside a read transaction."""
        return await self._thread(self._reader).submit(operation)

    async def change(self, steps: Callable[[], Steps[T]], hint: int | None = None, *, locked: bool = False) -> T:
        """Run steps in a write transaction; return their answer once that is durable. Others see the file change."""
        return await self.write(lambda conn: perform(conn, steps()))

    async def look(self, steps: Callable[[], Steps[T]]) -> T:
        """Run steps that only read, in one transaction."""
        return await self.read(lambda conn: perform(conn, steps()))

    def _thread(self, thread: ConnectionThread | None) -> ConnectionThread:
        if thread is None:
            raise NotOpen("The application is not open: use `async with app:` or `await app.open()` first.")
        return thread

    async def insert(self, job: NewJob) -> Inserted:
        """Store one job. Calls that wait for the writer together are stored as one set, in one commit."""
        writer, loop = self._thread(self._writer), asyncio.get_running_loop()
        future: asyncio.Future[Inserted] = loop.create_future()
        with self._pending_lock:
            waiting = self._pending.setdefault(loop, [])
            waiting.append((job, future))
        if len(waiting) == 1:
            taken: list[_Asked] = []
            committed = writer.submit(lambda conn: self._insert_pending(conn, loop, taken))
            committed.add_done_callback(lambda done: self._settle(loop, taken, done))
        return await future

    def _take_pending(self, loop: asyncio.AbstractEventLoop, taken: list[_Asked]) -> None:
        with self._pending_lock:
            taken[:] = self._pending.pop(loop, [])

    def _insert_pending(
        self, conn: sqlite3.Connection, loop: asyncio.AbstractEventLoop, taken: list[_Asked]
    ) -> list[Inserted]:
        self._take_pending(loop, taken)
        return perform(conn, insert_jobs([job for job, _ in taken]))

    def _settle(
        self, loop: asyncio.AbstractEventLoop, taken: list[_Asked], done: asyncio.Future[list[Inserted]]
    ) -> None:
        error = done.exception()
        if error is not None and not taken:
            # The transaction could not even begin: nobody has picked up what waits, and nobody else will.
            self._take_pending(loop, taken)
        for number, (_, future) in enumerate(taken):
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result()[number])

    async def insert_many(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Store many jobs in one transaction."""
        return await self.change(lambda: insert_jobs(jobs)) if jobs else []

    async def claim(self, request: Claim) -> Claims:
        """Record acks and claim due jobs in one transaction."""

        def steps() -> Steps[Claims]:
            # Others may have kept the lock for longer than a lease is, which counts from now on.
            request.now = max(request.now, self.clock.now())
            return claim.claim(request)

        return await self.change(steps)

    async def changed_elsewhere(self) -> bool:
        """Tell whether another connection has written to the file since this was asked last."""
        version = await self.write(data_version)
        changed, self._version = version != self._version, version
        return changed

    async def register(self, row: WorkerRow) -> tuple[int, LifeLock]:
        """Add a worker's life; return its id, which fences all that it claims, and the lock that proves it alive."""

        def add(conn: sqlite3.Connection) -> tuple[int, LifeLock]:
            id = perform(conn, manage.add_worker(row))
            # Locked before the row can be seen, so that nobody takes a newborn for dead.
            return id, hold(self._lives, id)

        return await self.write(add)

    async def rescue(self, now: int, retention: int | None) -> list[tuple[Claimed, Ack]]:
        """Take back the jobs of workers whose lease ended or whose death is proved; return what became of each."""

        def take_back(conn: sqlite3.Connection) -> list[tuple[Claimed, Ack]]:
            dead = self._dead(perform(conn, manage.workers()))
            proved = [(row.id, f"worker {row.name} died (its process holds its lock no more)") for row in dead]
            taken, gone = perform(conn, manage.rescue(now, retention, proved))
            for worker in gone:
                forget(self._lives, worker)
            return taken

        return await self.write(take_back)

    def _dead(self, rows: Sequence[WorkerRow]) -> list[WorkerRow]:
        host = socket.gethostname()
        return [row for row in rows if row.host == host and is_dead(self._lives, row.id)]

    async def proved_dead(self) -> set[int]:
        """Return the ids of workers of this host whose process holds its lock no more."""
        return {row.id for row in self._dead(await self.workers())}

    def lease_keeper(self) -> LeaseKeeper:
        """Return what renews leases from a thread of its own, with a connection of its own."""
        return LeaseKeeper(self.path)

    def source_keeper(self) -> SqliteSources:
        """Return what reads the users' tables and remembers which of their rows were handled."""
        return SqliteSources(self)

    async def schema(self) -> SchemaView:
        """Look at the schema without creating or changing anything; the store need not be open."""
        return await asyncio.to_thread(state.schema_of, self.path)

    async def check(self) -> list[Check]:
        """Return what the file's settings, folder and disk say."""
        return await self.read(lambda conn: state.check(conn, self.path))

    async def announce(self, payload: str) -> int:
        """Nothing need be said: whoever listens sees the file change."""
        return self.clock.now()

    def ping_sync(self) -> None:
        """Commit a change without meaning, from another connection; workers and listeners should hear it."""
        self._sync.run(lambda conn: conn.execute(SQL["ping"]), None)

    def know_time(self) -> None:
        """The time is this machine's."""

    async def within(self, connection: Any, steps: Callable[[], Steps[T]], hint: int | None) -> T:
        """Run steps in the transaction of the caller's sqlite3 connection."""
        return self.within_sync(connection, steps, hint)

    def within_sync(self, connection: Any, steps: Callable[[], Steps[T]], hint: int | None) -> T:
        """``within``; without a connection, in a transaction of its own, which creates the file where there is none."""
        return self._sync.run(lambda conn: perform(conn, steps()), connection)
