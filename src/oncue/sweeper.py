"""The sweeper: rescue, rewake, reconcile, prune. Idempotent, so any number of processes may do it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

from oncue.clock import Clock
from oncue.errors import StoreError
from oncue.job import Ack, Claimed
from oncue.metrics import Recorder
from oncue.rescuer import Rescuer
from oncue.store import Store
from oncue.store.steps.watch import note
from oncue.wake import Wake

log = logging.getLogger("oncue.sweeper")
_PRUNE_BATCH = 5_000
_PRUNE_MOST = 20


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did: jobs rescued, fires planned, blockers looked at again, source rows that made or moved
    jobs, and rows pruned: finished jobs, and what conversations kept for long enough."""

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
        upkeep: Callable[[], Awaitable[int]],
        settled: Callable[[Claimed, Ack], None] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._store, self._wake, self._clock = store, wake, clock
        self._recorder = recorder or Recorder()
        self._plan, self._reconcile, self._upkeep = plan, reconcile, upkeep
        self._rescuer = Rescuer(store, clock, log, retention, settled, self._recorder)

    async def run_once(self) -> Swept:
        """Do all duties once and return what they changed.

        A duty that fails keeps none of the others from being done; the first error is raised in the end. Where the
        database itself fails, the rest would only wait for it, too: that StoreError is raised at once.
        """
        try:
            swept = await self._do_all()
        except Exception:
            self._recorder.swept(self._clock.now(), None)
            raise
        self._recorder.swept(self._clock.now(), asdict(swept).items())
        return swept

    async def _do_all(self) -> Swept:
        failures: list[Exception] = []

        async def duty(work: Callable[[], Awaitable[int]]) -> int:
            try:
                return await work()
            except StoreError:
                raise
            except Exception as error:
                failures.append(error)
                return 0

        rescued, planned = await duty(self._rescuer.rescue), await duty(self._plan)
        reconciled, unblocked = await duty(self._reconcile), await duty(self._store.unblock)
        pruned = await duty(self._prune) + await duty(self._upkeep)
        now = self._clock.now()
        await self._store.change(lambda: note("swept_at", now))
        swept = Swept(rescued, planned, unblocked, reconciled, pruned)
        # Rewake: a hint for now has every worker of the process look for itself, whatever hints were lost before.
        self._wake.hint(now)
        for also in failures[1:]:
            log.error("beside the first failure of the sweep: %s", also)
        if failures:
            raise failures[0]
        return swept

    async def _prune(self) -> int:
        total = 0
        for _ in range(_PRUNE_MOST):
            gone = await self._store.prune(self._clock.now(), _PRUNE_BATCH)
            total += gone
            if gone < _PRUNE_BATCH:
                break
        return total
