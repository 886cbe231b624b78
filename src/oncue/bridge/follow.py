"""Following jobs in a BullMQ queue to their end: its events are hints, the job's own keys tell what is so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from oncue.bridge.connect import bullmq_queue, connect, guarded_removal, stream_entries
from oncue.redis_link import driver
from oncue.redis_trouble import meaning
from oncue.redis_url import RedisUrl

log = logging.getLogger("oncue.bridge")

State = Literal["gone", "waiting", "active", "dead", "completed", "failed"]

_FIELDS = ("name", "finishedOn", "returnvalue", "failedReason", "stacktrace", "progress", "processedOn", "stc")
_PART = 100
_EVENTS = 1000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
# Put before BullMQ's own script that removes a job: it may still be locked, or have ended with an outcome to keep.
_UNLESS_TAKEN = """
if redis.call('EXISTS', KEYS[1] .. ':lock') == 1 or redis.call('HEXISTS', KEYS[1], 'finishedOn') == 1 then return 0 end
"""
_THOUGH_TAKEN = """
if redis.call('HEXISTS', KEYS[1], 'finishedOn') == 1 then return 0 end
redis.call('DEL', KEYS[1] .. ':lock')
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """How often what is done, in seconds."""

    look: float = 10.0
    """So long nothing may be heard of a job before its keys are looked at: a FLUSHALL is noticed by then."""
    first_look: float = 1.0
    """So long after a job began, to learn how long its lock lasts."""
    after_lock: float = 0.05
    unknown_lock: float = 30.0
    """So long a lock is taken to last that vanished before it was looked at: BullMQ's own default."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a job's keys say. ``dead``: a Node worker had it, and the lock that it has to renew has ended."""

    state: State
    lock: float = 0.0
    """Seconds until the lock ends, if it is not renewed."""
    value: str | None = None
    """The result as JSON, or why it failed."""
    stack: str | None = None
    progress: str | None = None


class Followed:
    """A job whose end somebody waits for."""

    def __init__(self, id: str, timing: Timing) -> None:
        self.id, self._timing = id, timing
        self.state: State = "waiting"
        self.progress: str | None = None
        self.end: Seen | None = None
        self.began = False
        """Whether a Node worker was seen to have it."""
        self.lock_until = 0.0
        self.next_look = 0.0
        self.placed = float("inf")
        """Since when it is known to be in BullMQ (monotonic seconds): before that it isn't missed."""
        self.changed = asyncio.Event()

    def saw(self, seen: Seen) -> None:
        """Take over what the job's keys say."""
        now = time.monotonic()
        if seen.state != "gone":
            self.placed = min(self.placed, now)
        self.state, self.next_look = seen.state, now + self._timing.look
        if seen.state in ("completed", "failed"):
            self.end = seen
        elif seen.state == "active":
            self.began, self.lock_until = True, now + seen.lock
            self.next_look = min(self.next_look, self.lock_until + self._timing.after_lock)
        elif seen.state == "dead":
            self.began = True
        if seen.progress is not None:
            self.progress = seen.progress
        self.changed.set()

    def heard(self, event: str, fields: dict[str, str]) -> bool:
        """Take over what an event says; tell whether the job's keys must be looked at for the rest."""
        now = time.monotonic()
        if event == "active":
            self.began, self.lock_until = True, now + self._timing.unknown_lock
            self.next_look = min(self.next_look, now + self._timing.first_look)
        elif event == "progress":
            self.progress = fields.get("data")
            self.changed.set()
        elif event == "completed":
            self.end = Seen("completed", value=fields.get("returnvalue"))
            self.changed.set()
        elif event == "failed":
            # Its keys know the stack as well; should they be gone, this is what is known.
            self.end = Seen("failed", value=fields.get("failedReason"))
            return True
        return event in ("stalled", "removed") or (event == "waiting" and fields.get("prev") == "active")


class NodeQueue:
    """A BullMQ queue whose workers run in Node, as one process sees it: one connection, one reader of its events."""

    def __init__(self, url: RedisUrl, name: str, timing: Timing | None = None) -> None:
        """Raises ConfigError where the drivers aren't installed."""
        self.url, self.name, self.timing = url, name, timing or Timing()
        self.errors: tuple[type[BaseException], ...] = (driver("redis").RedisError, OSError, TimeoutError)
        """What the methods raise where Redis can't be reached, or refuses."""
        self._link: Any = None
        self._queue: Any = None
        self._withdraw: Any = None
        self._revoke: Any = None
        self._door = asyncio.Lock()
        self._followed: dict[str, Followed] = {}
        self._unwanted: set[str] = set()
        self._wanted = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._position: str | None = None
        self._down_since: float | None = None
        self._refuses = False
        """Whether it answers but takes no job, as when its memory is full: then it doesn't work yet."""

    async def close(self) -> None:
        """Follow nothing any more, and disconnect."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._link is not None:
            await asyncio.gather(self._link.aclose(), return_exceptions=True)

    def failed(self, error: BaseException) -> float:
        """Note that Redis didn't do what was asked; return for how many seconds that has been so."""
        now = time.monotonic()
        if self._down_since is None:
            self._down_since = now
            log.warning(
                "Redis at %s fails (%s): jobs for the queue %s wait until it works again",
                self.url.shown,
                meaning(error, self.url),
                self.name,
            )
        return now - self._down_since

    def _worked(self) -> None:
        if self._down_since is not None and not self._refuses:
            log.info("Redis at %s works again after %.1f s", self.url.shown, time.monotonic() - self._down_since)
            self._down_since = None

    async def _connected(self) -> Any:
        async with self._door:
            if self._queue is None:
                link, _ = await connect(self.url)
                queue = bullmq_queue(self.url, self.name, link)
                self._withdraw = guarded_removal(queue, link, _UNLESS_TAKEN)
                self._revoke = guarded_removal(queue, link, _THOUGH_TAKEN)
                self._link, self._queue = link, queue
        return self._link

    async def add(self, id: str, name: str, data: Any, keep: dict[str, int]) -> None:
        """Add a job, unless one of that id is there. Raises one of ``errors``."""
        await self._connected()
        try:
            await self._queue.add(
                name, data, {"jobId": id, "attempts": 1, "removeOnComplete": keep, "removeOnFail": keep}
            )  # fmt: skip
        except driver("redis").ResponseError:
            self._refuses = True
            raise
        self._refuses = False
        self._worked()

    async def withdraw(self, id: str) -> bool:
        """Remove a job unless a Node worker holds it or has ended it; tell whether that was so. Raises ``errors``."""
        await self._connected()
        return await self._remove(self._withdraw, id)

    async def revoke(self, id: str) -> bool:
        """Remove a job unless it has ended, its worker's lock too: BullMQ then refuses what that worker brings.

        Raises one of ``errors``.
        """
        await self._connected()
        return await self._remove(self._revoke, id)

    def revoke_later(self, id: str) -> None:
        """Have a job revoked as soon as Redis works again, if this process lives to see that."""
        self._unwanted.add(id)
        self._read_on()

    async def _remove(self, script: Any, id: str) -> bool:
        key = self._queue.toKey
        removed = await script(keys=[key(id), key("repeat")], args=[id, "0", key("")])
        self._worked()
        return bool(removed)

    async def look(self, ids: Sequence[str]) -> list[Seen]:
        """Return what the keys of jobs say. Raises one of ``errors``."""
        link = await self._connected()
        key, found = self._queue.toKey, []
        for begin in range(0, len(ids), _PART):
            part = ids[begin : begin + _PART]
            async with link.pipeline(transaction=True) as pipe:
                for id in part:
                    pipe.hmget(key(id), _FIELDS)
                    pipe.pttl(key(id) + ":lock")
                    pipe.zscore(key("failed"), id)
                    pipe.lpos(key("active"), id)
                said = await pipe.execute()
            found += [_seen(*said[at : at + 4]) for at in range(0, len(said), 4)]
            self._worked()
        return found

    async def look_at(self, jobs: Iterable[Followed]) -> None:
        """Bring followed jobs up to date. Raises one of ``errors``."""
        each, began = [job for job in jobs if self._followed.get(job.id) is job], time.monotonic()
        for job, seen in zip(each, await self.look([job.id for job in each]), strict=True):
            if seen.state == "gone" and job.end is not None:
                job.changed.set()
            elif seen.state == "gone" and began < job.placed:
                # It was, or will be, added after this look began.
                job.next_look = time.monotonic() + self.timing.look
            else:
                job.saw(seen)

    @contextlib.contextmanager
    def following(self, id: str) -> Iterator[Followed]:
        """Follow a job for the length of a ``with`` block."""
        job = self._followed[id] = Followed(id, self.timing)
        job.next_look = time.monotonic() + self.timing.look
        self._read_on()
        try:
            yield job
        finally:
            if self._followed.get(id) is job:
                del self._followed[id]

    def _read_on(self) -> None:
        self._wanted.set()
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                if not self._followed and not self._unwanted:
                    self._position = None
                    self._wanted.clear()
                    await self._wanted.wait()
                await self._catch_up()
                pause = _FIRST_PAUSE
                while self._followed and not self._unwanted:
                    await self._listen()
            except self.errors as error:
                self.failed(error)
            except UnicodeDecodeError:
                # Somebody's event isn't text: leave it out, and look instead.
                self._position = None
            except Exception:
                log.exception("OnCue itself failed over the events of %s; trying on", self.name)
            else:
                continue
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _catch_up(self) -> None:
        """Hear what was missed since the connection broke, then look at everything: the stream may be another one."""
        link = await self._connected()
        for id in list(self._unwanted):
            await self.revoke(id)
            self._unwanted.discard(id)
        if self._position is None:
            newest = await link.xrevrange(self._queue.toKey("events"), count=1)
            self._position = newest[0][0] if newest else "0-0"
        while await self._hear(None):
            pass
        await self.look_at(list(self._followed.values()))

    async def _listen(self) -> None:
        now = time.monotonic()
        first = min(job.next_look for job in self._followed.values())
        await self._hear(max(1, min(5000, int((first - now) * 1000))))
        now = time.monotonic()
        await self.look_at([job for job in self._followed.values() if job.next_look <= now])

    async def _hear(self, block: int | None) -> bool:
        """Read some events, waiting for the first up to ``block`` ms; tell whether there may be more by now."""
        said = await self._link.xread({self._queue.toKey("events"): self._position}, count=_EVENTS, block=block)
        entries = stream_entries(said)
        unclear: dict[str, Followed] = {}
        for position, fields in entries:
            self._position = position
            job = self._followed.get(fields.get("jobId", ""))
            if job is not None and job.heard(fields.get("event", ""), fields):
                unclear[job.id] = job
        if unclear:
            await self.look_at(unclear.values())
        return len(entries) == _EVENTS


def _seen(fields: Sequence[str | None], lock: int, failed: str | None, at: int | None) -> Seen:
    name, ended, result, reason, stack, progress, began, stalled = fields
    if name is None:
        return Seen("gone")
    if ended is not None:
        if failed is not None:
            return Seen("failed", value=reason, stack=_stack(stack), progress=progress)
        return Seen("completed", value=result, progress=progress)
    if lock != -2:
        return Seen("active", lock=max(lock, 0) / 1000, progress=progress)
    # BullMQ itself puts a job back whose lock has ended, and counts that. A processor may put its job back as well.
    dead = began is not None and (at is not None or int(stalled or 0) > 0)
    return Seen("dead" if dead else "waiting", progress=progress)


def _stack(text: str | None) -> str | None:
    """Return the last of the stacks that BullMQ keeps as a JSON list."""
    try:
        stacks = json.loads(text or "[]")
    except ValueError:
        return text
    return str(stacks[-1]) if isinstance(stacks, list) and stacks else None
