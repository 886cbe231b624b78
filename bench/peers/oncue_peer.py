"""OnCue by its public API and its command line, with default settings.

On PostgreSQL where the runner names a database (BENCH_DSN), else on SQLite; with a wake queue of its own where it
names one (BENCH_WAKE).
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment

_program.trace_sqlite()

from oncue import OnCue, Scheduled  # noqa: E402 - after the trace

FILE = _program.WORK.resolve() / "oncue.db"
_BULK = 10_000  # jobs in one schedule_many

app = OnCue(_program.DSN or f"sqlite:///{FILE}", wake=_program.WAKE)
recorder = recorder_from_environment()


@app.task(name="noop")
async def noop(index: int, due: float) -> None:
    recorder.record(index, due)


@app.task(name="sleep")
async def sleep(index: int) -> None:
    recorder.record(index, SLEEP_STARTED)
    await asyncio.sleep(SLEEP_S)
    recorder.record(index, SLEEP_DONE)


def _scheduled(index: int, due: float, kind: str) -> Scheduled:
    call = sleep.call(index) if kind == "sleep" else noop.call(index, due)
    _, grouped, count = kind.partition("grouped ")
    group = f"person-{index % int(count)}" if grouped else None
    return Scheduled(call, at=datetime.fromtimestamp(due, UTC), group=group)


class OnCuePeer(_program.AsyncPeer):
    async def open(self) -> None:
        await app.open()

    async def shut(self) -> None:
        await app.close()

    def enqueue_at(self, dues: Sequence[float]) -> None:
        calls = [
            functools.partial(app.schedule, noop.call(i, due), at=datetime.fromtimestamp(due, UTC))
            for i, due in enumerate(dues)
        ]
        # A file has no pool of connections whose size callers would have to respect: there all of them call at once.
        self.wait(_program.by_callers(calls, _program.CALLERS if _program.DSN else len(calls)))

    def enqueue_many(self, count: int, due: float, kind: str) -> None:
        dues = _program.due_times(count, due)

        async def in_bulk() -> None:
            for first in range(0, count, _BULK):
                some = enumerate(dues[first : first + _BULK], first)
                await app.schedule_many([_scheduled(index, at, kind) for index, at in some])

        self.wait(in_bulk())

    def worker_command(self) -> list[str]:
        command = [str(Path(sys.executable).parent / "oncue"), "worker", "bench.peers.oncue_peer:app"]
        return [*command, "--concurrency", str(_program.CONCURRENCY)] if _program.CONCURRENCY > 200 else command

    def results(self) -> dict[str, int | None]:
        tomorrow = int((time.time() + 86_400) * 1_000_000)
        tables = "oncue.oncue_" if _program.DSN else "oncue_"
        left = f"SELECT count(*) FROM {tables}job WHERE scheduled_at <= {tomorrow}"
        completed = f"SELECT count(*) FROM {tables}finished WHERE state = 'completed'"
        return {"left": _count(left), "completed": _count(completed)}


def _count(query: str) -> int:
    if _program.DSN:
        with psycopg.connect(_program.DSN) as pg:
            found = pg.execute(query.encode()).fetchone()
    else:
        with sqlite3.connect(FILE) as db:
            found = db.execute(query).fetchone()
    return int(found[0]) if found else 0


if __name__ == "__main__":
    peer = OnCuePeer()
    _program.run(peer)
    peer.close()
