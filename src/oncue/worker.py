"""The worker: one timer, claims in batches, starts exactly at the due time, acks in fenced batches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import version

import msgspec

from oncue.clock import SECOND, Clock
from oncue.doubts import Doubts
from oncue.ears import Ears
from oncue.errors import ConfigError, StoreError
from oncue.heartbeat import Heartbeat
from oncue.job import Ack, Claimed
from oncue.logs import about
from oncue.looks import Looks
from oncue.metrics import Recorder
from oncue.places import Places
from oncue.rescuer import Rescuer
from oncue.runner import Runner
from oncue.store import Claim, Claims, Store, WorkerRow
from oncue.store.lock import LifeLock
from oncue.store.shares import Shares
from oncue.wake import Wake
from oncue.words import counted

log = logging.getLogger("oncue.worker")
_LONGEST_SLEEP = 60 * SECOND
_LOOK_WHILE_STOPPING = 0.5
# Another transaction holds the rows of these jobs; how long it will, nobody knows.
_UNWRITTEN_PAUSE = 50_000
_WEIGHTS = (0.001, 1000)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works. Times in seconds.

    ``concurrency``: jobs at a time. ``threads``: of these, synchronous ones at a time. ``lease``: after so long
    without a sign of life, others take its jobs. ``look_ahead``: how long before its due time a job may be
    claimed (at most 0.02). ``ack_delay``: the longest that an outcome waits to be written with others.
    ``grace``: how long running jobs may go on at shutdown. ``silence``: how long a blocked event loop keeps its lease.

    ``queues``: a set of names to take from, the most urgent job first by its priority, whatever its queue; None for
    all queues, in the same way. Or a mapping of names to weights (0.001 to 1000): while several of them have due jobs,
    each gets its share of the starts, exact to one job; the share of one that has none goes to the others, and
    priority orders within a queue only. Each worker keeps to its own weights. Raises ConfigError.
    """

    concurrency: int = 200
    threads: int = 32
    lease: float = 10.0
    look_ahead: float = 0.02
    ack_delay: float = 0.005
    grace: float = 10.0
    silence: float = 60.0
    queues: Mapping[str, float] | Collection[str] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        for name in ("concurrency", "threads"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise ConfigError(f"{name} is a whole number from 1, not {value!r}.")
        for name in ("lease", "silence"):
            if not (value := getattr(self, name)) > 0:
                raise ConfigError(f"{name} is above 0 seconds, not {value!r}.")
        for name in ("look_ahead", "ack_delay", "grace"):
            if not (value := getattr(self, name)) >= 0:
                raise ConfigError(f"{name} is at least 0 seconds, not {value!r}.")
        self._check_queues()

    def _check_queues(self) -> None:
        names: Collection[object] | None = self.queues
        if names is None:
            return
        if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
            raise ConfigError(
                f"queues is a set of names, such as {{'mail'}}, or names with weights, such as {{'mail': 3}}, "
                f"not {self.queues!r}."
            )
        least, most = _WEIGHTS
        for queue, weight in (self.weights or {}).items():
            if type(weight) not in (int, float) or not least <= weight <= most:
                raise ConfigError(f"the weight of queue {queue!r} is a number from {least} to {most}, not {weight!r}.")

    @property
    def queue_names(self) -> frozenset[str] | None:
        """The queues to take from; None for all."""
        return None if self.queues is None else frozenset(self.queues)

    @property
    def weights(self) -> dict[str, float] | None:
        """The weight of each queue; None where they have none."""
        return dict(self.queues) if isinstance(self.queues, Mapping) else None


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
        recorder: Recorder | None = None,
    ) -> None:
        self.store, self.wake, self.clock, self.runner, self.options = store, wake, clock, runner, options
        self.id = 0
        self.name = options.name or f"{socket.gethostname()}-{os.getpid()}"
        self._retention, self._plan, self._changed, self._settled = retention, plan, changed, settled
        self._lease = int(options.lease * SECOND)
        self._ahead = int(min(options.look_ahead, 0.02) * SECOND)
        self._signal = asyncio.Event()
        self.places = Places(runner, clock, options.concurrency, self._ahead, options.ack_delay, self._signal.set)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._armed: int | None = None
        self._hinted: int | None = None
        self._changed_elsewhere = False
        self._doubts, self._ears = Doubts(store), Ears(store, wake, clock)
        self.recorder = recorder or Recorder()
        self._rescuer = Rescuer(store, clock, log, retention, settled, self.recorder)
        self.looks = Looks(timers=wake.timers)
        self.queues = options.queue_names
        self._shares = None if options.weights is None else Shares(options.weights)
        self._life: LifeLock | None = None
        self._heart: Heartbeat | None = None
        self._stopping = False

    @property
    def running(self) -> int:
        """Jobs that this worker holds now."""
        return len(self.places.runs)

    async def start(self, stop: asyncio.Event | None = None) -> None:
        """Register, and take over at once from workers whose death is proved.

        A database that is away is tried again until ``stop`` is set; without it, raises a StoreError.
        """
        trouble = 0.0
        while stop is None or not stop.is_set():
            try:
                if not self.id:
                    await self._register()
                await self._rescuer.rescue()
                keeper = self.store.lease_keeper()
                self._heart = Heartbeat(keeper, self.clock, self._lease, self.options.silence, self._lease_is_lost)
                return
            except StoreError as error:
                if stop is None:
                    raise
                trouble = min(5.0, trouble * 2 or 0.1)
                log.error("the worker could not start; again in %.1f s: %s", trouble, error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), trouble)

    async def _register(self) -> None:
        now = self.clock.now()
        queues = None if self.queues is None else _json(self.options.weights or sorted(self.queues))
        row = WorkerRow(0, self.name, socket.gethostname(), os.getpid(), queues, now, now, now + self._lease)
        row.tasks, row.version = _json(sorted(self.runner.tasks)), version("oncue")
        self.id, self._life = await self.store.register(row)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then end cleanly: nothing that was claimed stays behind."""
        if self._heart is None and not stop.is_set():
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
                    await self._ears.report(self.id)
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
        if self._changed_elsewhere and not self.places.acks and not self._due() and not self.looks.asked:
            self._changed_elsewhere = False
            if not await self.store.changed_elsewhere():
                return False
        found = await self.run_once()
        more = found.more and (self.looks.timers or self.looks.more)
        return more and self.places.worthwhile and not found.lease_lost

    def look(self) -> asyncio.Future[bool]:
        """Have due jobs claimed; the answer is True once a claim was made that began after this call, or False."""
        self._armed = self.clock.now()
        self._signal.set()
        return self.looks.ask()

    def _due(self) -> bool:
        return self._armed is None or self._armed <= self.clock.now()

    async def run_once(self) -> Claims:
        """Hand in what is finished, claim what is due, and arm the timer for what comes next."""
        now = self.clock.now()
        entries = self.places.hand_in(now)
        room, asked = self.looks.begin(0 if self._stopping else self.places.room, acks=bool(entries))
        request = Claim(
            self.id,
            now,
            now + self._ahead,
            self._lease,
            room,
            [ack for _, ack in entries],
            self.queues,
            self._shares,
            self.runner.unknown.names,
            retention=self._retention,
            policy=self.runner.policy,
            holding={*self.places.runs, *(job.id for job, _ in entries)},
        )
        self._changed_elsewhere, self._hinted = False, None
        began = time.monotonic()
        try:
            found = await self.store.claim(request)
        except BaseException:
            self.places.acks[:0] = entries
            self._doubts.add(job.id for job, _ in entries)
            self.looks.failed(asked)
            raise
        self.looks.made(asked, room, found, request.until)
        await self._doubts.settle(self.id, entries, found)
        unwritten = set(found.unwritten)
        self.places.acks[:0] = [entry for entry in entries if entry[0].id in unwritten]
        recorded, self.places.recorded = self.places.recorded, []
        settled = [entry for entry in entries if entry[0].id not in unwritten] + recorded
        self.recorder.round(self.id, now, settled, found)
        self._after_acks(settled, found)
        if self._shares is not None:
            self._shares = self._shares.after(job.queue for job in found.jobs)
        if self.id == request.worker:
            # Else the lease was lost, maybe while the answer was on its way: others take these back.
            self.places.take(found.jobs)
        self.runner.unknown.tell()
        await self._follow(found, began)
        if found.trouble is not None:
            raise found.trouble
        return found

    def _after_acks(self, entries: list[tuple[Claimed, Ack]], found: Claims) -> None:
        lost = set(found.lost)
        for job, ack in entries:
            if job.id in lost:
                told = "job %s attempt %s: its outcome (%s) came too late; the job had been taken back"
                log.warning(told, job.id, job.attempt, ack.outcome, extra=about(job))
            elif self._settled is not None:
                self._settled(job, ack)
        for id in found.cancel:
            if (run := self.places.runs.get(id)) is not None:
                run.stop("cancelled")
        if found.lease_lost:
            self._lease_is_lost(self.id)

    async def _follow(self, found: Claims, began: float) -> None:
        """Do what the claim showed to be needed, and arm the timer."""
        now = self.clock.now()
        if self._heart is not None:
            self._heart.active(self.id if self.places.runs else 0, began, took=bool(found.jobs))
        if self.id == 0 and not self._stopping:
            await self._register()
            self._signal.set()
        times = [now + _LONGEST_SLEEP]
        if (others := await self._rescuer.after(found, now)) is not None:
            if others == now:
                # Put back just now and due, and no delivery may tell of it: BullMQ may have told of it before.
                self.looks.more = True
            times.append(others)
        if found.next_fire is not None and found.next_fire <= now + self._ahead and self._plan is not None:
            await self._plan(now + self._ahead)
            self._signal.set()
        if found.changed and self._changed is not None and await self._changed():
            # Not the signal alone: the write just heard would be taken for no reason to look.
            times.append(now)
        if found.lease_lost:
            # Not the signal alone here either: nothing was looked for under the new id yet.
            times.append(now)
        if found.next_eligible is not None and self.places.room > 0 and self.looks.timers:
            times.append(found.next_eligible - self._ahead)
        if found.unwritten:
            times.append(now + _UNWRITTEN_PAUSE)
        if self._hinted is not None:
            # Heard while the claim was under way, which may have been too early to see it.
            times.append(self._hinted - self._ahead)
        if found.next_fire is not None:
            times.append(found.next_fire - self._ahead)
        self._arm(min(times))

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
            return
        if not self.looks.timers and due > self.clock.now():
            return
        self._hinted = due if self._hinted is None else min(self._hinted, due)
        if self._armed is None or due - self._ahead < self._armed:
            self._arm(due - self._ahead)

    def _lease_is_lost(self, worker: int) -> None:
        if not worker or worker != self.id:
            return
        log.error(
            "worker %s lost its lease: %s taken back, and %d that had ended came too late to be "
            "recorded; it goes on under a new id",
            self.name,
            counted(len(self.places.runs), "job of it was", "jobs of it were"),
            len(self.places.acks),
        )
        self.id = 0
        self.recorder.leases_lost += 1
        self.places.lose()
        if self._life is not None:
            self._life.release()
            self._life = None
        self._signal.set()

    async def stop(self) -> None:
        """End: let running jobs finish within the grace, stop the others and give them back, then sign off."""
        self._stopping = True
        self.looks.close()
        self.places.give_waiting_back()
        await self._drain(self.options.grace)
        self.places.stop_all("shutdown")
        await self._drain(self.options.grace)
        self.places.give_up()
        try:
            await self._hand_in()
            if self.id:
                await self.store.unregister(self.id)
        except StoreError as error:
            log.error("signing off failed; the lease will end by itself: %s", error)
        if self._heart is not None:
            await self._heart.close()
        if self._timer is not None:
            self._timer.cancel()
        self.places.close()
        if self._life is not None:
            self._life.release()

    async def _drain(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.places.runs and (left := end - time.monotonic()) > 0:
            await self._hand_in()
            await self.places.next_end(min(left, _LOOK_WHILE_STOPPING))

    async def _hand_in(self) -> None:
        """Write what has ended, and hear of jobs that were cancelled meanwhile."""
        if self.id:
            try:
                await self.run_once()
            except StoreError as error:
                log.error("outcomes can't be written while stopping; trying on within the grace: %s", error)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
