"""Adopting: jobs that Node adds to a BullMQ queue are stored as OnCue's own, then taken out of BullMQ."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from oncue.bridge.handoff import default_redis, target_of
from oncue.bridge.nodejob import NodeJob, Refused, StaysWithNode, read, to_store
from oncue.bridge.queuelink import PAGE, Found, QueueLink
from oncue.clock import SECOND, Clock
from oncue.errors import ConfigError, OnCueError
from oncue.job import NewJob
from oncue.redis_trouble import meaning
from oncue.redis_url import RedisUrl
from oncue.scheduling import Scheduled
from oncue.store import Adopted, Adoption, Store
from oncue.task import Call
from oncue.wake import Wake

log = logging.getLogger("oncue.bridge")

Choose = Callable[[NodeJob], Call[Any] | Scheduled | None]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_NOTED = 10_000
_FORGET_BATCH, _FORGET_MOST = 5_000, 20
_EXAMINED = 2_000


@dataclass(slots=True)
class Counts:
    """What was done with a queue's jobs since this process began: ``.counts`` of each of ``app.adoptions``."""

    adopted: int = 0
    """Jobs stored and taken out of BullMQ."""
    again: int = 0
    """Jobs that were stored before and lay in BullMQ again, or still: taken out without storing them once more."""
    left: int = 0
    """Jobs that the function left to Node, and those of a kind that is left to Node."""
    refused: int = 0
    """Jobs that stay in BullMQ because the function raised, or because they can't be stored."""
    begun: int = 0
    """Jobs that a Node worker had begun before they could be taken out: what was stored for them was cancelled."""
    doubled: int = 0
    """Jobs that a Node worker had begun, and OnCue as well."""


@dataclass(slots=True)
class Waiting:
    """What lies in a queue and no Node worker has begun; at most 2,000 of each of BullMQ's lists are looked at."""

    wanted: int = 0
    """Jobs that are to be adopted."""
    age: float = 0.0
    """For how many seconds the first of them has been there, by the producer's clock."""
    ahead: float = 0.0
    """How many seconds after now one of them was added: so much is that clock ahead."""
    left: int = 0
    """Jobs that are left to Node."""
    refused: int = 0
    why: str = ""
    """Why the first of these is refused."""
    more: bool = False
    """Whether there are more than were looked at."""
    remark: str | None = None
    """What should be changed in the server's settings."""


@dataclass(frozen=True, slots=True)
class Adoptions:
    """A declared adoption: see ``OnCue.adopt``."""

    queue: str
    redis: RedisUrl | None
    prefix: str | None
    choose: Choose
    counts: Counts = field(default_factory=Counts, compare=False)

    def url(self, wake: str | None) -> RedisUrl:
        """Return where the queue is. Raises ConfigError where no Redis is known."""
        url = default_redis(wake) if self.redis is None else self.redis
        if url is None:
            raise ConfigError(
                f"No Redis is known for the BullMQ queue {self.queue!r}. Say redis='redis://host:6379' in @app.adopt, "
                "or wake='redis://...' in OnCue, or set REDIS_URL."
            )
        return url if self.prefix is None else replace(url, prefix=self.prefix)


def adoption_of(queue: str, redis: str | None, prefix: str | None, choose: Choose) -> Adoptions:
    """Check a declaration and return it. Raises ConfigError."""
    target = target_of(queue, redis, prefix, "")
    given: object = choose
    if not callable(given) or inspect.iscoroutinefunction(choose):
        raise ConfigError(f"@app.adopt takes a plain function of a NodeJob, without async; {choose!r} is none.")
    return Adoptions(target.queue, target.redis, target.prefix, choose)


class Adopter:
    """Adopts the jobs of one queue. Any number of processes may do so for the same queue.

    It looks through the queue when it connects and once a sweep, and hears its events in between.
    """

    def __init__(
        self,
        adoption: Adoptions,
        wake_url: str | None,
        store: Store,
        wake: Wake,
        clock: Clock,
        retention: int | None,
        sweep_us: int,
    ) -> None:
        """Raises ConfigError where no Redis is known, or its drivers aren't installed."""
        self.counts = adoption.counts
        self._choose, self._queue = adoption.choose, adoption.queue
        self._link = QueueLink(adoption.url(wake_url), adoption.queue)
        self._store, self._wake, self._clock = store, wake, clock
        self._retention, self._sweep = retention, sweep_us / SECOND
        self._noted: OrderedDict[object, None] = OrderedDict()
        self._down = False
        self.scanned = asyncio.Event()
        """Set once the queue was looked through, and cleared while Redis or the database can't be reached."""

    async def run(self) -> None:
        """Adopt until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self.run_once()
                self.scanned.set()
                if self._down:
                    self._down = False
                    log.info("Jobs of the BullMQ queue %s are adopted again.", self._link.name)
                pause = _FIRST_PAUSE
                until = time.monotonic() + self._sweep
                while (left := until - time.monotonic()) > 0:
                    ids = await self._link.heard(left)
                    if ids is None:
                        break
                    for begin in range(0, len(ids), PAGE):
                        await self._adopt(ids[begin : begin + PAGE])
            except Exception as error:
                self.scanned.clear()
                self.failed(error)
                await self._link.disconnect()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def failed(self, error: Exception) -> None:
        """Say that Redis or the database can't be reached, once until they can."""
        if not self._down:
            self._down = True
            known = isinstance(error, (*self._link.errors, OnCueError))
            log.warning(
                "Jobs of the BullMQ queue %s at %s can't be adopted just now, so they wait there: %s",
                self._link.name,
                self._link.url.shown,
                meaning(error, self._link.url),
                exc_info=None if known else error,
            )

    async def run_once(self) -> int:
        """Look through the whole queue once, and adopt what is there; return how many jobs were taken out of it.

        Raises what the driver raises where Redis can't be reached, or a StoreError.
        """
        await self._link.connect()
        await self._link.skip_events()
        began, taken = self._clock.now(), 0
        async for ids in self._link.waiting():
            gone = await self._adopt(ids, scanning=True)
            self._link.took(gone)
            taken += gone
        # Whatever was remembered before now, and still lay in Redis, was met and taken out.
        for _ in range(_FORGET_MOST):
            if await self._store.forget_adopted(self._link.name, began, _FORGET_BATCH) < _FORGET_BATCH:
                break
        return taken

    async def close(self) -> None:
        """Disconnect."""
        await self._link.disconnect()

    async def _adopt(self, ids: Sequence[str], *, scanning: bool = False) -> int:
        """Store and take out those of these jobs that are to be adopted; return how many were taken out."""
        if not ids:
            return 0
        position, found = await self._link.read(ids)
        offered = [(one, self._offer(one)) for one in found if not one.begun]
        if not scanning:
            # A scan also asks for those that nobody wants any more: they may have been stored in another life.
            offered = [(one, offer) for one, offer in offered if offer.job is not None]
        if not offered:
            return 0
        offers = [offer for _, offer in offered]
        answers = await self._store.adopt(self._link.name, offers, self._clock.now())
        if due := [offer.job.scheduled_at for offer in offers if offer.job is not None]:
            self._wake.hint(min(due))
        stored = [(one, answer) for (one, _), answer in zip(offered, answers, strict=True) if answer is not None]
        return await self._take_out(position, stored)

    def _offer(self, found: Found) -> Adoption:
        """Ask the function what a job becomes. Without a job in the answer, it stays with Node."""
        offer = Adoption(found.id, found.timestamp, None)
        try:
            job = self._decide(found)
            if job is not None:
                return offer._replace(job=job)
            self.counts.left += self._note(found.name)
        except StaysWithNode as error:
            self.counts.left += self._note(found.name)
            if self._note(error.kind):
                log.warning("The BullMQ queue %s has %s. They are left to Node.", self._link.name, error.kind)
        except Exception as error:
            if self._note(found.name):
                self.counts.refused += 1
                log.error("Job %r of the BullMQ queue %s stays there: %s", found.id, self._link.name, _reason(error))
        return offer

    def _decide(self, found: Found) -> NewJob | None:
        """Return what is to be stored, or None. Raises StaysWithNode, Refused, and what the function raises."""
        job = read(self._queue, found.id, found.fields, found.score, is_parent=found.is_parent)
        chosen = self._choose(job)
        return None if chosen is None else to_store(job, chosen, self._clock.now())

    async def examine(self) -> Waiting:
        """Look at what waits, and adopt nothing. Raises what the driver raises where Redis can't be reached."""
        await self._link.connect()
        await self._link.prove()
        waiting, now = Waiting(), self._clock.now() / SECOND
        async for ids in self._link.waiting(most=_EXAMINED):
            _, found = await self._link.read(ids)
            for one in found:
                if not one.begun:
                    self._weigh(one, now, waiting)
        waiting.more, waiting.remark = self._link.cut_short, self._link.remark
        return waiting

    def _weigh(self, found: Found, now: float, waiting: Waiting) -> None:
        try:
            wanted = self._decide(found) is not None
        except StaysWithNode:
            wanted = False
        except Exception as error:
            waiting.refused += 1
            waiting.why = waiting.why or f"job {found.id!r}: {_reason(error)}"
            return
        waiting.wanted += wanted
        waiting.left += not wanted
        if wanted:
            age = now - found.timestamp / 1000
            waiting.age, waiting.ahead = max(waiting.age, age), max(waiting.ahead, -age)

    def _note(self, what: object) -> bool:
        """Tell whether this is the first that is heard of it, as far as that is remembered."""
        if what in self._noted:
            self._noted.move_to_end(what)
            return False
        self._noted[what] = None
        if len(self._noted) > _NOTED:
            self._noted.popitem(last=False)
        return True

    async def _take_out(self, position: str, stored: Sequence[tuple[Found, Adopted]]) -> int:
        outcomes = await self._link.remove([found for found, _ in stored])
        missing = [found.id for (found, _), how in zip(stored, outcomes, strict=True) if how == "gone"]
        begun = await self._link.begun_since(position, missing) if missing else set()
        taken = 0
        for (found, answer), how in zip(stored, outcomes, strict=True):
            if how == "begun" or found.id in begun:
                await self._give_back(found, answer)
                continue
            taken += 1
            if answer.new:
                self.counts.adopted += 1
            else:
                self.counts.again += how == "removed"
        return taken

    async def _give_back(self, found: Found, answer: Adopted) -> None:
        """A Node worker was faster: it has the job, so what was stored for it must not run, too."""
        now = self._clock.now()
        expires = None if self._retention is None else now + self._retention
        if await self._store.disown(self._link.name, found.id, found.timestamp, now, expires):
            self.counts.begun += 1
            log.warning(
                "A Node worker began job %r of the BullMQ queue %s before OnCue could take it out, so Node runs it and "
                "job %s of OnCue is cancelled. Stop the Node workers of a queue that is adopted, or have the function "
                "return None for what is theirs.",
                found.id,
                self._link.name,
                answer.job,
            )
        elif self._note(("doubled", *found.name)):
            self.counts.doubled += 1
            log.error(
                "A Node worker has begun job %r of the BullMQ queue %s, and job %s of OnCue, which stands for it, has "
                "begun as well: it may be done twice. Stop the Node workers of a queue that is adopted.",
                found.id,
                self._link.name,
                answer.job,
            )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
