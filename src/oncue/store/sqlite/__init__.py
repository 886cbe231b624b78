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
from oncue.job import Ack, Cancelled, Claimed, Inserted, NewJob
from oncue.store import Claim, Claims, ScheduleRow, WorkerRow
from oncue.store.lock import LifeLock, forget, hold, is_dead
from oncue.store.sqlite import claim as claims
from oncue.store.sqlite import manage, read, schedules, schema, state
from oncue.store.sqlite.connection import ConnectionThread, data_version, path_of
from oncue.store.sqlite.insert import SQL, insert_jobs
from oncue.store.sqlite.lease import LeaseKeeper
from oncue.store.sqlite.source import SqliteSources
from oncue.store.sqlite.transaction import SyncConnections
from oncue.store.views import AttemptView, Backlog, Blocker, Check, Counts, JobView, QueueView, SchemaView

T = TypeVar("T")
_Asked = tuple[NewJob, "asyncio.Future[Inserted]"]


class SqliteStore:
    """The store behind ``sqlite:///file.db``."""

    def __init__(self, url: str, clock: Clock, busy_timeout: float = 10.0) -> None:
        self.url = url
        self.path = path_of(url)
        self.clock = clock
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
        return insert_jobs(conn, [job for job, _ in taken])

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
        return await self.write(lambda conn: insert_jobs(conn, jobs)) if jobs else []

    async def claim(self, request: Claim) -> Claims:
        """Record acks and claim due jobs in one transaction."""
        return await self.write(lambda conn: claims.claim(conn, request))

    async def changed_elsewhere(self) -> bool:
        """Tell whether another connection has written to the file since this was asked last."""
        version = await self.write(data_version)
        changed, self._version = version != self._version, version
        return changed

    async def register(self, row: WorkerRow) -> tuple[int, LifeLock]:
        """Add a worker's life; return its id, which fences all that it claims, and the lock that proves it alive."""

        def add(conn: sqlite3.Connection) -> tuple[int, LifeLock]:
            id = manage.add_worker(conn, row)
            # Locked before the row can be seen, so that nobody takes a newborn for dead.
            return id, hold(self._lives, id)

        return await self.write(add)

    async def unregister(self, worker: int) -> None:
        """Remove a worker, and give back what it may still hold."""
        await self.write(lambda conn: manage.sign_off(conn, self.clock.now(), worker))

    async def progress(self, worker: int, job: Claimed, value: object) -> bool:
        """Store a running job's progress; False where the claim is not this worker's any more."""
        return await self.write(lambda conn: manage.set_progress(conn, worker, job.id, job.attempt, value))

    async def prune(self, now: int, count: int) -> int:
        """Delete up to ``count`` finished jobs whose retention is over."""
        return await self.write(lambda conn: manage.prune(conn, now, count))

    async def unblock(self) -> int:
        """Give the first job behind every blocker another look; return how many blockers there were."""
        return await self.write(manage.unblock)

    async def rescue(self, now: int, retention: int | None) -> list[tuple[Claimed, Ack]]:
        """Take back the jobs of workers whose lease ended or whose death is proved; return what became of each."""

        def take_back(conn: sqlite3.Connection) -> list[tuple[Claimed, Ack]]:
            dead = self._dead(manage.workers(conn))
            proved = [(row.id, f"worker {row.name} died (its process holds its lock no more)") for row in dead]
            taken = manage.rescue(conn, now, retention, proved)
            for row in dead:
                forget(self._lives, row.id)
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

    async def schedules(self) -> list[ScheduleRow]:
        """Return the stored schedules by name."""
        return await self.read(schedules.schedules)

    async def save_schedule(self, row: ScheduleRow) -> None:
        """Add a schedule, or change its definition; whether it is paused stays."""
        await self.write(lambda conn: schedules.save_schedule(conn, row))

    async def drop_schedule(self, name: str) -> None:
        """Remove a schedule; jobs that it made stay."""
        await self.write(lambda conn: schedules.drop_schedule(conn, name))

    async def advance_schedule(
        self, row: ScheduleRow, following: int | None, dropped: int, jobs: Sequence[NewJob]
    ) -> bool:
        """Store a fire's jobs and move the schedule on in one transaction, unless another planner did; tell which."""
        return await self.write(lambda conn: schedules.advance_schedule(conn, row, following, dropped, jobs))

    async def pause_schedule(self, name: str, paused: bool, next_at: int | None) -> bool:
        """Pause or resume a schedule; False where there is none of that name."""
        return await self.write(lambda conn: schedules.pause_schedule(conn, name, paused, next_at))

    async def job(self, id: int) -> JobView | None:
        """Return a job, waiting, running or final; None where there is none."""
        return await self.read(lambda conn: read.get_job(conn, id))

    async def gone(self, ids: Sequence[int]) -> list[int]:
        """Return those of ``ids`` that wait and run no more; waits for a commit that is being written."""
        return await self.write(lambda conn: read.gone(conn, ids))

    async def attempts(self, id: int) -> list[AttemptView]:
        """Return the attempts that did not end the job, oldest first."""
        return await self.read(lambda conn: read.attempts(conn, id))

    async def list_jobs(self, *, limit: int, **filters: Any) -> list[JobView]:
        """Return jobs, newest id first, that match all filters."""
        return await self.read(lambda conn: read.list_jobs(conn, limit, **filters))

    async def counts(self, now: int) -> Counts:
        """Return how many jobs are in which state."""
        return await self.read(lambda conn: read.counts(conn, now))

    async def backlog(self, now: int, queues: frozenset[str] | None) -> Backlog:
        """Return what is left to do in these queues (None: in all)."""
        return await self.read(lambda conn: read.backlog(conn, now, queues))

    async def run_now(self, now: int, id: int) -> None:
        """Make a waiting job due now. Raises UnknownJob or InvalidJob."""
        await self.write(lambda conn: manage.run_now(conn, now, id))

    async def restart(self, now: int, id: int) -> None:
        """Put a discarded or cancelled job back, due now. Raises UnknownJob or InvalidJob."""
        await self.write(lambda conn: manage.restart(conn, now, id))

    async def workers(self) -> list[WorkerRow]:
        """Return the registered workers."""
        return await self.read(manage.workers)

    async def queues(self, now: int) -> list[QueueView]:
        """Return the queues by name."""
        return await self.read(lambda conn: read.queues(conn, now))

    async def blockers(self) -> list[Blocker]:
        """Return everything that jobs wait behind, except limits and due times."""
        return await self.read(read.blockers)

    async def overdue(self, before: int, limit: int) -> list[JobView]:
        """Return jobs that were due before that time and don't run, longest overdue first."""
        return await self.read(lambda conn: read.overdue(conn, before, limit))

    async def schema(self) -> SchemaView:
        """Look at the schema without creating or changing anything; the store need not be open."""
        return await asyncio.to_thread(state.schema_of, self.path)

    async def check(self) -> list[Check]:
        """Return what the file's settings, folder and disk say."""
        return await self.read(lambda conn: state.check(conn, self.path))

    def ping_sync(self) -> None:
        """Commit a change without meaning, from another connection; workers and listeners should hear it."""
        self._sync.run(lambda conn: conn.execute(SQL["ping"]), None)

    async def set_queue(self, name: str, paused: bool) -> None:
        """Pause or resume a queue for all workers."""
        await self.write(lambda conn: conn.execute(SQL["set_queue"], {"name": name, "paused": paused}))

    async def hold_due(self, now: int) -> int:
        """After a restore: hold what came due by ``now``; return how many."""
        return await self.write(lambda conn: manage.hold_due(conn, now))

    async def release_held(self) -> int:
        """Let what was held run; return how many."""
        return await self.write(manage.release_held)

    async def cancel(self, now: int, expires_at: int | None, *, id: int | None, key: str | None) -> Cancelled:
        """Cancel what the id or key names; tell what came of it."""
        return await self.write(lambda conn: manage.cancel(conn, now, expires_at, id=id, key=key))

    def insert_sync(self, jobs: Sequence[NewJob], connection: Any = None) -> list[Inserted]:
        """Store jobs synchronously: in the caller's transaction where a connection is given, else in one of its own."""
        return self._sync.run(lambda conn: insert_jobs(conn, jobs), connection)

    def cancel_sync(
        self, now: int, expires_at: int | None, id: int | None, key: str | None, connection: Any = None
    ) -> Cancelled:
        """``cancel``, synchronously."""
        return self._sync.run(lambda conn: manage.cancel(conn, now, expires_at, id=id, key=key), connection)

    def reschedule_sync(self, due: int, id: int | None, key: str | None, connection: Any = None) -> bool:
        """``reschedule``, synchronously."""
        return self._sync.run(lambda conn: manage.reschedule(conn, due, id=id, key=key), connection)

    async def reschedule(self, due: int, *, id: int | None, key: str | None) -> bool:
        """Move a job that is not running to ``due``; False where there is none."""
        return await self.write(lambda conn: manage.reschedule(conn, due, id=id, key=key))
