"""Storing jobs on PostgreSQL: callers who wait together share one statement, and one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oncue.job import Inserted, NewJob
from oncue.store.postgres.connection import Connection, on
from oncue.store.postgres.run import named
from oncue.store.steps.insert import insert_jobs

if TYPE_CHECKING:
    from oncue.store.postgres import PostgresStore

_Asked = tuple[NewJob, "asyncio.Future[Inserted]"]
_MOST = 1_000
_CHUNK = 2_000
_COLUMNS = (
    "task", "args", "queue", "priority", "scheduled_at", "max_attempts", "created_at", "max_late", "when_late",
    "metadata",
)  # fmt: skip


def is_plain(job: NewJob) -> bool:
    """Tell whether nothing can stand in the way of this job's row."""
    return job.key is None and job.origin is None and job.when_blocked == "wait"


class Inserter:
    """Gathers single calls while a commit is under way, and stores sets in as few statements as it can."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._waiting: dict[bool, list[_Asked]] = {True: [], False: []}
        self._writing: dict[bool, asyncio.Task[None] | None] = {True: None, False: None}

    async def insert(self, job: NewJob) -> Inserted:
        """Store one job. Jobs with keys have a queue of their own: they take longer."""
        return await on(self._store.pool.loop, lambda: self._insert(job))

    async def finish(self) -> None:
        """Wait until what was handed in is stored."""
        for task in self._writing.values():
            if task is not None:
                await asyncio.wait({task})

    async def _insert(self, job: NewJob) -> Inserted:
        future: asyncio.Future[Inserted] = asyncio.get_running_loop().create_future()
        plain = is_plain(job)
        self._waiting[plain].append((job, future))
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
            try:
                done = await self.insert_many([job for job, _ in asked])
            except BaseException as error:
                for _, future in asked:
                    if not future.done():
                        future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), inserted in zip(asked, done, strict=True):
                if not future.done():
                    future.set_result(inserted)

    async def insert_many(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Store many jobs in one transaction."""
        if not jobs:
            return []
        store = self._store
        earliest = min([job.scheduled_at for job in jobs])
        if not all(map(is_plain, jobs)):
            return await store.change(lambda: insert_jobs(jobs), earliest)
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
        columns = {name: [getattr(job, name) for job in jobs] for name in _COLUMNS}
        columns["group_name"] = [job.group for job in jobs]
        store = self._store
        began = store.began()
        text, args = named("insert_plain", store.schema_name, {**columns, "channel": store.channel, "hint": hint})
        row = await conn.fetchrow(text, *args)
        assert row is not None
        store.learn(began, row[1])
        return list(row[0])
