"""Storing jobs on PostgreSQL: callers who wait together share one statement, and one commit."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from oncue.errors import StoreBusy
from oncue.job import Inserted, NewJob
from oncue.store.postgres.connection import ROW_WAIT, Connection, on
from oncue.store.postgres.run import named
from oncue.store.steps.insert import insert_jobs

if TYPE_CHECKING:
    from oncue.store.postgres import PostgresStore

# The last is when the patience is over, on the monotonic clock.
_Asked = tuple[NewJob, "asyncio.Future[Inserted]", float]
_MOST = 1_000
# So many transactions at once store contested keys, one each; in its first turn each waits so many seconds for a lock,
# that those whose keys are free after all have theirs soon.
_SETTLERS = 2
_SHORT_WAIT = 0.05
_CHUNK = 2_000
_ALWAYS = ("task", "queue", "priority", "scheduled_at", "max_attempts", "created_at", "when_late")
_SOMETIMES = {"group_name": "group", "max_late": "max_late", "metadata": "metadata"}


def is_plain(job: NewJob) -> bool:
    """Tell whether nothing can stand in the way of this job's row."""
    return job.key is None and job.origin is None and job.when_blocked == "wait"


def _columns(jobs: Sequence[NewJob]) -> dict[str, Any]:
    """Return these jobs' columns as ``insert_plain`` takes them."""
    columns: dict[str, Any] = {"args": [job.args for job in jobs]}
    for name in _ALWAYS:
        values = list(map(attrgetter(name), jobs))
        columns[name] = values[:1] if values.count(values[0]) == len(values) else values
    for name, attribute in _SOMETIMES.items():
        values = list(map(attrgetter(attribute), jobs))
        columns[name] = [] if values.count(None) == len(values) else values
    return columns


class Inserter:
    """Gathers single calls while a commit is under way, and stores sets in as few statements as it can.

    Where somebody's open transaction holds a key, those who asked with others in the same commit need not wait for it:
    each key of such a set is stored in a transaction of its own, and until that is done, later calls with the key go
    behind it.
    """

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._waiting: dict[bool, list[_Asked]] = {True: [], False: []}
        self._writing: dict[bool, asyncio.Task[None] | None] = {True: None, False: None}
        self._contested: dict[str | None, list[_Asked]] = {}
        self._turns: deque[tuple[str | None, int]] = deque()
        self._settling: list[asyncio.Task[None]] = []

    async def insert(self, job: NewJob) -> Inserted:
        """Store one job. Jobs with keys have a queue of their own: they take longer."""
        return await on(self._store.pool.loop, lambda: self._insert(job))

    async def finish(self) -> None:
        """Wait until what was handed in is stored."""
        while busy := [one for one in (*self._writing.values(), *self._settling) if one is not None and not one.done()]:
            await asyncio.wait(busy)

    async def _insert(self, job: NewJob) -> Inserted:
        future: asyncio.Future[Inserted] = asyncio.get_running_loop().create_future()
        plain = is_plain(job)
        self._waiting[plain].append((job, future, time.monotonic() + self._store.patience))
        task = self._writing[plain]
        if task is None or task.done():
            self._writing[plain] = asyncio.create_task(self._write(plain))
        return await future

    async def _write(self, plain: bool) -> None:
        # Whoever calls in this round of the loop comes along.
        await asyncio.sleep(0)
        while self._waiting[plain]:
            asked = self._waiting[plain][:_MOST]
            del self._waiting[plain][:_MOST]
            if plain:
                await self._store_all(asked)
                continue
            behind = [one for one in asked if one[0].key in self._contested]
            free = [one for one in asked if one[0].key not in self._contested]
            if free and await self._store_all(free, ROW_WAIT) is not None:
                behind += free
            self._set_apart(behind)

    async def _store_all(self, asked: Sequence[_Asked], lock_wait: float | None = None) -> StoreBusy | None:
        """Store these in one transaction and answer those who asked. Return why not, where others hold a lock for
        longer than ``lock_wait``, in seconds: then nobody was answered."""
        try:
            done = await self._store_many([job for job, _, _ in asked], lock_wait)
        except BaseException as error:
            if lock_wait is not None and isinstance(error, StoreBusy):
                return error
            for _, future, _ in asked:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return None
        for (_, future, _), inserted in zip(asked, done, strict=True):
            if not future.done():
                future.set_result(inserted)
        return None

    def _set_apart(self, asked: Sequence[_Asked]) -> None:
        for one in asked:
            key = one[0].key
            if key not in self._contested:
                self._contested[key] = []
                self._turns.append((key, 0))
            self._contested[key].append(one)
        self._settling = [task for task in self._settling if not task.done()]
        while len(self._settling) < min(_SETTLERS, len(self._turns)):
            self._settling.append(asyncio.create_task(self._settle()))

    async def _settle(self) -> None:
        while self._turns:
            key, turn = self._turns.popleft()
            left: list[_Asked] = []
            try:
                left = await self._settle_key(key, min(ROW_WAIT, _SHORT_WAIT * 2 ** min(turn, 8)))
            finally:
                if left:
                    self._turns.append((key, turn + 1))
                else:
                    del self._contested[key]

    async def _settle_key(self, key: str | None, lock_wait: float) -> list[_Asked]:
        """Store what waits for this key, if nobody holds it for so long; return what still waits."""
        asked = [one for one in self._contested[key] if not one[1].done()][:_MOST]
        if asked and (error := await self._store_all(asked, lock_wait)) is not None:
            for _, future, end in asked:
                if time.monotonic() > end and not future.done():
                    future.set_exception(error)
        left = self._contested[key] = [one for one in self._contested[key] if not one[1].done()]
        return left

    async def insert_many(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Store many jobs in one transaction."""
        return await self._store_many(jobs, None) if jobs else []

    async def _store_many(self, jobs: Sequence[NewJob], lock_wait: float | None) -> list[Inserted]:
        store = self._store
        earliest = min([job.scheduled_at for job in jobs])
        if not all(map(is_plain, jobs)):
            return await store.change(lambda: insert_jobs(jobs), earliest, lock_wait=lock_wait)
        hint = store.hint(earliest)
        if len(jobs) <= _CHUNK:
            ids = await store.pool.run(lambda conn: self._store_plain(conn, jobs, hint))
            store.pool.commits += 1
            return [Inserted(id, "created", job.scheduled_at) for id, job in zip(ids, jobs, strict=True)]

        async def work(conn: Connection) -> list[int]:
            made: list[int] = []
            for start in range(0, len(jobs), _CHUNK):
                made += await self._store_plain(conn, jobs[start : start + _CHUNK], "" if start else hint)
            return made

        ids = await store.pool.transaction(work)
        return [Inserted(id, "created", job.scheduled_at) for id, job in zip(ids, jobs, strict=True)]

    async def _store_plain(self, conn: Connection, jobs: Sequence[NewJob], hint: str) -> list[int]:
        store = self._store
        began = store.began()
        text, args = named(
            "insert_plain", store.schema_name, {**_columns(jobs), "channel": store.channel, "hint": hint}
        )
        row = await conn.fetchrow(text, *args)
        assert row is not None
        store.learn(began, row[1])
        return list(row[0])
