"""Beside a queue that carries announcements: what the rows say is announced, and what is delivered is claimed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING

from oncue.clock import SECOND, Clock
from oncue.job import Claimed
from oncue.redis_link import end
from oncue.store import Store
from oncue.wake import Wake
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.wake.bullmq import Carrier
    from oncue.worker import Worker

log = logging.getLogger("oncue.relay")
MOST_AHEAD = 2_000
"""So many jobs are announced ahead at most, the soonest first: that bounds the carrier's memory."""
NEAREST = SECOND
"""What is due sooner is not worth announcing where the workers have timers."""
BACKUP = SECOND // 4
"""Where the workers have timers, an announcement is a backup: it is delivered so long (microseconds) after the due
time, and taken back before that once its job was claimed."""
_TAKE_BACK_EVERY = 0.1
_REMEMBERED = 10 * SECOND
_MOST_SERVED = 10_000
_PAUSE = 1.0
_PAUSE_WITHOUT_TIMERS = 0.005
_CLAIM_SECONDS = 0.003
_CLOSING = 1.5


class Relay:
    """Announces the waiting jobs of the next two sweeps, from their rows: never what somebody meant to schedule.

    A round follows every hint and every change of what comes next (at most one a second), every new connection of the
    carrier, and every sweep; then what the carrier has lost is announced anew. Of several processes one announces at
    a time.
    """

    def __init__(self, store: Store, wake: Wake, carrier: Carrier, clock: Clock, worker: Worker, sweep_us: int) -> None:
        self._store, self._wake, self._carrier, self._clock, self._worker = store, wake, carrier, clock, worker
        self._sweep_us = sweep_us
        self._pause = _PAUSE if wake.timers else _PAUSE_WITHOUT_TIMERS
        # Delivered a little early, a job is claimed ahead and starts when it is due. Timers do that by themselves.
        ahead = max(0.0, min(worker.options.look_ahead, 0.02) - _CLAIM_SECONDS)
        self._early = -BACKUP if wake.timers else int(ahead * SECOND)
        self.backups = Backups(carrier) if wake.timers else None
        self._wanted = asyncio.Event()
        self._known: set[tuple[int, int]] = set()
        self._epoch = 0
        self._again: float | None = None
        self._failing = False

    async def run(self) -> None:
        """Announce until cancelled."""
        loop = asyncio.get_running_loop()
        unlisten = self._wake.listen(lambda _: self._wanted.set())
        self._worker.looks.on_news = self._wanted.set
        if self.backups is not None:
            self._worker.looks.on_claimed = self.backups.claimed
        sweep_at = loop.time()
        try:
            while True:
                sweeping = loop.time() >= sweep_at
                if sweeping:
                    sweep_at = loop.time() + self._sweep_us / SECOND
                self._wanted.clear()
                await self._round_safely(sweeping=sweeping)
                if sweeping and not self._wake.timers:
                    # Whatever the carrier does, what is due starts a sweep late at most.
                    self._worker.look()
                await asyncio.sleep(self._pause)
                until = sweep_at if self._again is None else min(sweep_at, self._again)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(until):
                        await self._wanted.wait()
        finally:
            unlisten()
            self._worker.looks.on_news = self._worker.looks.on_claimed = None
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1):
                    await self._carrier.end_turn()

    async def _round_safely(self, *, sweeping: bool) -> None:
        self._again = None
        if not self._carrier.ready:
            return
        try:
            await self.round(sweeping=sweeping)
            self._failing = False
            self._carrier.worked(None)
        except Exception as error:
            self._carrier.worked(error)
            # It is tried again at the next hint or sweep; a broken connection says more by itself.
            if not self._failing:
                log.warning("%s They start by their rows all the same.", self._carrier.problem)
            self._failing = True
            self._look_again(_PAUSE)

    async def round(self, *, sweeping: bool = False) -> None:
        """Announce what comes and isn't known to be announced; when ``sweeping``, look also for what was lost."""
        now = self._clock.now()
        after = now + NEAREST if self._wake.timers else 0
        coming = await self._store.coming(after, now + 2 * self._sweep_us, MOST_AHEAD, self._worker.queues)
        if self.backups is not None:
            self.backups.expect(coming, now)
        if len(coming) == MOST_AHEAD:
            self._look_again(max((coming[-1][1] - now) / 2 / SECOND, self._pause))
        await self._take_back_moved(coming, now)
        if sweeping or self._carrier.epoch != self._epoch:
            before, self._known, self._epoch = self._known, set(), self._carrier.epoch
        else:
            before = set()
            self._known.intersection_update(coming)
        fresh = await self._carrier.missing([one for one in coming if one not in self._known])
        self._carrier.stats.lost += sum(one in before and one[1] > now for one in fresh)
        wait = await self._carrier.take_turn() if fresh else 0.0
        if wait:
            self._look_again(wait)
            return
        await self._carrier.announce(fresh, self._clock.now() + self._early)
        # What is due already is announced again at each round: it may have been delivered while it was blocked.
        self._known.update(one for one in coming if one[1] > now)

    async def _take_back_moved(self, coming: Sequence[tuple[int, int]], now: int) -> None:
        """Take back what is announced for another time than the rows say, so that a job which moves often leaves
        nothing behind; what is due soon is left to its delivery, which ends as nothing."""
        if moved := [one for one in self._known.difference(coming) if one[1] > now + NEAREST]:
            self._known.difference_update(moved)
            await self._carrier.take_back(moved)

    def _look_again(self, seconds: float) -> None:
        at = asyncio.get_running_loop().time() + seconds
        self._again = at if self._again is None else min(at, self._again)

    async def deliver(self, id: int, due: int) -> bool:
        """Have what is due claimed, by the ordinary rules; tell whether that was done."""
        # Where only deliveries start jobs, one may also tell of what was due long ago: its queue was paused, say.
        if self._wake.timers and due <= self._worker.looks.until:
            self._carrier.stats.stale += 1
            return True
        return await self._worker.look()


class Backups:
    """Takes back what was announced of jobs that a timer has served, so that in the usual case nothing is delivered.

    What can't be taken back is delivered and ends as nothing, so all of this may fail, or forget.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._expected: set[tuple[int, int]] = set()
        self._served: deque[tuple[int, int]] = deque(maxlen=_MOST_SERVED)
        self._wanted = asyncio.Event()

    def expect(self, coming: Iterable[tuple[int, int]], now: int) -> None:
        """These jobs (id, due) are announced, by this process or by another; those that came due since are kept."""
        kept = (one for one in self._expected if now - _REMEMBERED < one[1] <= now + NEAREST)
        self._expected = {*kept, *coming}

    def claimed(self, jobs: Sequence[Claimed]) -> None:
        """Have the announcements of these taken back soon, where there are any."""
        if not self._expected:
            return
        for job in jobs:
            if (one := (job.id, job.eligible_at)) in self._expected:
                self._expected.remove(one)
                self._served.append(one)
                self._wanted.set()

    async def run(self) -> None:
        """Take back until cancelled, and then what is left."""
        try:
            while True:
                await self._wanted.wait()
                await asyncio.sleep(_TAKE_BACK_EVERY)
                await self._take_back()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._take_back()

    async def _take_back(self) -> None:
        self._wanted.clear()
        served = list(self._served)
        self._served.clear()
        try:
            await self._carrier.take_back(served)
        except Exception as error:
            said = counted(len(served), "announcement")
            log.debug("%s could not be taken back and will be delivered: %s", said, error)


@contextlib.asynccontextmanager
async def carried(
    store: Store, wake: Wake, clock: Clock, worker: Worker | None, sweep_us: int, stop: asyncio.Event
) -> AsyncIterator[None]:
    """For the length of an ``async with`` block, have coming jobs announced and deliveries claimed by ``worker``.

    From ``stop`` on, deliveries go to other processes.
    """
    carrier = wake.carrier
    if carrier is None or worker is None:
        yield
        return
    relay = Relay(store, wake, carrier, clock, worker, sweep_us)

    async def receive() -> None:
        await carrier.receive(relay.deliver)
        await stop.wait()
        await carrier.forget()

    tasks = [asyncio.create_task(relay.run()), asyncio.create_task(receive())]
    if relay.backups is not None:
        tasks.append(asyncio.create_task(relay.backups.run()))
    try:
        yield
    finally:
        worker.looks.close()
        await end(*tasks, again=_CLOSING)
        await carrier.forget()
