"""SAQ, by its command line, with its default settings: ten at a time, due jobs moved once a second."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from saq import Queue

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment

recorder = recorder_from_environment()


async def noop(_context: Any, *, index: int, due: float) -> None:
    recorder.record(index, due)


async def sleep(_context: Any, *, index: int, **_due: float) -> None:
    recorder.record(index, SLEEP_STARTED)
    await asyncio.sleep(SLEEP_S)
    recorder.record(index, SLEEP_DONE)


settings: dict[str, Any] = {"queue": Queue.from_url(_program.REDIS_URL), "functions": [noop, sleep]}
if _program.CONCURRENCY:
    settings["concurrency"] = _program.CONCURRENCY


class SAQRedis(_program.AsyncPeer):
    async def open(self) -> None:
        self._queue = Queue.from_url(_program.REDIS_URL)

    async def shut(self) -> None:
        await self._queue.disconnect()

    async def one(self, kind: str, index: int, due: float) -> None:
        # Its manual speaks of whole seconds; it takes and compares fractions, and would start early without.
        later = {"scheduled": due} if due > time.time() else {}
        await self._queue.enqueue(kind, index=index, due=due, **later)

    def worker_command(self) -> list[str]:
        return [str(Path(sys.executable).parent / "saq"), "bench.peers.saq_redis.settings"]

    def results(self) -> dict[str, int | None]:
        return {"left": self.wait(self._queue.count("incomplete")), "completed": None}


if __name__ == "__main__":
    peer = SAQRedis()
    _program.run(peer)
    peer.close()
