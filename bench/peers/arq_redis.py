"""arq, by its command line, with its default settings: ten at a time, a poll each half second."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.constants import default_queue_name, result_key_prefix

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment

recorder = recorder_from_environment()


async def noop(_context: Any, index: int, due: float) -> None:
    recorder.record(index, due)


async def sleep(_context: Any, index: int, _due: float) -> None:
    recorder.record(index, SLEEP_STARTED)
    await asyncio.sleep(SLEEP_S)
    recorder.record(index, SLEEP_DONE)


class WorkerSettings:
    redis_settings = RedisSettings.from_dsn(_program.REDIS_URL or "redis://")
    functions = (noop, sleep)
    max_jobs = _program.CONCURRENCY or 10


class ArqRedis(_program.AsyncPeer):
    async def open(self) -> None:
        self._pool = await create_pool(WorkerSettings.redis_settings)

    async def shut(self) -> None:
        await self._pool.aclose()

    async def one(self, kind: str, index: int, due: float) -> None:
        until = datetime.fromtimestamp(due, UTC) if due > time.time() else None
        await self._pool.enqueue_job(kind, index, due, _defer_until=until)

    def worker_command(self) -> list[str]:
        return [str(Path(sys.executable).parent / "arq"), "bench.peers.arq_redis.WorkerSettings"]

    def results(self) -> dict[str, int | None]:
        async def count() -> dict[str, int | None]:
            kept = [key async for key in self._pool.scan_iter(f"{result_key_prefix}*", count=10_000)]
            return {"left": await self._pool.zcard(default_queue_name), "completed": len(kept)}

        return self.wait(count())  # type: ignore[no-any-return]


if __name__ == "__main__":
    peer = ArqRedis()
    _program.run(peer)
    peer.close()
