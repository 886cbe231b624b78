"""PgQueuer, as its manual shows it: `pgq run` with its defaults, handlers as coroutines on one asyncpg connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, Job, PgQueuer, Queries

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment

_BULK = 10_000  # jobs in one call
recorder = recorder_from_environment()


def _payload(job: Job) -> dict[str, Any]:
    return json.loads(job.payload or b"{}")  # type: ignore[no-any-return]


@contextlib.asynccontextmanager
async def worker() -> AsyncIterator[PgQueuer]:
    """What `pgq run` runs."""
    connection = await asyncpg.connect(_program.DSN)
    queue = PgQueuer(AsyncpgDriver(connection))

    @queue.entrypoint("noop")
    async def noop(job: Job) -> None:
        payload = _payload(job)
        recorder.record(payload["index"], payload["due"])

    @queue.entrypoint("sleep")
    async def sleep(job: Job) -> None:
        index = _payload(job)["index"]
        recorder.record(index, SLEEP_STARTED)
        await asyncio.sleep(SLEEP_S)
        recorder.record(index, SLEEP_DONE)

    yield queue
    await connection.close()


def _job(index: int, due: float) -> bytes:
    return json.dumps({"index": index, "due": due}).encode()


def _after(due: float) -> timedelta:
    return timedelta(seconds=max(0.0, due - time.time()))


class PgQueuerPostgres(_program.AsyncPeer):
    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(_program.DSN)
        self._queries = Queries(AsyncpgPoolDriver(self._pool))

    async def shut(self) -> None:
        await self._pool.close()

    def prepare(self) -> None:
        self.wait(self._queries.install())

    async def one(self, kind: str, index: int, due: float) -> None:
        await self._queries.enqueue(kind, _job(index, due), execute_after=_after(due))

    def enqueue_many(self, count: int, due: float, kind: str) -> None:
        dues = list(enumerate(_program.due_times(count, due)))

        async def in_bulk() -> None:
            for first in range(0, count, _BULK):
                some = dues[first : first + _BULK]
                await self._queries.enqueue(
                    [kind] * len(some),
                    [_job(index, at) for index, at in some],
                    [0] * len(some),
                    execute_after=[_after(at) for _, at in some],
                )

        self.wait(in_bulk())

    def worker_command(self) -> list[str]:
        program = str(Path(sys.executable).parent / "pgq")
        return [program, "run", "bench.peers.pgqueuer_postgres:worker"]

    def results(self) -> dict[str, int | None]:
        left = "SELECT count(*) FROM pgqueuer WHERE execute_after < now() + interval '1 day'"
        completed = "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'"
        return {"left": self.wait(self._pool.fetchval(left)), "completed": self.wait(self._pool.fetchval(completed))}


if __name__ == "__main__":
    peer = PgQueuerPostgres()
    _program.run(peer)
    peer.close()
