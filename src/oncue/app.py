"""OnCue: what an application declares its tasks on, schedules with, and runs its workers from."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from oncue.alerts import Alerts, Rule, Target
from oncue.clock import SECOND, Clock, SystemClock, seconds_to_us
from oncue.declare import Declarations
from oncue.errors import ConfigError
from oncue.handle import JobHandle, handles
from oncue.job import Cancelled, Conflict, WhenLate, WhileStarted
from oncue.jobs import Jobs
from oncue.lifespan import Lifespan
from oncue.metrics import Recorder
from oncue.recurring import Recurring
from oncue.results import Results
from oncue.scheduling import Delay, Scheduled, due_time, new_job, traced_storing
from oncue.settings import DEFAULT_URL
from oncue.store import open_store
from oncue.store.steps import manage
from oncue.store.steps.insert import insert_jobs
from oncue.task import Call
from oncue.wake import open_wake

if TYPE_CHECKING:
    from oncue.drain import Drained
    from oncue.service import Service
    from oncue.source import Sources
    from oncue.sync import SyncOnCue
    from oncue.worker import WorkerOptions

R = TypeVar("R")


class OnCue(Declarations):
    """Durable scheduled work: declare tasks, schedule calls of them, run workers.

    ``url`` names the database (default: the environment's ``DATABASE_URL``, else ``sqlite:///oncue.db``).
    ``name`` tells applications apart that share a database: each owns its schedules.
    ``retention``: how long finished jobs are kept (seconds or timedelta, 7 days by default; None: for ever).
    ``sweep``: seconds between two sweeps. ``clock`` is for tests.
    ``busy_timeout``: seconds to wait for another process's write lock. ``alerts``: rules as ``alert`` takes them.
    Raises ConfigError for a URL or value that can't work. Nothing is opened before ``async with app``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        name: str = "default",
        wake: str | None = None,
        retention: Delay | None = timedelta(days=7),
        sweep: float = 60.0,
        clock: Clock | None = None,
        busy_timeout: float = 10.0,
        alerts: Sequence[Rule] = (),
    ) -> None:
        super().__init__()
        if not sweep > 0 or not busy_timeout >= 0:
            raise ConfigError(f"sweep ({sweep!r}) is above 0 seconds and busy_timeout ({busy_timeout!r}) at least 0.")
        self.name = name
        self.retention_us = None if retention is None else seconds_to_us(retention)
        self.sweep_us = seconds_to_us(sweep)
        self._sources: Sources | None = None
        self.lifespan = Lifespan(self)
        self.metrics = Recorder()
        """What this process has done: see ``oncue.metrics``."""
        self.alerts = Alerts(self)
        self.alert(*alerts)
        self.redacted: set[str] = set()
        self._opened = 0
        self._door = asyncio.Lock()
        self._sync: SyncOnCue | None = None
        self._bind(url or os.environ.get("DATABASE_URL") or DEFAULT_URL, wake, clock or SystemClock(), busy_timeout)

    def _bind(self, url: str, wake: str | None, clock: Clock, busy_timeout: float) -> None:
        self.url, self.wake_url = url, wake
        self.store = open_store(url, clock, busy_timeout)
        self.store.hint_within = max(self.store.hint_within, 2 * self.sweep_us)
        # Where a server keeps the time, its time.
        self.clock = clock = self.store.clock
        self.wake = open_wake(wake, url, self.store.announce)
        self.jobs = Jobs(self.store, self.wake, clock, lambda: self.policy)
        self.results = Results(self.store, self.wake)
        self.recurring = Recurring(self.store, self.wake, clock)

    @contextmanager
    def bound_to(self, url: str, clock: Clock, busy_timeout: float = 10.0) -> Iterator[None]:
        """Use another database and clock for the length of a ``with`` block: what ``oncue.testing`` does.
        BullMQ queues are not adopted meanwhile, and nobody is alerted.

        Raises ConfigError where the application is open.
        """
        if self._opened:
            raise ConfigError(f"The application is open on {self.store.url}: close it before it is bound to another.")
        before = self.url, self.wake_url, self.clock, self.store, self.wake, self.jobs, self.results, self.recurring
        # Another database's tests must not take over the jobs of a queue that is in use.
        adoptions, self.adoptions = self.adoptions, {}
        alerts, self.alerts = self.alerts, Alerts(self)
        self._bind(url, None, clock, busy_timeout)
        try:
            yield
        finally:
            self.url, self.wake_url, self.clock, self.store, self.wake, self.jobs, self.results, self.recurring = before
            self.adoptions, self.alerts = adoptions, alerts

    def redact(self, *fields: str) -> None:
        """Never show these fields of arguments, metadata, progress and results, at whatever depth: the page, the HTTP
        API and the command line show dots in their place, also in errors. ``text``: what conversations say.

        They are stored as they are. Raises ConfigError for what can't be a field's name.
        """
        for field in fields:
            given: object = field
            if not isinstance(given, str) or not given:
                raise ConfigError(f"A field to redact is named by a text, such as 'phone', not {field!r}.")
        self.redacted.update(fields)

    @property
    def sources(self) -> Sources:
        """The application's sources: their sweeps, and what these found."""
        if self._sources is None:
            from oncue.source import Sources

            self._sources = Sources(self)
        return self._sources

    @property
    def sync(self) -> SyncOnCue:
        """The same calls for synchronous code: ``app.sync.schedule(...)`` and so on."""
        if self._sync is None:
            from oncue.sync import SyncOnCue

            self._sync = SyncOnCue(self)
        return self._sync

    async def open(self) -> None:
        """Connect and bring the schema up to date. Raises a StoreError that says what to do."""
        if not self._opened and not self._door.locked():
            # A lock belongs to the loop that waited on it, and this may be another one than last time.
            self._door = asyncio.Lock()
        async with self._door:
            if not self._opened:
                await self._connect()
            self._opened += 1

    async def _connect(self) -> None:
        await self.store.open()
        try:
            await self.wake.start()
        except BaseException:
            await self.store.close()
            raise

    async def close(self) -> None:
        """Disconnect, once every ``open`` has had its ``close``."""
        async with self._door:
            if not self._opened:
                return
            self._opened -= 1
            if not self._opened:
                await self.wake.close()
                await self.store.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def schedule(
        self,
        call: Call[R],
        *,
        delay: Delay | None = None,
        at: datetime | None = None,
        key: str | None = None,
        on_conflict: Conflict = "keep",
        max_wait: Delay | None = None,
        while_started: WhileStarted = "queue",
        group: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        max_late: Delay | None = None,
        when_late: WhenLate | None = None,
        max_attempts: int | None = None,
        metadata: dict[str, Any] | None = None,
        connection: Any = None,
    ) -> JobHandle[R]:
        """Store a call to run later; when this returns, the job is durable.

        ``delay`` (seconds or timedelta, counted from this call) or ``at`` (an aware datetime); neither: now.
        ``key`` names at most one waiting job; ``on_conflict`` says what to do where there is one: ``keep`` it,
        ``replace`` it, ``reschedule`` it (only its time), or ``debounce`` (replace and move, at most ``max_wait``
        after it was first asked for). ``while_started="keep"`` also counts one that runs or is between attempts.
        ``group``: its jobs run one at a time, in due order. ``priority`` from -100 to 100, lower first.
        ``max_late`` with ``when_late`` ("run", "skip" or "fail"): what to do where it would start later than that.
        ``connection``: the call is part of the caller's transaction, and the job exists if and only if that commits;
        where none is open and statements commit by themselves, it is a transaction of its own. It is a connection to
        the same database: sqlite3; asyncpg; psycopg (sync and async); psycopg2; SQLAlchemy 2 Session, AsyncSession,
        scoped_session, Connection or AsyncConnection over one of these; Django's. Synchronous ones block meanwhile.

        Raises InvalidTime, InvalidJob (also for a connection that can't take part), PayloadTooLarge, or a StoreError:
        nothing was stored. Inside the caller's transaction errors of its driver come as they are; either way the
        transaction is as it was before the call.
        """
        wanted = Scheduled(
            call, delay, at, key, on_conflict, max_wait, while_started, group, queue, priority, max_late, when_late,
            max_attempts, metadata,
        )  # fmt: skip
        if connection is not None:
            return (await self.schedule_many([wanted], connection=connection))[0]
        with traced_storing((wanted,)) as span:
            job = new_job(wanted, self.clock.now())
            inserted = await self.store.insert(job)
            if span is not None:
                span.set_attribute("messaging.message.id", str(inserted.id))
        self.wake.hint(inserted.scheduled_at)
        return JobHandle(self, inserted, call.task.returns)

    async def schedule_many(
        self, calls: Sequence[Scheduled | Call[Any]], *, connection: Any = None
    ) -> list[JobHandle[Any]]:
        """Store many calls in one transaction, with one hint. Calls without options are due now.

        Raises as ``schedule`` does; then none of them was stored.
        """
        if connection is not None:
            self.store.know_time()
        with traced_storing(calls):
            now = self.clock.now()
            jobs = [new_job(one, now) for one in calls]
            if connection is None or not jobs:
                inserted = await self.store.insert_many(jobs)
            else:
                due = min(job.scheduled_at for job in jobs)
                inserted = await self.store.within(connection, lambda: insert_jobs(jobs), due)
        if inserted:
            self.wake.hint(min([one.scheduled_at for one in inserted]))
        return handles(self, inserted, calls)

    async def cancel(self, *, key: str | None = None, id: int | None = None, connection: Any = None) -> Cancelled:
        """Cancel what the key or id names.

        Returns ``prevented`` (it will not run), ``requested`` (it runs and its handler was told; how it ends
        settles it) or ``too late`` (nothing waiting or running has that name). Raises InvalidJob unless exactly
        one of key and id is given.
        """
        self.sync.check_name(key, id)
        if connection is not None:
            self.store.know_time()
        now = self.clock.now()
        expires = None if self.retention_us is None else now + self.retention_us
        if connection is None:
            answer = await self.store.cancel(now, expires, id=id, key=key)
        else:
            answer = await self.store.within(connection, lambda: manage.cancel(now, expires, id=id, key=key), now)
        self.wake.hint(now)
        return answer

    async def reschedule(
        self,
        *,
        key: str | None = None,
        id: int | None = None,
        delay: Delay | None = None,
        at: datetime | None = None,
        connection: Any = None,
    ) -> bool:
        """Move a job that is not running to a new due time; False where there is none to move.

        Raises InvalidTime, or InvalidJob unless exactly one of key and id is given.
        """
        self.sync.check_name(key, id)
        if connection is not None:
            self.store.know_time()
        due = due_time(self.clock.now(), delay, at)
        if connection is None:
            moved = await self.store.reschedule(due, id=id, key=key)
        else:
            moved = await self.store.within(connection, lambda: manage.reschedule(due, id=id, key=key), due)
        self.wake.hint(due)
        return moved

    def alert(self, *rules: Rule, to: Target | None = None) -> None:
        """Have somebody told when a rule of ``oncue.alerts`` finds something, and once more when it is well again.

        ``to``: a URL to which the alert is posted as JSON, or a function that takes it, for rules that have none of
        their own. Of all processes one tells; what could not be told is tried again. Every process that works or
        sweeps looks, so somebody must be running. Raises ConfigError for a name that is taken, or without ``to``.
        """
        self.alerts.add(rules, to)

    def service(self, options: WorkerOptions | None = None, *, worker: bool = True) -> Service:
        """Return the background roles of this process (worker, planner, sweeper), not started."""
        from oncue.service import Service

        return Service(self, options, worker=worker)

    async def run_worker(self, options: WorkerOptions | None = None, *, stop: asyncio.Event | None = None) -> None:
        """Work until ``stop`` is set or this is cancelled; opens the application by itself."""
        async with self:
            await self.service(options).run(stop or asyncio.Event())

    async def drain(
        self, *, limit: int | None = None, seconds: Delay | None = None, options: WorkerOptions | None = None
    ) -> Drained:
        """Do what is due now and return: the worker of a process that an external cron calls.

        Plans cron, reconciles sources and rescues what dead workers held, then runs jobs until nothing is due,
        ``limit`` jobs were taken, or ``seconds`` (or a timedelta) are over; those that still run then have
        ``options.grace`` seconds, and are given back. Safe beside workers and other drains. Opens the application
        by itself. Raises ConfigError for a budget that can't work, or a StoreError.
        """
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ConfigError(f"limit is a whole number of at least 1, not {limit!r}.")
        budget = None if seconds is None else seconds_to_us(seconds) / SECOND
        async with self:
            return await self.service(options, worker=False).drain(limit, budget)

    @asynccontextmanager
    async def worker(self, options: WorkerOptions | None = None) -> AsyncIterator[Service]:
        """Run a worker inside this process for the length of an ``async with`` block."""
        async with self:
            service = self.service(options)
            stop = asyncio.Event()
            running = asyncio.create_task(service.run(stop))
            ready = asyncio.create_task(service.ready.wait())
            await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if running.done():
                await running
            try:
                yield service
            finally:
                stop.set()
                await running
