"""Celery on Redis: its default pool (prefork) with two processes; timers in memory.

For 100 jobs at once its thread pool is used (100 processes would measure the machine's memory).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import redis
from celery import Celery

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment

app = Celery("bench", broker=_program.REDIS_URL)
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
recorder = recorder_from_environment()


@app.task(name="noop")
def noop(index: int, due: float) -> None:
    recorder.record(index, due)


@app.task(name="sleep")
def sleep(index: int) -> None:
    recorder.record(index, SLEEP_STARTED)
    time.sleep(SLEEP_S)
    recorder.record(index, SLEEP_DONE)


class CeleryRedis:
    def prepare(self) -> None:
        pass

    def enqueue_at(self, dues: Sequence[float]) -> None:
        for index, due in enumerate(dues):
            noop.apply_async((index, due), eta=datetime.fromtimestamp(due, UTC))

    def enqueue_many(self, count: int, due: float, kind: str) -> None:
        eta = datetime.fromtimestamp(due, UTC) if due > time.time() else None
        for index in range(count):
            if kind == "noop":
                noop.apply_async((index, due), eta=eta)
            else:
                sleep.apply_async((index,), eta=eta)

    def worker_command(self) -> list[str]:
        pool = ["--concurrency", "2"]
        if _program.CONCURRENCY:
            pool = ["--pool", "threads", "--concurrency", str(_program.CONCURRENCY)]
        command = [str(Path(sys.executable).parent / "celery"), "-A", "bench.peers.celery_redis", "worker"]
        return [*command, "--loglevel", "WARNING", *pool]

    def results(self) -> dict[str, int | None]:
        client = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])
        return {"left": client.llen("celery") + client.hlen("unacked"), "completed": None}


if __name__ == "__main__":
    _program.run(CeleryRedis())
