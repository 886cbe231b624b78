"""SIGKILL for a worker with running jobs, and how long it takes until a new one has completed all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.process import Program
from bench.records import SLEEP_DONE, SLEEP_STARTED, Reader, Record
from bench.stage import Bench, Sizes
from bench.work import READY_CAP, Figures, wait

ALONE_S = 5.0
"""So long a new worker has the machine for itself. Who isn't ready by then waits, and lets the next one begin."""


class Crash:
    """100 running jobs of 1 s, SIGKILL, a new worker at once: here, or on what is to it another machine."""

    def __init__(self, bench: Bench, sizes: Sizes, *, elsewhere: bool) -> None:
        self._bench, self._sizes = bench, sizes
        self._jobs = sizes.crash_jobs
        bench.fresh()
        bench.ask("enqueue_many", count=self._jobs, delay=0, kind="sleep")
        worker = bench.start_worker(concurrency=self._jobs)
        try:
            wait(bench, [worker], lambda found: len(_running(found)) >= self._jobs or bool(_done(found)), READY_CAP)
        finally:
            worker.kill()
        records = Reader(bench.directory).read()
        self._before = _done(records)
        self._running = len(_running(records) - self._before)
        self._worker: Program = bench.start_worker(concurrency=self._jobs, elsewhere=elsewhere)

    def completed(self, patience: float) -> bool:
        """Whether all were done within so many seconds from now, the cap at the most."""
        left = self._worker.started_at + self._sizes.crash_cap_s - time.time()
        try:
            return len(_done(self._wait(max(0.0, min(patience, left))))) >= self._jobs
        except BaseException:
            self._worker.stop()
            raise

    def _wait(self, patience: float) -> Sequence[Record]:
        return wait(self._bench, [self._worker], lambda found: len(_done(found)) >= self._jobs, patience)

    def figures(self) -> Figures:
        """What came of it, by the cap at the latest. Ends the worker."""
        try:
            self.completed(self._sizes.crash_cap_s)
            time.sleep(0.5)  # the last acks
        finally:
            self._worker.stop()
        records = Reader(self._bench.directory).read()
        done = _done(records)
        last = max((record.at for record in records if record.due == SLEEP_DONE), default=0.0)
        return {
            "running": self._running,
            "seconds": last - self._worker.started_at if len(done) == self._jobs else None,
            "came_back": len(done - self._before),
            "lost": self._jobs - len(done),
            "cap_s": self._sizes.crash_cap_s,
            **self._bench.ask("results"),
        }


def _running(records: Sequence[Record]) -> set[int]:
    return {record.index for record in records if record.due == SLEEP_STARTED}


def _done(records: Sequence[Record]) -> set[int]:
    return {record.index for record in records if record.due == SLEEP_DONE}
