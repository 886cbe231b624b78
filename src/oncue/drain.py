"""The drain: a worker's life with an end, for a process that an external cron calls."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from oncue.clock import Clock
from oncue.job import Ack, Claimed
from oncue.metrics import Recorder
from oncue.places import Places
from oncue.runner import Runner
from oncue.store import Claims, Store
from oncue.wake import Wake
from oncue.worker import Worker, WorkerOptions


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain did, and what is left.

    ``ran``: attempts that completed; ``failed``: attempts that failed, to be retried or given up; ``skipped``: jobs
    that ended unrun or cancelled. ``remaining``: jobs that are due and don't run; ``next_due``: when the next job or
    fire comes (UTC; not in the future where something due remains; None where nothing waits). Rows of a source are
    known two sweeps ahead, so an application with sources is better called at least once a sweep.
    """

    ran: int
    failed: int
    skipped: int
    remaining: int
    next_due: datetime | None


class _Bounded(Places):
    """Places that only ``left`` more jobs may take; None for as many as come."""

    left: int | None = None

    @property
    def room(self) -> int:
        """How many more jobs may be claimed."""
        return super().room if self.left is None else min(super().room, self.left)

    def take(self, jobs: Sequence[Claimed]) -> None:
        """Give claimed jobs a place."""
        if self.left is not None:
            self.left -= len(jobs)
        super().take(jobs)


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
        recorder: Recorder | None = None,
    ) -> None:
        # Only what is due: a job claimed ahead of its time would be waited for.
        options = replace(options, look_ahead=0.0)
        super().__init__(
            store, wake, clock, runner, options, retention=retention, plan=plan, changed=changed, settled=settled,
            recorder=recorder,
        )  # fmt: skip
        self.places = self._bounded = _Bounded(
            runner, clock, options.concurrency, self._ahead, options.ack_delay, self._signal.set
        )
        self._bounded.left = limit
        self.looks.timers = True
        self._over = asyncio.Event()
        self._outcomes: Counter[str] = Counter()
        self._looked_at_changes = False
        self._failing_since: float | None = None
        self._failure: Exception | None = None

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

        Raises what the last round trip failed with, a StoreError as a rule: outcomes may then be unrecorded, and
        their jobs run again once this life's lease is over.
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
        except Exception as error:
            self._note_failure(error)
            raise
        self._failing_since = self._failure = None
        if not self.places.runs and not self.places.acks:
            now = self.clock.now()
            if self._bounded.left != 0 and self._more(found, now):
                self._arm(now)
            elif self._bounded.left == 0 or found.others_until is None or found.others_until >= now:
                self._over.set()
            # Else a dead worker's jobs are about to come back, and the timer is armed for that.
        return found

    def _more(self, found: Claims, now: int) -> bool:
        """Tell whether another round would find anything to do now."""
        # Changed rows were reconciled just now: that they made due jobs shows in the next round.
        changed = found.changed and not self._looked_at_changes
        self._looked_at_changes = found.changed
        due = any(moment is not None and moment <= now for moment in (found.next_eligible, found.next_fire))
        return found.more or found.lease_lost or changed or due

    def _note_failure(self, error: Exception) -> None:
        self._failure = error
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        elif time.monotonic() - self._failing_since > self.options.lease:
            # By now others may take these jobs: whoever called is better told.
            self._over.set()

    def _after_acks(self, entries: list[tuple[Claimed, Ack]], found: Claims) -> None:
        lost = set(found.lost)
        self._outcomes.update(ack.outcome for job, ack in entries if job.id not in lost)
        self._outcomes["skipped"] += found.skipped
        super()._after_acks(entries, found)
