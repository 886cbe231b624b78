"""A BullMQ queue as an adopter sees it: its waiting jobs, its events, and a removal that takes only what was read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from oncue.bridge.connect import bullmq_queue, connect, guarded_removal, prove_rights, stream_entries
from oncue.redis_link import driver
from oncue.redis_url import RedisUrl

Removal = Literal["removed", "begun", "gone"]

PAGE = 200
_EVENTS = 1000
_LONGEST_BLOCK_MS = 5_000
_LISTS, _SETS = ("wait", "paused"), ("delayed", "prioritized")
_COMING = frozenset({"added", "waiting", "delayed", "prioritized"})
# Put before BullMQ's own script that removes a job, which takes any of that id in any state. Another one that was
# added under the same id since must stay, and so must one that a Node worker has begun, also where it is to be tried
# again: the work may be half done.
_ONLY_AS_READ = """
local said = redis.call('HMGET', KEYS[1], 'timestamp', 'processedOn', 'finishedOn')
if said[1] ~= ARGV[4] then return -100 end
if said[2] or said[3] then return 0 end
"""
_GONE = -100


@dataclass(frozen=True, slots=True)
class Found:
    """A job as it was read. ``score``: its place among the delayed ones, None where it isn't delayed."""

    id: str
    fields: dict[str, str] = field(repr=False)
    score: float | None
    is_parent: bool

    @property
    def begun(self) -> bool:
        """Whether a Node worker has it, or had it."""
        return "processedOn" in self.fields or "finishedOn" in self.fields

    @property
    def timestamp(self) -> int:
        """When it was added, in milliseconds; 0 where that can't be read."""
        said = self.fields.get("timestamp", "")
        return int(said) if said.isascii() and said.isdigit() else 0

    @property
    def name(self) -> tuple[str, str]:
        """What tells it apart from every other job that the queue had."""
        return self.id, self.fields.get("timestamp", "")


class QueueLink:
    """The connection to one queue; ``name`` is ``PREFIX:QUEUE``. Every method raises one of ``errors``."""

    def __init__(self, url: RedisUrl, queue: str) -> None:
        """Raises ConfigError where the drivers aren't installed."""
        self.url, self.name = url, f"{url.prefix}:{queue}"
        driver("bullmq")
        self.errors: tuple[type[BaseException], ...] = (driver("redis").RedisError, OSError, TimeoutError)
        """What the methods raise where Redis can't be reached, or refuses."""
        self._queue = queue
        self._link: Any = None
        self._script: Any = None
        self._cluster = False
        self.remark: str | None = None
        """None, or what should be changed in the server's settings."""
        self._position = "0-0"
        self._at = 0
        self.cut_short = False
        """Whether the last walk through the waiting jobs left some out."""

    def _key(self, name: str) -> str:
        return f"{self.name}:{name}"

    async def connect(self) -> None:
        """Connect, unless that is so."""
        if self._link is not None:
            return
        link, server = await connect(self.url)
        self._script = guarded_removal(bullmq_queue(self.url, self._queue, link), link, _ONLY_AS_READ)
        self._link, self._cluster, self.remark = link, server.cluster, server.remark

    async def disconnect(self) -> None:
        """Disconnect."""
        link, self._link = self._link, None
        if link is not None:
            await asyncio.gather(link.aclose(), return_exceptions=True)

    async def prove(self) -> None:
        """Prove the rights that taking jobs out needs, changing nothing."""
        await prove_rights(self._link, self._key("oncue-proof"), adds=False)

    async def skip_events(self) -> None:
        """Begin to listen now: who looks through the queue next sees what was added before."""
        newest = await self._link.xrevrange(self._key("events"), count=1)
        self._position = newest[0][0] if newest else "0-0"

    async def heard(self, seconds: float) -> list[str] | None:
        """Return the ids of jobs that were added, waiting for the first of them up to so many seconds.

        None where events may have been missed, because BullMQ trimmed them away: look through the queue again.
        """
        block = max(1, min(_LONGEST_BLOCK_MS, int(seconds * 1000)))
        said = await self._link.xread({self._key("events"): self._position}, count=_EVENTS, block=block)
        entries = stream_entries(said)
        if not entries:
            return []
        if len(entries) == _EVENTS:
            oldest = await self._link.xrange(self._key("events"), count=1)
            if oldest and _order(oldest[0][0]) > _order(self._position):
                return None
        self._position = entries[-1][0]
        return list(dict.fromkeys(fields["jobId"] for _, fields in entries if fields.get("event") in _COMING))

    async def waiting(self, most: int | None = None) -> AsyncIterator[list[str]]:
        """Go through the ids of all jobs that wait, a page at a time. Say by `took` how many were taken out of it.

        ``most``: end with each list after so many; ``cut_short`` tells whether that was so.
        """
        self.cut_short = False
        # What becomes due meanwhile moves from the delayed ones to a list, so these come first.
        for name in (*_SETS, *_LISTS):
            self._at, read = 0, self._link.lrange if name in _LISTS else self._link.zrange
            while page := await read(self._key(name), self._at, self._at + PAGE - 1):
                if most is not None and self._at >= most:
                    self.cut_short = True
                    break
                self._at += len(page)
                yield page

    def took(self, count: int) -> None:
        """So many jobs of the last page are there no more: the next page begins earlier."""
        self._at -= count

    async def read(self, ids: Sequence[str]) -> tuple[str, list[Found]]:
        """Return the jobs of these ids that are there, and the place in the events before they were read."""
        try:
            async with self._link.pipeline(transaction=False) as pipe:
                pipe.xrevrange(self._key("events"), count=1)
                for id in ids:
                    pipe.hgetall(self._key(id))
                    pipe.zscore(self._key("delayed"), id)
                    pipe.exists(self._key(f"{id}:processed"), self._key(f"{id}:dependencies"))
                newest, *said = await pipe.execute()
        except UnicodeDecodeError:
            # One of them isn't text: the others must not suffer from it.
            return await self._read_apart(ids)
        found = [
            Found(id, fields, score, bool(parent))
            for id, fields, score, parent in zip(ids, said[::3], said[1::3], said[2::3], strict=True)
            if fields
        ]
        return newest[0][0] if newest else "0-0", found

    async def _read_apart(self, ids: Sequence[str]) -> tuple[str, list[Found]]:
        if len(ids) == 1:
            return "0-0", [Found(ids[0], {"data": "not UTF-8"}, None, is_parent=False)]
        half = len(ids) // 2
        position, found = await self.read(ids[:half])
        _, more = await self.read(ids[half:])
        return position, found + more

    async def remove(self, jobs: Sequence[Found]) -> list[Removal]:
        """Take jobs out of BullMQ, unless a Node worker has begun them or they are others by now."""
        asked = [
            {
                "keys": [self._key(one.id), self._key("repeat")],
                "args": [one.id, "0", self._key(""), one.fields["timestamp"]],
            }
            for one in jobs
        ]
        if self._cluster:
            said = [await self._script(**one) for one in asked]
        else:
            async with self._link.pipeline(transaction=False) as pipe:
                for one in asked:
                    await self._script(**one, client=pipe)
                said = await pipe.execute() if asked else []
        return ["removed" if answer == 1 else "gone" if answer == _GONE else "begun" for answer in said]

    async def begun_since(self, position: str, ids: Sequence[str]) -> set[str]:
        """Return those of these jobs, which are gone, that a Node worker has begun since a place in the events."""
        open_ids, begun = set(ids), set[str]()
        while open_ids:
            entries = await self._link.xrange(self._key("events"), min=f"({position}", count=_EVENTS)
            for at, fields in entries:
                position = at
                id, event = fields.get("jobId", ""), fields.get("event")
                if id in open_ids and event not in _COMING:
                    open_ids.discard(id)
                    if event != "removed":
                        begun.add(id)
            if len(entries) < _EVENTS:
                break
        return begun


def _order(position: str) -> tuple[int, int]:
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number or 0)
