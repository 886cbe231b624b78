"""OnCue on PostgreSQL, by its public API and its command line, with default settings."""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment
from oncue import OnCue, Scheduled

_BULK = 10_000  # jobs in one schedule_many

app = OnCue(_program.DSN)
recorder = recorder_from_environment()


@app.task(name="noop")
async def noop(index: int, due: float) -> None:
    recorder.record(index, due)


@app.task(name="sleep")
async def sleep(index: int) -> None:
    recorder.record(index, SLEEP_STARTED)
    await asyncio.sleep(SLEEP_S)
    recorder.record(index, SLEEP_DONE)


def _when(due: float) -> datetime:
    return datetime.fromtimestamp(due, UTC)


class OnCuePostgres:
    """Holds the application open from the first call on, so that only the calls are timed."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._run(app.open())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._runner.run(work)

    def close(self) -> None:
        self._run(app.close())
        self._runner.close()

    def prepare(self) -> None:
        pass  # opening made the tables

    def enqueue_at(self, dues: Sequence[float]) -> None:
        calls = [functools.partial(app.schedule, noop.call(i, due), at=_when(due)) for i, due in enumerate(dues)]
        self._run(_program.by_callers(calls))

    def enqueue_many(self, count: int, due: float, kind: str) -> None:
        dues = _program.due_times(count, due)

        async def in_bulk() -> None:
            for first in range(0, count, _BULK):
                some = list(enumerate(dues[first : first + _BULK], first))
                calls = [noop.call(i, at) if kind == "noop" else sleep.call(i) for i, at in some]
                await app.schedule_many(
                    [Scheduled(call, at=_when(at)) for call, (_, at) in zip(calls, some, strict=True)]
                )

        self._run(in_bulk())

    def worker_command(self) -> list[str]:
        command = [str(Path(sys.executable).parent / "oncue"), "worker", "bench.peers.oncue_postgres:app"]
        return [*command, "--concurrency", str(_program.CONCURRENCY)] if _program.CONCURRENCY > 200 else command

    def results(self) -> dict[str, int | None]:
        with psycopg.connect(_program.DSN) as db:
            tomorrow = int((time.time() + 86_400) * 1_000_000)
            left = db.execute("SELECT count(*) FROM oncue.oncue_job WHERE scheduled_at <= %s", (tomorrow,)).fetchone()
            done = db.execute("SELECT count(*) FROM oncue.oncue_finished WHERE state = 'completed'").fetchone()
            return {"left": left[0] if left else None, "completed": done[0] if done else None}


if __name__ == "__main__":
    peer = OnCuePostgres()
    _program.run(peer)
    peer.close()
