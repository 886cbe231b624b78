"""Taking back the jobs of dead workers, and once more those whose rows other transactions held."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from oncue.clock import Clock
from oncue.job import Ack, Claimed
from oncue.logs import about
from oncue.metrics import Recorder
from oncue.store import Claims, Store

_FIRST_PAUSE, _LONGEST_PAUSE = 10_000, 1_000_000


class Rescuer:
    """Rescues for a worker or a sweep. ``retention``: microseconds that the row of a discarded job is kept; ``settled``
    is told what became of each job."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        log: logging.Logger,
        retention: int | None,
        settled: Callable[[Claimed, Ack], None] | None,
        recorder: Recorder | None = None,
    ) -> None:
        self._store, self._clock, self._log, self._retention, self._settled = store, clock, log, retention, settled
        self._recorder = recorder or Recorder()
        self._pause = 0
        self._again_at = 0.0
        self._tried: int | None = None

    async def rescue(self) -> int:
        """Take back what can be taken now; return how many jobs that were."""
        rescued = await self._store.rescue(now := self._clock.now(), self._retention)
        self._recorder.rescues(now, rescued)
        for job, ack in rescued:
            told = "job %s (%s) attempt %s: %s; it is now %s"
            self._log.warning(told, job.id, job.task, job.attempt, ack.reason, ack.state, extra=about(job))
            if self._settled is not None:
                self._settled(job, ack)
        return len(rescued)

    async def after(self, found: Claims, now: int) -> int | None:
        """Do what a claim showed to be needed; return when the next look is due, None where nothing is awaited.

        How long others hold a job's row nobody knows: it is tried again after pauses that grow from 10 ms to 1 s.
        """
        until = found.others_until
        ended = until is not None and until < now
        if not ended and not found.left:
            self._pause, self._tried = 0, None
            return None if until is None else until + 1
        if monotonic() >= self._again_at or (ended and until != self._tried):
            self._tried = until if ended else None
            if await self.rescue():
                self._pause, self._again_at = 0, 0.0
                return now
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause or _FIRST_PAUSE)
            self._again_at = monotonic() + self._pause / 1e6
        # Real time, also where the clock is moved by hand: it is others' work that is waited for.
        again = now + max(0, round((self._again_at - monotonic()) * 1e6)) + 1
        return again if until is None or ended else min(again, until + 1)
