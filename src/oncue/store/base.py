"""What stores have in common: every operation is steps, which a store runs in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from oncue.clock import Clock
from oncue.job import Cancelled, Claimed, NewJob
from oncue.store import Adopted, Adoption, ScheduleRow, WorkerRow
from oncue.store.sources import Applied, Offer, Row, RowKey, SourceStatus, Table
from oncue.store.steps import ReadRows, Steps, adopt, ask, manage, operate, read, run, schedules, source
from oncue.store.views import AttemptView, Backlog, Blocker, Counts, JobView, QueueView

T = TypeVar("T")


class SharedStore:
    """The operations of a store, for one that can run steps. See ``Store`` for what each does."""

    clock: Clock

    async def change(self, steps: Callable[[], Steps[T]], hint: int | None = None, *, locked: bool = False) -> T:
        """Run steps in a write transaction, anew where it must be tried again; return their answer once it is durable.

        ``hint``: what changes may be due then (microseconds), so that other processes should look. ``locked``: nobody
        claims jobs that bind each other meanwhile.
        """
        raise NotImplementedError

    async def look(self, steps: Callable[[], Steps[T]]) -> T:
        """Run steps that only read, in one transaction."""
        raise NotImplementedError

    async def unregister(self, worker: int) -> None:
        """Remove a worker, and give back what it may still hold."""
        now = self.clock.now()
        await self.change(lambda: manage.sign_off(now, worker), now, locked=True)

    async def progress(self, worker: int, job: Claimed, value: object) -> bool:
        """Store a running job's progress; False where the claim is not this worker's any more."""
        return await self.change(lambda: manage.set_progress(worker, job.id, job.attempt, value))

    async def prune(self, now: int, count: int) -> int:
        """Delete up to ``count`` finished jobs whose retention is over."""
        return await self.change(lambda: manage.prune(now, count))

    async def unblock(self) -> int:
        """Give the first job behind every blocker another look; return how many blockers there were."""
        await self.park_paused()
        return await self.change(manage.unblock, locked=True)

    async def park_paused(self) -> None:
        """Take due jobs of paused tasks out of the way of the others, bit by bit."""
        now = self.clock.now()
        for pause in await self.look(operate.paused_tasks):
            while await self.change(partial(operate.park_paused, pause.name, now)):
                pass

    async def schedules(self) -> list[ScheduleRow]:
        """Return the stored schedules by name."""
        return await self.look(schedules.schedules)

    async def save_schedule(self, row: ScheduleRow) -> None:
        """Add a schedule, or change its definition; whether it is paused stays."""
        await self.change(lambda: schedules.save_schedule(row), row.next_at)

    async def drop_schedule(self, name: str) -> None:
        """Remove a schedule; jobs that it made stay."""
        await self.change(lambda: schedules.drop_schedule(name))

    async def advance_schedule(
        self, row: ScheduleRow, following: int | None, dropped: int, jobs: Sequence[NewJob]
    ) -> bool:
        """Store a fire's jobs and move the schedule on in one transaction, unless another planner did; tell which."""
        due = min((job.scheduled_at for job in jobs), default=None)
        return await self.change(lambda: schedules.advance_schedule(row, following, dropped, jobs), due)

    async def pause_schedule(self, name: str, paused: bool, next_at: int | None) -> bool:
        """Pause or resume a schedule; False where there is none of that name."""
        return await self.change(lambda: schedules.pause_schedule(name, paused, next_at), next_at)

    async def job(self, id: int) -> JobView | None:
        """Return a job, waiting, running or final; None where there is none."""
        return await self.look(lambda: read.get_job(id))

    async def gone(self, ids: Sequence[int]) -> list[int]:
        """Return those of ``ids`` that wait and run no more; waits for a commit that is being written."""
        return await self.change(lambda: read.gone(ids))

    async def attempts(self, id: int) -> list[AttemptView]:
        """Return the attempts that did not end the job, oldest first."""
        return await self.look(lambda: read.attempts(id))

    async def list_jobs(self, *, limit: int, **filters: Any) -> list[JobView]:
        """Return jobs, newest id first, that match all filters."""
        return await self.look(lambda: read.list_jobs(limit, **filters))

    async def counts(self, now: int) -> Counts:
        """Return how many jobs are in which state."""
        return await self.look(lambda: read.counts(now))

    async def backlog(self, now: int, queues: frozenset[str] | None) -> Backlog:
        """Return what is left to do in these queues (None: in all)."""
        return await self.look(lambda: read.backlog(now, queues))

    async def coming(
        self, after: int, until: int, limit: int, queues: frozenset[str] | None = None
    ) -> list[tuple[int, int]]:
        """Return up to ``limit`` waiting jobs (id, time) that become eligible after ``after``, by ``until``, in order.

        What is blocked or in a paused queue doesn't count. ``queues``: None for all.
        """
        return await self.look(lambda: read.coming(after, until, limit, queues))

    async def run_now(self, now: int, id: int) -> None:
        """Make a waiting job due now. Raises UnknownJob or InvalidJob."""
        await self.change(lambda: manage.run_now(now, id), now)

    async def restart(self, now: int, id: int) -> None:
        """Put a discarded or cancelled job back, due now. Raises UnknownJob or InvalidJob."""
        await self.change(lambda: manage.restart(now, id), now)

    async def workers(self) -> list[WorkerRow]:
        """Return the registered workers."""
        return await self.look(manage.workers)

    async def queues(self, now: int) -> list[QueueView]:
        """Return the queues by name."""
        return await self.look(lambda: read.queues(now))

    async def blockers(self) -> list[Blocker]:
        """Return everything that jobs wait behind, except limits and due times."""
        return await self.look(read.blockers)

    async def overdue(self, before: int, limit: int) -> list[JobView]:
        """Return jobs that were due before that time and don't run, longest overdue first."""
        return await self.look(lambda: read.overdue(before, limit))

    async def set_queue(self, name: str, paused: bool) -> None:
        """Pause or resume a queue for all workers."""
        now = self.clock.now()
        await self.change(lambda: manage.set_queue(now, name, paused), now)

    async def hold_due(self, now: int) -> int:
        """After a restore: hold what came due by ``now``; return how many."""
        return await self.change(lambda: manage.hold_due(now), locked=True)

    async def release_held(self) -> int:
        """Let what was held run; return how many."""
        return await self.change(manage.release_held, self.clock.now(), locked=True)

    async def cancel(self, now: int, expires_at: int | None, *, id: int | None, key: str | None) -> Cancelled:
        """Cancel what the id or key names; tell what came of it."""
        return await self.change(lambda: manage.cancel(now, expires_at, id=id, key=key), now)

    async def reschedule(self, due: int, *, id: int | None, key: str | None) -> bool:
        """Move a job that is not running to ``due``; False where there is none."""
        return await self.change(lambda: manage.reschedule(due, id=id, key=key), due)

    async def adopt(self, queue: str, offers: Sequence[Adoption], now: int) -> list[Adopted | None]:
        """Store jobs of a BullMQ queue, in one transaction with the memory of it."""
        due = min((one.job.scheduled_at for one in offers if one.job is not None), default=None)
        return await self.change(lambda: adopt.adopt(queue, offers, now), due)

    async def disown(self, queue: str, id: str, timestamp: int, now: int, expires_at: int | None) -> bool:
        """Cancel what was stored for a job that stays with Node after all; False where it has begun."""
        return await self.change(lambda: adopt.disown(queue, id, timestamp, now, expires_at), now)

    async def forget_adopted(self, queue: str, now: int, count: int) -> int:
        """Forget up to ``count`` jobs that were due or taken over more than a week ago; return how many."""
        return await self.change(lambda: adopt.forget(queue, now, count))


class SharedSources:
    """What stores do alike for sources. See ``SourceKeeper`` for what each does."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store

    async def rows(self, table: Table, keys: Sequence[RowKey]) -> list[Row]:
        """Return these rows as they are now."""

        def steps() -> Steps[list[Row]]:
            found: list[Row] = yield ReadRows(table, keys)
            return found

        return await self._store.look(steps)

    async def live_keys(self, source_name: str, before: int) -> list[RowKey]:
        """Return the rows which have a waiting job of this source that was made before that time."""
        return await self._store.look(lambda: source.live_keys(source_name, before))

    async def apply(
        self, name: str, table: Table | None, offers: Sequence[Offer], now: int, expires_at: int | None, listed: int
    ) -> Applied:
        """Do what follows from these offers, in one transaction. An offer whose row has changed since is left out."""
        due = min((offer.job.scheduled_at for offer in offers if offer.job is not None), default=now)
        return await self._store.change(lambda: source.apply(name, table, offers, now, expires_at, listed), due)

    async def changes(self) -> dict[str, list[RowKey]]:
        """Return, by source, the rows that triggers saw change."""
        return await self._store.look(source.changes)

    async def drop_changes(self, name: str) -> None:
        """Forget what triggers saw of this source: a full look follows, or there is nothing to look at."""

        def is_changed() -> Steps[bool]:
            return bool((yield ask("source_changed", source=name)))

        def drop() -> Steps[None]:
            yield run("drop_changes", source=name)

        if await self._store.look(is_changed):
            await self._store.change(drop)

    async def guard(self, table: Table, job: Claimed) -> tuple[str | None, bool]:
        """Return why a claimed job need not run (None: it must), and whether its row is due at another time now."""
        reason, _, settled = await self._store.look(lambda: source.look(table, job))
        if reason is None and settled:
            return None, False
        return await self._store.change(lambda: source.guard(table, job))

    async def save(
        self, status: SourceStatus, forget_before: int | None, table: Table | None, listed: Sequence[RowKey]
    ) -> None:
        """Record a sweep, and forget what was handled before that time of rows that have gone on since."""
        await self._store.change(lambda: source.save(status, forget_before, table, listed))

    async def status(self) -> list[SourceStatus]:
        """Return all sources as their last sweep left them."""
        return await self._store.look(source.status)
