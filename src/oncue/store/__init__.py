"""Where jobs are kept: the protocol of a store, and ``open_store(url)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from oncue.clock import Clock
from oncue.dsn import is_postgres
from oncue.errors import ConfigError
from oncue.job import Ack, Cancelled, Claimed, Inserted, NewJob
from oncue.store.lock import LifeLock
from oncue.store.records import Adopted, Adoption, Claim, Claims, ScheduleRow, WorkerRow

if TYPE_CHECKING:
    from oncue.store.sources import SourceKeeper
    from oncue.store.steps import Steps
    from oncue.store.views import AttemptView, Backlog, Blocker, Check, Counts, JobView, QueueView, SchemaView

__all__ = [
    "Adopted",
    "Adoption",
    "Claim",
    "Claims",
    "LeaseKeeper",
    "ScheduleRow",
    "Store",
    "WorkerRow",
    "open_store",
]
T = TypeVar("T")


class LeaseKeeper(Protocol):
    """Renews a worker's lease apart from the event loop; used by one thread."""

    def extend(self, worker: int, now: int, lease: int) -> bool:
        """Renew the lease until ``now + lease``; False where the worker's jobs were taken back."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


class Store(Protocol):
    """What every store can do. All times are microseconds since the epoch; nothing is promised before it is durable."""

    url: str
    clock: Clock
    """What "now" is to this store: the given clock, or the server's time where the machine's was given."""
    hint_within: int
    """Other processes are told of what is due within so many microseconds; they look by themselves before the rest."""

    @property
    def writes(self) -> int:
        """Write transactions that this store has committed."""
        ...

    async def open(self, *, migrate: bool = True) -> None:
        """Connect, and create or migrate the schema.

        With ``migrate=False`` nothing is created or changed: raises NoDatabase, SchemaTooOld or SchemaTooNew instead.
        """
        ...

    async def close(self) -> None:
        """Finish what was handed in and disconnect."""
        ...

    async def change(self, steps: Callable[[], Steps[T]], hint: int | None = None, *, locked: bool = False) -> T:
        """Run steps in a write transaction, anew where it must be tried again; return their answer once it is durable.

        ``hint``: what changes may be due then, so that other processes should look. ``locked``: nobody claims jobs
        that bind each other meanwhile.
        """
        ...

    async def look(self, steps: Callable[[], Steps[T]]) -> T:
        """Run steps that only read, in one transaction."""
        ...

    async def insert(self, job: NewJob) -> Inserted:
        """Store one job; concurrent callers share a commit."""
        ...

    async def insert_many(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Store many jobs in one transaction."""
        ...

    async def adopt(self, queue: str, offers: Sequence[Adoption], now: int) -> list[Adopted | None]:
        """Store jobs of a BullMQ queue (``PREFIX:NAME``), in one transaction with the memory of it.

        What was taken over before, by id and timestamp, changes nothing. None where it wasn't, and no job was given or
        another process gave it back to Node at this very moment.
        """
        ...

    async def disown(self, queue: str, id: str, timestamp: int, now: int, expires_at: int | None) -> bool:
        """Cancel what was stored for a job that stays with Node after all, and forget that; False where it has begun,
        or stands for other calls too."""
        ...

    async def forget_adopted(self, queue: str, now: int, count: int) -> int:
        """Forget up to ``count`` jobs that were due or taken over more than a week ago; return how many.

        To be called only when none of them can lie in Redis any more, where it would be taken for a new one.
        """
        ...

    async def claim(self, request: Claim) -> Claims:
        """Record acks and claim due jobs in one transaction."""
        ...

    async def changed_elsewhere(self) -> bool:
        """Tell whether another connection has written since this was asked last, or may have, where none can tell."""
        ...

    async def register(self, row: WorkerRow) -> tuple[int, LifeLock]:
        """Add a worker's life; return its id, which fences all that it claims, and the lock that proves it alive."""
        ...

    async def unregister(self, worker: int) -> None:
        """Remove a worker, and give back what it may still hold."""
        ...

    async def progress(self, worker: int, job: Claimed, value: object) -> bool:
        """Store a running job's progress; False where the claim is not this worker's any more."""
        ...

    async def prune(self, now: int, count: int) -> int:
        """Delete up to ``count`` finished jobs whose retention is over."""
        ...

    async def unblock(self) -> int:
        """Give the first job behind every blocker another look; return how many blockers there were."""
        ...

    async def park_paused(self) -> None:
        """Take due jobs of paused tasks out of the way of the others, bit by bit."""
        ...

    async def rescue(self, now: int, retention: int | None) -> list[tuple[Claimed, Ack]]:
        """Take back the jobs of workers whose lease ended or whose death is proved; return what became of each.

        What another transaction holds is left for a later call; see ``Claims.left``.
        """
        ...

    def lease_keeper(self) -> LeaseKeeper:
        """Return what renews leases from a thread of its own, with a connection of its own."""
        ...

    def source_keeper(self) -> SourceKeeper:
        """Return what reads the users' tables and remembers which of their rows were handled."""
        ...

    async def schedules(self) -> list[ScheduleRow]:
        """Return the stored schedules by name."""
        ...

    async def save_schedule(self, row: ScheduleRow) -> None:
        """Add a schedule, or change its definition; whether it is paused stays."""
        ...

    async def drop_schedule(self, name: str) -> None:
        """Remove a schedule; jobs that it made stay."""
        ...

    async def advance_schedule(
        self, row: ScheduleRow, following: int | None, dropped: int, jobs: Sequence[NewJob]
    ) -> bool:
        """Store a fire's jobs and move the schedule on in one transaction, unless another planner did; tell which."""
        ...

    async def pause_schedule(self, name: str, paused: bool, next_at: int | None) -> bool:
        """Pause or resume a schedule; False where there is none of that name."""
        ...

    async def job(self, id: int) -> JobView | None:
        """Return a job, waiting, running or final; None where there is none."""
        ...

    async def gone(self, ids: Sequence[int]) -> list[int]:
        """Return those of ``ids`` that wait and run no more; waits for a commit that is being written."""
        ...

    async def attempts(self, id: int) -> list[AttemptView]:
        """Return the attempts that did not end the job, oldest first."""
        ...

    async def list_jobs(self, *, limit: int, **filters: Any) -> list[JobView]:
        """Return jobs, newest id first, that match all filters."""
        ...

    async def counts(self, now: int) -> Counts:
        """Return how many jobs are in which state."""
        ...

    async def backlog(self, now: int, queues: frozenset[str] | None) -> Backlog:
        """Return what is left to do in these queues (None: in all)."""
        ...

    async def coming(
        self, after: int, until: int, limit: int, queues: frozenset[str] | None = None
    ) -> list[tuple[int, int]]:
        """Return up to ``limit`` waiting jobs (id, time) that become eligible after ``after``, by ``until``, in order.

        What is blocked or in a paused queue doesn't count. ``queues``: None for all.
        """
        ...

    async def run_now(self, now: int, id: int) -> None:
        """Make a waiting job due now. Raises UnknownJob or InvalidJob."""
        ...

    async def restart(self, now: int, id: int) -> None:
        """Put a discarded or cancelled job back, due now. Raises UnknownJob or InvalidJob."""
        ...

    async def workers(self) -> list[WorkerRow]:
        """Return the registered workers."""
        ...

    async def proved_dead(self) -> set[int]:
        """Return the ids of registered workers whose process is known to have ended."""
        ...

    async def queues(self, now: int) -> list[QueueView]:
        """Return the queues by name."""
        ...

    async def blockers(self) -> list[Blocker]:
        """Return everything that jobs wait behind, except limits and due times."""
        ...

    async def overdue(self, before: int, limit: int) -> list[JobView]:
        """Return jobs that were due before that time and don't run, longest overdue first."""
        ...

    async def schema(self) -> SchemaView:
        """Look at the schema without changing anything; the store need not be open."""
        ...

    async def check(self) -> list[Check]:
        """Return what this store has to say about its health: settings, room, durability. Changes nothing."""
        ...

    def ping_sync(self) -> None:
        """Commit a change without meaning, from another connection; workers and listeners should hear it."""
        ...

    async def announce(self, payload: str) -> int:
        """Tell all other processes that listen; return the time in microseconds."""
        ...

    async def set_queue(self, name: str, paused: bool) -> None:
        """Pause or resume a queue for all workers."""
        ...

    async def hold_due(self, now: int) -> int:
        """After a restore: hold what came due by ``now``; return how many."""
        ...

    async def release_held(self) -> int:
        """Let what was held run; return how many."""
        ...

    async def cancel(self, now: int, expires_at: int | None, *, id: int | None, key: str | None) -> Cancelled:
        """Cancel what the id or key names; tell what came of it."""
        ...

    def know_time(self) -> None:
        """Learn what ``clock`` needs, before a call of a store that may not be open. Raises a StoreError."""
        ...

    async def within(self, connection: Any, steps: Callable[[], Steps[T]], hint: int | None) -> T:
        """Run steps in the caller's transaction: of their changes all stay or none, and they hold if it commits.

        ``hint``: what changes is due then; others hear of it when it commits. Raises InvalidJob for a connection that
        can't take part, and what the driver raises.
        """
        ...

    def within_sync(self, connection: Any, steps: Callable[[], Steps[T]], hint: int | None) -> T:
        """``within``, synchronously; without a connection, in a transaction of its own, also where nothing is open."""
        ...

    async def reschedule(self, due: int, *, id: int | None, key: str | None) -> bool:
        """Move a job that is not running to ``due``; False where there is none."""
        ...


def open_store(url: str, clock: Clock, busy_timeout: float = 10.0) -> Store:
    """Return the store for a URL (``sqlite:///file.db``); it is not connected yet. Raises ConfigError."""
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        from oncue.store.sqlite import SqliteStore

        return SqliteStore(url, clock, busy_timeout)
    if is_postgres(url):
        try:
            from oncue.store.postgres import PostgresStore
        except ModuleNotFoundError as error:
            raise ConfigError("PostgreSQL needs asyncpg: pip install 'oncue[postgres]'.") from error
        return PostgresStore(url, clock, busy_timeout)
    hint = f" Did you mean sqlite:///{url}?" if "://" not in url else ""
    raise ConfigError(
        f"No store for the URL {url.partition('@')[2] or url!r}: this version knows sqlite:///relative/file.db, "
        "sqlite:////absolute/file.db and postgresql://user:password@host/database. Check DATABASE_URL, or pass the URL "
        f"to OnCue(...).{hint}"
    )
