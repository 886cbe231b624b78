"""The drain: a worker's life with an end, for a process that an external cron calls."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

from oncue.clock import Clock
from oncue.errors import StoreError
from oncue.job import Ack, Claimed
from oncue.runner import Runner
from oncue.store import Claims, Store
from oncue.wake import Wake
from oncue.worker import Worker, WorkerOptions


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain did, and what is left.

    ``ran``: attempts that completed; ``failed``: attempts that failed, to be retried or given up; ``skipped``: jobs
    that ended unrun or cancelled. ``remaining``: jobs that are due and don't run, ``next_due``: when the next job or
    fire comes (UTC; not in the future where something due remains; None where nothing waits).
    """

    ran: int
    failed: int
    skipped: int
    remaining: int
    next_due: datetime | None


class Drain(Worker):
    """Works until nothing is due or running, ``limit`` jobs were claimed, or its time is over."""

    def __init__(
        self,
        store: Store,
        wake: Wake,
        clock: Clock,
        runner: Runner,
        options: WorkerOptions,
        *,
        limit: int | None,
        retention: int | None,
        plan: Callable[[int], Awaitable[object]],
        changed: Callable[[], Awaitable[object]],
        settled: Callable[[Claimed, Ack], None],
    ) -> None:
        # Only what is due: a job claimed ahead of its time would be waited for.
        options = replace(options, look_ahead=0.0)
        super().__init__(
            store, wake, clock, runner, options, retention=retention, plan=plan, changed=changed, settled=self._count
        )
        self._tell, self._left, self._most = settled, limit, options.concurrency
        self._limit_to_what_is_left()
        self._over = asyncio.Event()
        self._mine: set[tuple[int, int]] = set()
        self._outcomes: Counter[str] = Counter()
        self._looked_at_changes = False
        self._failing_since: float | None = None
        self._failure: StoreError | None = None

    @property
    def ran(self) -> int:
        """Attempts that completed."""
        return self._outcomes["completed"]

    @property
    def failed(self) -> int:
        """Attempts that failed: their jobs are retried or discarded."""
        return self._outcomes["retried"] + self._outcomes["discarded"]

    @property
    def skipped(self) -> int:
        """Jobs that ended unrun, or were cancelled."""
        return self._outcomes["skipped"] + self._outcomes["cancelled"]

    async def drain(self, seconds: float | None) -> None:
        """Work for up to ``seconds``; jobs that still run then have the grace, and are given back.

        Raises a StoreError where the store failed at the end, so that outcomes may be unrecorded: their jobs run
        again once this life's lease is over.
        """
        timer = None
        if seconds is not None and seconds <= 0:
            self._over.set()
        elif seconds is not None:
            timer = self._loop.call_later(seconds, self._over.set)
        try:
            await self.run(self._over)
        finally:
            if timer is not None:
                timer.cancel()
        if self._failure is not None:
            raise self._failure

    async def run_once(self) -> Claims:
        """Do one round trip, and see whether there is any more to do."""
        try:
            found = await super().run_once()
        except StoreError as error:
            self._note_failure(error)
            raise
        self._failing_since = self._failure = None
        self._mine.update((job.id, job.attempt) for job in found.jobs)
        self._outcomes["skipped"] += found.skipped
        if self._left is not None:
            self._left -= len(found.jobs)
            self._limit_to_what_is_left()
        idle = not self._runs and not self._acks
        if idle and (self._left == 0 or not self._more(found)):
            self._over.set()
        return found

    def _limit_to_what_is_left(self) -> None:
        if self._left is not None:
            most = min(self._most, len(self._runs) + self._left)
            self.options = replace(self.options, concurrency=most)

    def _more(self, found: Claims) -> bool:
        now = self.clock.now()
        if found.changed and not self._looked_at_changes:
            # The changed rows were reconciled just now: see once whether that made jobs.
            self._looked_at_changes = True
            self._signal.set()
            return True
        self._looked_at_changes = found.changed
        # The worker acts on each of these by itself, and then looks again at once.
        due = any(moment is not None and moment <= now for moment in (found.next_eligible, found.next_fire))
        dead = found.others_until is not None and found.others_until < now
        return found.more or found.lease_lost or due or dead

    def _note_failure(self, error: StoreError) -> None:
        self._failure = error
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        elif time.monotonic() - self._failing_since > self.options.lease:
            # By now others may take these jobs: whoever called is better told.
            self._over.set()

    def _count(self, job: Claimed, ack: Ack) -> None:
        if (job.id, job.attempt) in self._mine:
            self._mine.discard((job.id, job.attempt))
            self._outcomes[ack.outcome] += 1
        self._tell(job, ack)
