"""BullMQ for Python, with its default settings: one job at a time."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import Any

from bullmq import Queue, Worker

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment

_BULK = 1000  # jobs in one call
recorder = recorder_from_environment()


async def _handle(job: Any, _token: str) -> None:
    index = job.data["index"]
    if job.name == "noop":
        recorder.record(index, job.data["due"])
        return
    recorder.record(index, SLEEP_STARTED)
    await asyncio.sleep(SLEEP_S)
    recorder.record(index, SLEEP_DONE)


async def work() -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    more = {"concurrency": _program.CONCURRENCY} if _program.CONCURRENCY else {}
    worker = Worker("bench", _handle, {"connection": _program.REDIS_URL, **more})
    worker.on("error", lambda *error: print(*error, file=sys.stderr))
    await stop.wait()
    await worker.close()


def _options(due: float) -> dict[str, int]:
    delay = round((due - time.time()) * 1000)
    return {"delay": delay} if delay > 0 else {}


class BullMQRedis(_program.AsyncPeer):
    async def open(self) -> None:
        self._queue = Queue("bench", {"connection": _program.REDIS_URL})

    async def shut(self) -> None:
        await self._queue.close()

    async def one(self, kind: str, index: int, due: float) -> None:
        await self._queue.add(kind, {"index": index, "due": due}, _options(due))

    def enqueue_many(self, count: int, due: float, kind: str) -> None:
        async def in_bulk() -> None:
            for first in range(0, count, _BULK):
                indexes = range(first, min(count, first + _BULK))
                await self._queue.addBulk(
                    [{"name": kind, "data": {"index": i, "due": due}, "opts": _options(due)} for i in indexes]
                )

        self.wait(in_bulk())

    def worker_command(self) -> list[str]:
        return [sys.executable, "-m", "bench.peers.bullmq_redis", "work"]

    def results(self) -> dict[str, int | None]:
        counts = self.wait(self._queue.getJobCounts("waiting", "delayed", "active", "prioritized", "completed"))
        completed = counts.pop("completed")
        return {"left": sum(counts.values()), "completed": completed}


if __name__ == "__main__":
    if sys.argv[1] == "work":
        asyncio.run(work())
    else:
        peer = BullMQRedis()
        _program.run(peer)
        peer.close()
