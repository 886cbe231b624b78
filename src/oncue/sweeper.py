"""The sweeper: rescue, rewake, reconcile, prune. Idempotent, so any number of processes may do it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from oncue.clock import Clock
from oncue.errors import StoreError
from oncue.job import Ack, Claimed
from oncue.store import Store
from oncue.wake import Wake

log = logging.getLogger("oncue.sweeper")
_PRUNE_BATCH = 5_000
_PRUNE_MOST = 20


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did: jobs rescued, fires planned, blockers looked at again, source rows that made or moved
    jobs, and finished jobs pruned."""

    rescued: int = 0
    planned: int = 0
    unblocked: int = 0
    reconciled: int = 0
    pruned: int = 0


class Sweeper:
    """Proves what the timers and hints only make likely."""

    def __init__(
        self,
        store: Store,
        wake: Wake,
        clock: Clock,
        *,
        retention: int | None,
        plan: Callable[[], Awaitable[int]],
        reconcile: Callable[[], Awaitable[int]],
        settled: Callable[[Claimed, Ack], None] | None = None,
    ) -> None:
        self._store, self._wake, self._clock, self._retention = store, wake, clock, retention
        self._plan, self._reconcile, self._settled = plan, reconcile, settled

    async def run_once(self) -> Swept:
        """Do all duties once and return what they changed.

        A duty that fails keeps none of the others from being done; the first error is raised in the end. Where the
        database itself fails, the rest would only wait for it, too: that StoreError is raised at once.
        """
        failures: list[Exception] = []

        async def duty(work: Callable[[], Awaitable[int]]) -> int:
            try:
                return await work()
            except StoreError:
                raise
            except Exception as error:
                failures.append(error)
                return 0

        rescued, planned = await duty(self._rescue), await duty(self._plan)
        reconciled, unblocked = await duty(self._reconcile), await duty(self._store.unblock)
        swept = Swept(rescued, planned, unblocked, reconciled, await duty(self._prune))
        # Rewake: a hint for now has every worker of the process look for itself, whatever hints were lost before.
        self._wake.hint(self._clock.now())
        for also in failures[1:]:
            log.error("beside the first failure of the sweep: %s", also)
        if failures:
            raise failures[0]
        return swept

    async def _rescue(self) -> int:
        rescued = await self._store.rescue(self._clock.now(), self._retention)
        for job, ack in rescued:
            log.warning(
                "job %s (%s) attempt %s: %s; it is now %s", job.id, job.task, job.attempt, ack.reason, ack.state
            )
            if self._settled is not None:
                self._settled(job, ack)
        return len(rescued)

    async def _prune(self) -> int:
        total = 0
        for _ in range(_PRUNE_MOST):
            gone = await self._store.prune(self._clock.now(), _PRUNE_BATCH)
            total += gone
            if gone < _PRUNE_BATCH:
                break
        return total
