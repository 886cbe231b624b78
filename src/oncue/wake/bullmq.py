"""Announcements of jobs as delayed jobs of BullMQ, and their deliveries."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from oncue.redis_link import Server, bullmq_options, driver, end, leave_open, tell_version
from oncue.redis_trouble import meaning
from oncue.redis_url import RedisUrl

log = logging.getLogger("oncue.wake")

Job = tuple[int, int]
Deliver = Callable[[int, int], Awaitable[bool]]
"""Has a delivered job (id, due) claimed; the answer is whether that was done, and with it the delivery."""

_TURN_MS = 10_000
_BATCH = 10
_TAKEN_AT_ONCE = 100
_ASKED_AT_ONCE = 200
_CLOSING = 2.0
_NUMBERED = re.compile(r"\S*[0-9]\S*")
_ID = re.compile(r"oc-([1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})")
# A delivery only waits for a claim, which serves all that are due. What a process leaves behind that dies meanwhile,
# others get after the lock's time. Of BullMQ's worker each place asks Redis again for each job, and when it is idle.
_WORKER = {
    "autorun": False, "concurrency": 8, "drainDelay": 10, "lockDuration": 15_000, "stalledInterval": 15_000,
    "maxStalledCount": 10, "runRetryDelay": 1_000,
}  # fmt: skip
# Beside timers little is delivered, and their leases and sweeps serve what stalls as well.
_BESIDE_TIMERS = {"concurrency": 1, "stalledInterval": 60_000}
# BullMQ's own script, which takes one job out of wherever it is, run for many in one command.
_TAKE_BACK = """local function remove(KEYS, ARGV)
%s
end
local count = 0
for place = 2, #ARGV do
    local key = ARGV[1] .. ARGV[place]
    if redis.call("EXISTS", key) == 1 and remove({key, KEYS[1]}, {ARGV[place], "0", ARGV[1]}) == 1 then
        count = count + 1
    end
end
return count
"""


@dataclass(slots=True)
class Stats:
    """Counts since the start, for metrics."""

    hints: int = 0
    """Hints of other processes that were heard."""
    announced: int = 0
    taken_back: int = 0
    """Announcements that were taken out of BullMQ before it delivered them: a timer claimed their job, or it moved."""
    delivered: int = 0
    stale: int = 0
    """Deliveries of jobs that had been looked for already, as nearly all are where workers have timers."""
    lost: int = 0
    """Announcements that weren't in Redis any more before they were due."""
    reconnects: int = 0
    """How often it was tried to connect again."""


class Carrier:
    """A BullMQ queue that carries announcements. Between ``connect`` and ``disconnect`` it is ``ready``."""

    def __init__(self, url: RedisUrl, stats: Stats, failed: Callable[[BaseException], None]) -> None:
        self._url, self.stats, self._failed = url, stats, failed
        self._token = secrets.token_hex(8)
        self._link: Any = None
        self._cluster = False
        self._queue: Any = None
        self._remove: Any = None
        self._worker: Any = None
        self._running: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._deliver: Deliver | None = None
        self._server: Server | None = None
        self._warned = False
        self._told: set[str] = set()
        self.problem: str | None = None
        """What keeps jobs from being announced, though the server answers; None where nothing does."""
        self.epoch = 0
        """Moves on with every new connection: what was announced before may be gone."""

    @property
    def remark(self) -> str | None:
        """None, or what should be changed in the server's settings."""
        return None if self._server is None else self._server.remark

    def worked(self, error: BaseException | None) -> None:
        """Note whether what comes could be announced: None where it could."""
        if error is None:
            self.problem = None
        else:
            self.problem = f"Jobs can't be announced to BullMQ at {self._url.shown}: {meaning(error, self._url)}."

    @property
    def ready(self) -> bool:
        """Whether jobs can be announced now."""
        return self._queue is not None

    def connect(self, link: Any, server: Server) -> None:
        """Work over a connection that is proved."""
        self._link, self._server, self._cluster = link, server, server.cluster
        self._queue = driver("bullmq").Queue(self._url.queue, bullmq_options(self._url, link))
        self._remove = link.register_script(_TAKE_BACK % self._queue.backend.connection.commands["removeJob"].script)
        self.epoch += 1
        if self._deliver is not None:
            self._begin()

    async def disconnect(self) -> None:
        """Stop working at once; the connection, which may be broken, is closed by whoever made it."""
        self._queue, self.problem = None, None
        await self._end(force=True)

    async def receive(self, deliver: Deliver) -> None:
        """Have ``deliver`` called for each job that BullMQ says is due, until `forget`."""
        self._deliver = deliver
        if self.ready and self._worker is None:
            self._begin()

    async def forget(self) -> None:
        """Take no more deliveries; those under way are waited for, or left to other processes."""
        self._deliver = None
        await self._end(force=not self.ready)

    async def _end(self, *, force: bool) -> None:
        worker, running, self._worker, self._running = self._worker, self._running, None, None
        if worker is not None and running is not None:
            self._closing = asyncio.create_task(_close(worker, running, force=force))
        if self._closing is not None:
            # Whoever waits for it may be cancelled. Left half closed, BullMQ's worker would hold up the loop's end.
            await asyncio.shield(self._closing)

    def _begin(self) -> None:
        options = {**bullmq_options(self._url, self._link), **_WORKER, **(_BESIDE_TIMERS if self._url.timers else {})}
        self._worker = worker = driver("bullmq").Worker(self._url.queue, self._process, options)
        self._running = self._run(worker)

    def _run(self, worker: Any) -> asyncio.Task[None]:
        assert self._server is not None
        leave_open(worker)
        tell_version(worker, self._server)
        lost = worker.isConnectionError
        worker.on("error", lambda error, *_: self._failed(error) if lost(error) else self._tell(error))
        return asyncio.create_task(worker.run())

    def _tell(self, error: BaseException) -> None:
        """Say what BullMQ complains about, once: after a FLUSHALL it does so for each job that it held."""
        text = _NUMBERED.sub("...", str(error))
        if text not in self._told:
            self._told.add(text)
            log.warning("BullMQ says about the queue %s: %s.", self._url.queue, meaning(error, self._url))

    async def _process(self, job: Any, _token: str) -> None:
        """End a BullMQ job once a claim was made for it; leave it to others where none can be made."""
        found = _ID.fullmatch(str(job.id))
        if found is None:
            self._warn_of(job)
            raise driver("bullmq").UnrecoverableError(
                f"The queue {self._url.queue!r} carries deliveries of OnCue. Add other jobs to another queue, or give "
                "OnCue's a name of its own: wake='redis://...?queue=NAME'."
            )
        self.stats.delivered += 1
        deliver = self._deliver
        if deliver is None or not await deliver(int(found[1]), int(found[2])):
            # It stays active, and is delivered again when its lock has ended.
            raise driver("bullmq.custom_errors").DelayedError

    def _warn_of(self, job: Any) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "The queue %s of %s, which carries OnCue's deliveries, got a job that is none: %s (%s). It is failed, "
                "not run. Use another queue for one of the two: wake='redis://...?queue=NAME'.",
                self._url.queue,
                self._url.shown,
                job.id,
                job.name,
            )

    async def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """Return those of ``jobs`` that don't wait in BullMQ for their time. Raises what the driver raises."""
        key, found = self._queue.toKey("delayed"), []
        for begin in range(0, len(jobs), _ASKED_AT_ONCE):
            part = jobs[begin : begin + _ASKED_AT_ONCE]
            scores = await self._link.zmscore(key, [_name(one) for one in part])
            found += [one for one, score in zip(part, scores, strict=True) if score is None]
        return found

    async def take_turn(self) -> float:
        """Return 0 where it is this process's turn to announce, which it stays for some seconds, else when to ask
        again. Raises what the driver raises."""
        key = self._queue.toKey("oncue-turn")
        if await self._link.set(key, self._token, nx=True, px=_TURN_MS):
            return 0.0
        if await self._link.get(key) == self._token:
            await self._link.pexpire(key, _TURN_MS)
            return 0.0
        left = await self._link.pttl(key)
        return float(max(int(left), 50)) / 1000

    async def end_turn(self) -> None:
        """Let others announce at once, where it is this process's turn."""
        if self.ready:
            key = self._queue.toKey("oncue-turn")
            if await self._link.get(key) == self._token:
                await self._link.delete(key)

    async def announce(self, jobs: Sequence[Job], now: int) -> None:
        """Add jobs to BullMQ, to be delivered when they are due. What is there already stays as it is.

        Raises what the driver raises.
        """
        # The delays count from here, however long it takes to add them all.
        since = time.time_ns() // 1_000_000
        for begin in range(0, len(jobs), _BATCH):
            part = jobs[begin : begin + _BATCH]
            entries = [
                {"name": f"job {id}", "data": {"id": id, "due": due}, "opts": {
                    "jobId": _name((id, due)), "delay": max(0, (due - now) // 1000), "removeOnComplete": True,
                    "removeOnFail": True, "timestamp": since,
                }}
                for id, due in part
            ]  # fmt: skip
            await self._add(self._queue, entries)
            self.stats.announced += len(part)

    async def _add(self, queue: Any, entries: list[dict[str, Any]]) -> None:
        if self._cluster:
            for one in entries:
                await queue.add(one["name"], one["data"], one["opts"])
        else:
            await queue.addBulk(entries)

    async def take_back(self, jobs: Sequence[Job]) -> None:
        """Take announcements out of BullMQ as it does itself; what isn't there, or is being delivered, stays as it is.

        Raises what the driver raises.
        """
        for begin in range(0, len(jobs), _TAKEN_AT_ONCE):
            if not self.ready:
                return
            names = [_name(one) for one in jobs[begin : begin + _TAKEN_AT_ONCE]]
            keys, prefix = [self._queue.toKey("repeat")], self._queue.toKey("")
            self.stats.taken_back += int(await self._remove(keys=keys, args=[prefix, *names]))

    async def prove(self, within: float) -> None:
        """Send a job to ourselves through BullMQ, over a queue beside the real one. Raises what goes wrong."""
        options, name = bullmq_options(self._url, self._link), f"{self._url.queue}-doctor-{secrets.token_hex(8)}"
        arrived = asyncio.Event()

        async def process(_job: Any, _token: str) -> None:
            arrived.set()

        bullmq = driver("bullmq")
        queue, worker = bullmq.Queue(name, options), bullmq.Worker(name, process, {**options, **_WORKER})
        running = self._run(worker)
        try:
            async with asyncio.timeout(within):
                # The real queue has keys of its own, for which a user may lack the rights.
                await self.missing([(0, 0)])
                await self.take_back([(0, 0)])
                proof = {
                    "name": "proof",
                    "data": {},
                    "opts": {"delay": 10, "jobId": "oc-proof", "removeOnComplete": True},
                }
                await self._add(queue, [proof])
                await arrived.wait()
        finally:
            # Whoever waits may be cancelled, and then neither BullMQ's worker nor the queue is left behind.
            await asyncio.shield(asyncio.create_task(_clear_up(queue, worker, running)))


def _name(job: Job) -> str:
    return f"oc-{job[0]}-{job[1]}"


async def _clear_up(queue: Any, worker: Any, running: asyncio.Task[None]) -> None:
    await _close(worker, running, force=False)
    await queue.obliterate(force=True)


async def _close(worker: Any, running: asyncio.Task[None], *, force: bool) -> None:
    """End a BullMQ worker: by itself within a moment, else by force, as where its server hangs."""
    closing = asyncio.create_task(worker.close(force))
    _, late = await asyncio.wait({closing}, timeout=_CLOSING)
    if late:
        await worker.close(force=True)
    await asyncio.gather(closing, return_exceptions=True)
    await end(running)
