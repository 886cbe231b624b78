"""The worker: one timer, claims in batches, starts exactly at the due time, acks in fenced batches."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from oncue.clock import SECOND, Clock
from oncue.errors import StoreError
from oncue.heartbeat import Heartbeat
from oncue.job import Ack, Claimed, Snoozed
from oncue.runner import Run, Runner
from oncue.store import Claim, Claims, Store, WorkerRow
from oncue.store.lock import LifeLock
from oncue.wake import Wake

log = logging.getLogger("oncue.worker")
_LONGEST_SLEEP = 60 * SECOND
_PART = 50
_PACE_OVER = 20_000
_MOST_SPARE = 1_000


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works. Times in seconds.

    ``concurrency``: jobs at a time. ``threads``: of these, synchronous ones at a time. ``lease``: after so long
    without a sign of life, others take its jobs. ``look_ahead``: how long before its due time a job may be
    claimed (at most 0.02). ``ack_delay``: the longest that an outcome waits to be written with others.
    ``grace``: how long running jobs may go on at shutdown. ``silence``: how long a blocked event loop keeps its lease.
    """

    concurrency: int = 200
    threads: int = 32
    lease: float = 10.0
    look_ahead: float = 0.02
    ack_delay: float = 0.005
    grace: float = 10.0
    silence: float = 60.0
    queues: frozenset[str] | None = None
    name: str | None = None


class Worker:
    """Claims and runs jobs until it is stopped. ``run_once`` is one round trip to the store."""

    def __init__(
        self,
        store: Store,
        wake: Wake,
        clock: Clock,
        runner: Runner,
        options: WorkerOptions,
        *,
        retention: int | None = None,
        plan: Callable[[int], Awaitable[object]] | None = None,
        changed: Callable[[], Awaitable[object]] | None = None,
        settled: Callable[[Claimed, Ack], None] | None = None,
    ) -> None:
        self.store, self.wake, self.clock, self.runner, self.options = store, wake, clock, runner, options
        self.id = 0
        self.name = options.name or f"{socket.gethostname()}-{os.getpid()}"
        self._retention, self._plan, self._changed, self._settled = retention, plan, changed, settled
        self._lease = int(options.lease * SECOND)
        self._ahead = int(min(options.look_ahead, 0.02) * SECOND)
        self._batch = max(1, options.concurrency // 2)
        self._worthwhile = max(1, options.concurrency // 4)
        self._measured_at = 0
        self._pace = 0.0
        self._spare = 0
        self._begun = 0
        self._beginning = False
        self._runs: dict[int, Run] = {}
        self._ready: deque[Run] = deque()
        self._loop = asyncio.get_running_loop()
        self._acks: list[tuple[Claimed, Ack]] = []
        self._signal = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._ack_timer: asyncio.TimerHandle | None = None
        self._spare_timer: asyncio.TimerHandle | None = None
        self._armed: int | None = None
        self._changed_elsewhere = False
        self._life: LifeLock | None = None
        self._heart: Heartbeat | None = None
        self._stopping = False

    @property
    def running(self) -> int:
        """Jobs that this worker holds now."""
        return len(self._runs)

    async def start(self) -> None:
        """Register, and take over at once from workers whose death is proved."""
        await self._register()
        keeper = self.store.lease_keeper()
        self._heart = Heartbeat(keeper, self.clock, self._lease, self.options.silence, self._lease_is_lost)
        await self._rescue()

    async def _register(self) -> None:
        now = self.clock.now()
        queues = ",".join(sorted(self.options.queues)) if self.options.queues is not None else None
        row = WorkerRow(0, self.name, socket.gethostname(), os.getpid(), queues, now, now, now + self._lease)
        self.id, self._life = await self.store.register(row)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then end cleanly: nothing that was claimed stays behind."""
        if self._heart is None:
            await self.start()
        unlisten = self.wake.listen(self._heard)
        unwatch = self.clock.watch(self._signal.set)
        stopper = asyncio.ensure_future(stop.wait())
        stopper.add_done_callback(lambda _: self._signal.set())
        trouble = 0.0
        try:
            while not stop.is_set():
                self._signal.clear()
                try:
                    again = await self._turn()
                    trouble = 0.0
                except Exception as error:
                    trouble = min(5.0, trouble * 2 or 0.1)
                    # A store in trouble is told in a line; anything else is a mistake of ours, so with its traceback.
                    told = None if isinstance(error, StoreError) else error
                    log.error("the worker's round failed; again in %.1f s: %s", trouble, error, exc_info=told)
                    self._arm(self.clock.now() + int(trouble * SECOND))
                    again = False
                if not again:
                    await self._signal.wait()
        finally:
            unlisten()
            unwatch()
            stopper.cancel()
            await self.stop()

    async def _turn(self) -> bool:
        """Do one round; tell whether the next should follow without waiting."""
        if self._changed_elsewhere and not self._acks and not self._due():
            self._changed_elsewhere = False
            if not await self.store.changed_elsewhere():
                return False
        found = await self.run_once()
        # A trickle of free places waits for the next outcomes, so that claims stay batches.
        return found.more and self._room() >= self._worthwhile and not found.lease_lost

    def _room(self) -> int:
        return self.options.concurrency + self._spare - len(self._runs)

    def _measure(self, now: int, done: int) -> None:
        """Set how much may be claimed beyond the running jobs: what the present pace starts within the look-ahead."""
        passed = max(1, now - self._measured_at)
        self._measured_at = now
        pace = done / passed
        self._pace = pace if passed > SECOND else self._pace + (pace - self._pace) * min(1.0, passed / _PACE_OVER)
        self._spare = min(_MOST_SPARE, int(self._pace * self._ahead))

    def _due(self) -> bool:
        return self._armed is None or self._armed <= self.clock.now()

    async def run_once(self) -> Claims:
        """Hand in what is finished, claim what is due, and arm the timer for what comes next."""
        entries, self._acks = self._acks, []
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        now = self.clock.now()
        self._measure(now, len(entries))
        room = 0 if self._stopping else self._room()
        request = Claim(
            self.id,
            now,
            now + self._ahead,
            self._lease,
            room,
            [ack for _, ack in entries],
            self.options.queues,
            retention=self._retention,
            policy=self.runner.policy,
        )
        self._changed_elsewhere = False
        try:
            found = await self.store.claim(request)
        except BaseException:
            self._acks = entries + self._acks
            raise
        self._after_acks(entries, found)
        for job in found.jobs:
            self._runs[job.id] = run = Run(job)
            self._ready.append(run)
        self._begin_some()
        await self._follow(found)
        return found

    def _after_acks(self, entries: list[tuple[Claimed, Ack]], found: Claims) -> None:
        lost = set(found.lost)
        for job, ack in entries:
            if job.id in lost:
                log.warning(
                    "job %s attempt %s: its outcome (%s) came too late; the job had been taken back",
                    job.id,
                    job.attempt,
                    ack.outcome,
                )
            elif self._settled is not None:
                self._settled(job, ack)
        for id in found.cancel:
            if (run := self._runs.get(id)) is not None:
                run.stop("cancelled")
        if found.lease_lost:
            self._lease_is_lost(self.id)

    async def _follow(self, found: Claims) -> None:
        """Do what the claim showed to be needed, and arm the timer."""
        now = self.clock.now()
        if self._heart is not None:
            self._heart.active(self.id if self._runs else 0)
        if self.id == 0 and not self._stopping:
            await self._register()
            self._signal.set()
        if found.others_until is not None and found.others_until < now:
            await self._rescue()
            self._signal.set()
        if found.next_fire is not None and found.next_fire <= now + self._ahead and self._plan is not None:
            await self._plan(now + self._ahead)
            self._signal.set()
        if found.changed and self._changed is not None:
            await self._changed()
        times = [now + _LONGEST_SLEEP]
        if found.next_eligible is not None and len(self._runs) < self.options.concurrency:
            times.append(found.next_eligible - self._ahead)
        if found.others_until is not None:
            times.append(found.others_until + 1)
        if found.next_fire is not None:
            times.append(found.next_fire - self._ahead)
        self._arm(min(times))

    async def _rescue(self) -> None:
        for job, ack in await self.store.rescue(self.clock.now(), self._retention):
            log.warning(
                "job %s (%s) attempt %s: %s; it is now %s", job.id, job.task, job.attempt, ack.reason, ack.state
            )
            if self._settled is not None:
                self._settled(job, ack)

    def _arm(self, when: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = when
        delay = max(0.0, (when - self.clock.now()) / SECOND)
        self._timer = self._loop.call_later(delay, self._signal.set)

    def _heard(self, due: int | None) -> None:
        if due is None:
            self._changed_elsewhere = True
            self._signal.set()
        elif self._armed is None or due - self._ahead < self._armed:
            self._arm(due - self._ahead)

    def _begin_some(self) -> None:
        """Start a part of what was claimed; between parts the loop can hand in outcomes and take the next batch."""
        self._beginning = False
        part = min(_PART, len(self._ready), self.options.concurrency - self._begun)
        for _ in range(part):
            run = self._ready.popleft()
            self._begun += 1
            run.task = asyncio.Task(self._perform(run), loop=self._loop)
        if self._ready and part == _PART:
            self._begin_more()
        elif self._ready and self._spare_timer is None:
            self._spare_timer = self._loop.call_later(self._ahead / SECOND, self._give_spare_back)

    def _begin_more(self) -> None:
        if not self._beginning and self._ready:
            self._beginning = True
            self._loop.call_soon(self._begin_some)

    def _give_spare_back(self) -> None:
        """Give back what was claimed beyond the running jobs where these turned out to be slow."""
        self._spare_timer = None
        late = self.clock.now() - 2 * self._ahead
        while self._ready and self._ready[0].job.claimed_at < late:
            self._give_back(self._ready.popleft(), "every place of the worker stayed busy")
        if self._ready:
            self._spare_timer = self._loop.call_later(self._ahead / SECOND, self._give_spare_back)

    def _give_back(self, run: Run, reason: str) -> None:
        self._begun += 1
        self._finished(run, self.runner.settle(run, Snoozed(0, f"given back: {reason}", released=True)))

    async def _perform(self, run: Run) -> None:
        due, now = run.job.start_at, 0
        run.entered = True
        try:
            # Timers may fire up to a millisecond before their time: ask the clock again.
            while (now := self.clock.now()) < due and not run.why:  # noqa: ASYNC110 - time is no event
                await asyncio.sleep((due - now) / SECOND)
        except asyncio.CancelledError:
            if not run.why:
                raise
        self._finished(run, await self.runner.run(run, now))

    def _finished(self, run: Run, ack: Ack) -> None:
        self._begun -= 1
        self._begin_more()
        if self._runs.get(run.job.id) is not run:
            log.warning(
                "job %s attempt %s ended (%s) when it was no longer this worker's",
                run.job.id,
                run.job.attempt,
                ack.outcome,
            )
            return
        del self._runs[run.job.id]
        self._acks.append((run.job, ack))
        if not self._runs or len(self._acks) >= self._batch:
            self._signal.set()
        elif self._ack_timer is None:
            self._ack_timer = self._loop.call_later(self.options.ack_delay, self._signal.set)

    def _lease_is_lost(self, worker: int) -> None:
        if worker != self.id:
            return
        log.error(
            "worker %s lost its lease: its %d jobs were taken back; it goes on under a new id",
            self.name,
            len(self._runs),
        )
        self.id = 0
        self._acks.clear()
        for run in self._runs.values():
            run.stop("lease lost")
        self._runs.clear()
        self._ready.clear()
        if self._life is not None:
            self._life.release()
            self._life = None
        self._signal.set()

    async def stop(self) -> None:
        """End: let running jobs finish within the grace, stop the others and give them back, then sign off."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        while self._ready:
            self._give_back(self._ready.popleft(), "shutdown")
        for run in list(self._runs.values()):
            if not run.started_at:
                run.stop("shutdown")
        await self._drain(self.options.grace)
        for run in list(self._runs.values()):
            run.stop("shutdown")
        await self._drain(self.options.grace)
        for run in list(self._runs.values()):
            log.error("job %s does not end at shutdown; it is given back while its handler may still run", run.job.id)
            self._give_back(run, "shutdown")
        try:
            if self._acks and self.id:
                await self.run_once()
            if self.id:
                await self.store.unregister(self.id)
        except StoreError as error:
            log.error("signing off failed; the lease will end by itself: %s", error)
        if self._heart is not None:
            await self._heart.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._spare_timer is not None:
            self._spare_timer.cancel()
        if self._life is not None:
            self._life.release()

    async def _drain(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._runs and time.monotonic() < end:
            tasks = {run.task for run in self._runs.values() if run.task is not None}
            if not tasks:
                await asyncio.sleep(0)
                continue
            await asyncio.wait(tasks, timeout=max(0.0, end - time.monotonic()), return_when=asyncio.FIRST_COMPLETED)
            if self._acks and self.id:
                await self.run_once()
