"""The store on PostgreSQL: many processes on many machines."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from oncue.channel import channel_of, hint_text
from oncue.clock import SECOND, Clock, SystemClock
from oncue.dsn import parse
from oncue.errors import NotOpen, StoreBusy, StoreError
from oncue.job import Ack, Claimed, Inserted, NewJob
from oncue.store import Claim, Claims, WorkerRow
from oncue.store.base import SharedStore
from oncue.store.lock import LifeLock, folder_of_lives, forget, hold, is_dead
from oncue.store.postgres import schema, state
from oncue.store.postgres.claim import Claimer
from oncue.store.postgres.clock import ServerClock
from oncue.store.postgres.connection import LOCK_WAIT, ROW_WAIT, Connection, Pool
from oncue.store.postgres.history import History
from oncue.store.postgres.insert import Inserter
from oncue.store.postgres.lease import LeaseKeeper
from oncue.store.postgres.run import named, perform
from oncue.store.steps import Steps, manage
from oncue.store.views import Check, SchemaView

if TYPE_CHECKING:
    from oncue.store.postgres.portal import Portal
    from oncue.store.postgres.source import PostgresSources

T = TypeVar("T")
log = logging.getLogger("oncue.store")
_CONNECTIONS = 3
# More of them, for claims, outcomes and notifications. With the lease's and LISTEN's one these are the seven that
# `trouble`, `state` and the documentation name.
_OWN = 2
# Workers look by themselves once a minute; what is due later than two such looks needs no hint.
_HINT_WITHIN = 120 * SECOND


class PostgresStore(SharedStore):
    """The store behind ``postgresql://...``. ``patience`` in seconds: how long work waits for a server that is away."""

    def __init__(self, url: str, clock: Clock, patience: float = 10.0) -> None:
        self.address = parse(url)
        self.url, self.schema_name = self.address.shown, self.address.schema
        self.keeps_servers_time = type(clock) is SystemClock
        self.clock: Clock = ServerClock() if self.keeps_servers_time else clock
        self.lock = int.from_bytes(hashlib.sha256(f"oncue:{self.schema_name}".encode()).digest()[:7])
        self.channel = channel_of(self.schema_name)
        self.patience = patience
        self.hint_within = _HINT_WITHIN
        self._pool: Pool | None = None
        self._claimer = Claimer(self)
        self._inserter = Inserter(self)
        self._history = History(self)
        self._portal: Portal | None = None
        self._sources: PostgresSources | None = None
        self._lives: Path | None = None

    @property
    def pool(self) -> Pool:
        """The open connections. Raises NotOpen."""
        if self._pool is None:
            raise NotOpen("The application is not open: use `async with app:` or `await app.open()` first.")
        return self._pool

    @property
    def is_open(self) -> bool:
        """Whether there are connections."""
        return self._pool is not None

    @property
    def writes(self) -> int:
        """Write transactions that this store has committed."""
        return self._pool.commits if self._pool is not None else 0

    def began(self) -> int:
        """Return the moment at which the server is asked for its time, for ``learn``."""
        return self.clock.began() if isinstance(self.clock, ServerClock) else 0

    def learn(self, began: int, server: int) -> None:
        """Take in what the server's clock said (microseconds) in answer to a question asked at ``began``."""
        if isinstance(self.clock, ServerClock):
            self.clock.learn(began, server)

    async def open(self, *, migrate: bool = True) -> None:
        """Connect, create or migrate the tables, and learn the server's time. Raises a StoreError with the remedy.

        With ``migrate=False`` nothing is created or changed: raises NoDatabase, SchemaTooOld or SchemaTooNew instead.
        """
        if self._pool is not None:
            return
        pool = Pool(self.address, _CONNECTIONS, self.patience, _OWN)
        try:
            await pool.run(lambda conn: schema.prepare(conn, self.address, migrate=migrate))
            self._lives = await pool.run(self._folder_of_lives)
            self._pool = pool
            for _ in range(3):
                await self.time()
        except BaseException:
            self._pool = None
            await pool.close()
            raise

    async def _folder_of_lives(self, conn: Connection) -> Path:
        """The folder of the lock files: the same for all processes of a user on this host that use these tables."""
        text, args = named("identity", self.schema_name, {})
        return folder_of_lives(str(await conn.fetchval(text, *args)))

    async def time(self) -> int:
        """Return the server's time in microseconds, and learn from it."""
        began = self.began()
        server = int(await self.pool.run(lambda conn: conn.fetchval(*_with_args(named("time", self.schema_name, {})))))
        self.learn(began, server)
        return server

    async def announce(self, payload: str) -> int:
        """Send a payload to all who listen on this schema's channel; return the server's time in microseconds."""
        began = self.began()
        text, args = named("notify", self.schema_name, {"channel": self.channel, "hint": payload})
        server = int(await self.pool.run(lambda conn: conn.fetchval(text, *args), waits=False))
        self.learn(began, server)
        return server

    def hint(self, due: int | None) -> str:
        """Return the payload for what is due then; empty where that is far enough away to need no hint."""
        if due is None or due > self.clock.now() + self.hint_within:
            return ""
        return hint_text(due)

    async def close(self) -> None:
        """Finish what was handed in and disconnect."""
        if (pool := self._pool) is not None:
            await self._inserter.finish()
            self._pool = None
            await pool.close()
        if self._portal is not None:
            self._portal.close()

    async def change(
        self,
        steps: Callable[[], Steps[T]],
        hint: int | None = None,
        *,
        locked: bool = False,
        lock_wait: float | None = None,
    ) -> T:
        """Run steps in a transaction, with a NOTIFY for what is due at ``hint``; see ``SharedStore``.

        ``lock_wait``: the seconds after which a lock that others hold raises StoreBusy; else it is tried again.
        """

        async def work(conn: Connection) -> T:
            answer = await perform(conn, steps(), self.schema_name, locked=locked)
            if payload := self.hint(hint):
                text, args = named("notify", self.schema_name, {"channel": self.channel, "hint": payload})
                await conn.fetchval(text, *args)
            return answer

        return await self.pool.transaction(work, self.lock if locked else None, lock_wait=lock_wait)

    async def alone(self, steps: Callable[[], Steps[T]]) -> T:
        """Run steps that are one statement, which commits by itself and doesn't wait for others' locks."""
        return await self.hot(lambda conn: perform(conn, steps(), self.schema_name))

    async def hot(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run statements that commit one by one and wait for nobody's locks; through a pooler in one transaction,
        which alone can have our planner settings there."""
        if self.address.pooled:
            return await self.pool.transaction(work, waits=False, lock_wait=ROW_WAIT)
        return await self.pool.run(work, waits=False)

    async def look(self, steps: Callable[[], Steps[T]]) -> T:
        """Run steps that only read."""
        return await self.pool.run(lambda conn: perform(conn, steps(), self.schema_name))

    async def fetch(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a statement that only reads."""
        return await self.pool.run(lambda conn: conn.fetch(sql, *args))

    async def transaction(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run ``work`` in a transaction of its own, which doesn't wait for others' locks longer than it says itself."""
        return await self.pool.transaction(work, lock_wait=LOCK_WAIT)

    async def insert(self, job: NewJob) -> Inserted:
        """Store one job; concurrent callers share a commit."""
        return await self._inserter.insert(job)

    async def insert_many(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Store many jobs in one transaction."""
        return await self._inserter.insert_many(jobs)

    async def claim(self, request: Claim) -> Claims:
        """Record acks and claim due jobs."""
        return await self._claimer.claim(request)

    async def changed_elsewhere(self) -> bool:
        """Whoever asks looks: PostgreSQL does not tell what other connections have written."""
        return True

    async def register(self, row: WorkerRow) -> tuple[int, LifeLock]:
        """Add a worker's life; return its id, which fences all that it claims, and the lock that proves it alive."""
        held: list[LifeLock] = []

        async def add(conn: Connection) -> int:
            id = await perform(conn, manage.add_worker(row), self.schema_name)
            # Locked before the row can be seen, so that nobody takes a newborn for dead.
            held.append(hold(self._folder, id))
            return id

        id = await self.pool.transaction(add)
        for lock in held[:-1]:
            lock.release()
        with contextlib.suppress(StoreError):
            await self._claimer.warm_up()
        return id, held[-1]

    @property
    def _folder(self) -> Path:
        if self._lives is None:
            raise NotOpen("The application is not open: use `async with app:` or `await app.open()` first.")
        return self._lives

    async def unblock(self) -> int:
        """Give the first job behind every blocker another look; return how many blockers there were."""
        await self.park_paused()
        if not await self.look(manage.blocked):
            return 0
        return await self.change(manage.unblock, locked=True)

    async def prune(self, now: int, count: int) -> int:
        """Delete up to ``count`` finished jobs whose retention is over. Once a day, keep the history's partitions."""
        await self._history.keep(now)
        if not await self.look(lambda: manage.prunable(now)):
            return 0
        return await self.change(lambda: manage.prune(now, count))

    async def rescue(self, now: int, retention: int | None) -> list[tuple[Claimed, Ack]]:
        """Take back the jobs of workers whose lease ended or whose death is proved; return what became of each."""
        rows = await self.workers()
        self._claimer.suspects = {row.id for row in rows if row.running}
        dead = self._dead(rows)
        if not dead and not any(row.given_up or (row.running and row.lease_until < now) for row in rows):
            return []
        proved = [(row.id, f"worker {row.name} died (its process holds its lock no more)") for row in dead]

        async def take_back(conn: Connection) -> manage.Rescue:
            done = await perform(conn, manage.rescue(now, retention, proved), self.schema_name, locked=True)
            if done.jobs:
                text, args = named("notify", self.schema_name, {"channel": self.channel, "hint": hint_text(now)})
                await conn.fetchval(text, *args)
            return done

        try:
            taken, gone = await self.pool.transaction(take_back, self.lock, waits=False, lock_wait=ROW_WAIT)
        except StoreBusy as error:
            # Jobs that others hold are left out; this is a worker in the middle of a claim, or the lock for bound jobs.
            log.warning("dead workers' jobs can't be taken back just now; again soon: %s", error)
            return []
        for worker in gone:
            forget(self._folder, worker)
        return taken

    def _dead(self, rows: Sequence[WorkerRow]) -> list[WorkerRow]:
        host = socket.gethostname()
        return [row for row in rows if row.host == host and is_dead(self._folder, row.id)]

    async def proved_dead(self) -> set[int]:
        """Return the ids of workers of this host whose process holds its lock no more."""
        return {row.id for row in self._dead(await self.workers())}

    def lease_keeper(self) -> LeaseKeeper:
        """Return what renews leases from a thread of its own, with a connection of its own."""
        return LeaseKeeper(self.address)

    def source_keeper(self) -> PostgresSources:
        """Return what reads the users' tables and remembers which of their rows were handled."""
        from oncue.store.postgres.source import PostgresSources

        if self._sources is None:
            self._sources = PostgresSources(self)
        return self._sources

    async def schema(self) -> SchemaView:
        """Look at the schema without creating or changing anything; the store need not be open."""
        return await schema.view(self.address, self.patience)

    async def check(self) -> list[Check]:
        """Return what the server's settings and the tables say."""
        return await self.pool.run(lambda conn: state.check(conn, self))

    def ping_sync(self) -> None:
        """Send a notification without meaning, from another connection; workers and listeners should hear it."""
        self.portal.ping()

    @property
    def portal(self) -> Portal:
        """What does synchronous work, in a thread of its own."""
        if self._portal is None:
            from oncue.store.postgres.portal import Portal

            self._portal = Portal(self)
        return self._portal

    def know_time(self) -> None:
        """Learn the server's time, where it counts and the store was not opened to learn it."""
        if isinstance(self.clock, ServerClock) and not self.clock.is_known:
            self.portal.find_home()

    async def within(self, connection: Any, steps: Callable[[], Steps[T]], hint: int | None) -> T:
        """Run steps in the caller's transaction, on a connection of any known driver."""
        from oncue.store.postgres.callers import perform_in

        # Whenever it is due: by the time that the caller commits it may be near.
        return await perform_in(connection, steps, self, "" if hint is None else hint_text(hint))

    def within_sync(self, connection: Any, steps: Callable[[], Steps[T]], hint: int | None) -> T:
        """``within``, synchronously; without a connection, in a transaction of its own."""
        from oncue.store.postgres.callers import perform_in_sync

        if connection is None:
            return self.portal.change(steps, hint)
        return perform_in_sync(connection, steps, self, "" if hint is None else hint_text(hint))


def _with_args(query: tuple[str, list[Any]]) -> list[Any]:
    return [query[0], *query[1]]
