"""OnCue on SQLite, by its public API and its command line, with default settings."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment

_program.trace_sqlite()

from oncue import OnCue, Scheduled  # noqa: E402 - after the trace

DATABASE = _program.WORK.resolve() / "oncue.db"
_BULK = 10_000  # jobs in one schedule_many

app = OnCue(f"sqlite:///{DATABASE}")
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


class OnCueSQLite:
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
        async def all_at_once() -> None:
            await asyncio.gather(
                *(app.schedule(noop.call(index, due), at=_when(due)) for index, due in enumerate(dues))
            )

        self._run(all_at_once())

    def enqueue_many(self, count: int, due: float, kind: str) -> None:
        now = time.time()

        async def in_bulk() -> None:
            for first in range(0, count, _BULK):
                # A millisecond apart, so that a million far jobs do not share one due time.
                indexes = range(first, min(count, first + _BULK))
                dues = [due + index / 1000 if due > now else due for index in indexes]
                calls = [
                    noop.call(i, d) if kind == "noop" else sleep.call(i) for i, d in zip(indexes, dues, strict=True)
                ]
                await app.schedule_many([Scheduled(call, at=_when(d)) for call, d in zip(calls, dues, strict=True)])

        self._run(in_bulk())

    def worker_command(self) -> list[str]:
        command = [str(Path(sys.executable).parent / "oncue"), "worker", "bench.peers.oncue_sqlite:app"]
        return [*command, "--concurrency", str(_program.CONCURRENCY)] if _program.CONCURRENCY > 200 else command

    def results(self) -> dict[str, int | None]:
        with sqlite3.connect(DATABASE) as db:
            tomorrow = int((time.time() + 86_400) * 1_000_000)
            left = db.execute("SELECT count(*) FROM oncue_job WHERE scheduled_at <= ?", (tomorrow,))
            completed = db.execute("SELECT count(*) FROM oncue_finished WHERE state = 'completed'")
            return {"left": left.fetchone()[0], "completed": completed.fetchone()[0]}


if __name__ == "__main__":
    peer = OnCueSQLite()
    _program.run(peer)
    peer.close()
