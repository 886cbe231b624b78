"""APScheduler 3 on SQLite, by its SQLAlchemy job store: timers in memory, ten threads by default.

A running scheduler does not see what another process adds, so with BENCH_INSIDE its own process
schedules the jobs, as its manual asks.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment

_program.trace_sqlite()

from apscheduler.executors.pool import ThreadPoolExecutor  # noqa: E402 - after the trace
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore  # noqa: E402
from apscheduler.schedulers.background import BackgroundScheduler  # noqa: E402

DATABASE = _program.WORK / "apscheduler.db"
recorder = recorder_from_environment()


def noop(index: int, due: float) -> None:
    recorder.record(index, due)


def sleep(index: int) -> None:
    recorder.record(index, SLEEP_STARTED)
    time.sleep(SLEEP_S)
    recorder.record(index, SLEEP_DONE)


def make_scheduler() -> BackgroundScheduler:
    """Default settings, but late jobs run too (by default a second's lateness drops them)."""
    threads = {"default": ThreadPoolExecutor(_program.CONCURRENCY or 10)}
    store = {"default": SQLAlchemyJobStore(url=f"sqlite:///{DATABASE}")}
    defaults = {"misfire_grace_time": None}
    return BackgroundScheduler(jobstores=store, executors=threads, job_defaults=defaults, timezone=UTC)


def add(scheduler: BackgroundScheduler, dues: Sequence[float], kind: str = "noop") -> None:
    for index, due in enumerate(dues):
        when = datetime.fromtimestamp(due, UTC)
        job, args = (noop, (index, due)) if kind == "noop" else (sleep, (index,))
        scheduler.add_job(job, "date", run_date=when, args=args)


class APScheduler:
    """Opens the store once, paused, so that only the calls are timed."""

    def __init__(self) -> None:
        self._scheduler = make_scheduler()
        self._scheduler.start(paused=True)

    def prepare(self) -> None:
        pass  # starting made the table

    def enqueue_at(self, dues: Sequence[float]) -> None:
        add(self._scheduler, dues)

    def enqueue_many(self, count: int, due: float, kind: str) -> None:
        add(self._scheduler, [due] * count, kind)

    def worker_command(self) -> list[str]:
        return [sys.executable, "-m", "bench.peers.apscheduler_sqlite", "work"]

    def results(self) -> dict[str, int | None]:
        with sqlite3.connect(DATABASE) as db:
            left = db.execute("select count(*) from apscheduler_jobs").fetchone()[0]
        return {"left": left, "completed": None}


def work() -> None:
    """Run the scheduler until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    scheduler = make_scheduler()
    scheduler.start()
    if "BENCH_INSIDE" in os.environ:
        _add_from_inside(scheduler, json.loads(os.environ["BENCH_INSIDE"]))
    stop.wait()
    scheduler.shutdown(wait=False)


def _add_from_inside(scheduler: BackgroundScheduler, options: dict[str, float]) -> None:
    base, count = time.time(), int(options["count"])
    step = (options["last"] - options["first"]) / max(1, count - 1)
    add(scheduler, [round(base + options["first"] + i * step, 3) for i in range(count)])


if __name__ == "__main__":
    # Jobs are stored by module and name: under the real name, not __main__.
    from bench.peers import apscheduler_sqlite  # noqa: PLW0406 - on purpose, see above

    if sys.argv[1] == "work":
        apscheduler_sqlite.work()
    else:
        _program.run(apscheduler_sqlite.APScheduler())
