"""The bound: asyncio's own timer, with no store and nothing that survives. Lateness only."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence

from bench.peers import _program
from bench.records import recorder_from_environment


class AsyncioTimer:
    def prepare(self) -> None:
        pass

    def enqueue_at(self, dues: Sequence[float]) -> None:
        raise NotImplementedError("a timer lives in its own process only")

    def enqueue_many(self, count: int, due: float, kind: str) -> None:
        raise NotImplementedError("a timer lives in its own process only")

    def worker_command(self) -> list[str]:
        return [sys.executable, "-m", "bench.peers.asyncio_timer", "work"]

    def results(self) -> dict[str, int | None]:
        return {"left": None, "completed": None}


async def work(options: dict[str, float]) -> None:
    """Arm one timer a job and wait for the last."""
    recorder = recorder_from_environment()
    loop = asyncio.get_running_loop()
    base, clock, count = time.time(), loop.time(), int(options["count"])
    step = (options["last"] - options["first"]) / max(1, count - 1)
    for index in range(count):
        after = options["first"] + index * step
        loop.call_at(clock + after, recorder.record, index, base + after)
    await asyncio.sleep(options["last"] + 60)


if __name__ == "__main__":
    if sys.argv[1] == "work":
        asyncio.run(work(json.loads(os.environ["BENCH_INSIDE"])))
    else:
        _program.run(AsyncioTimer())
