"""Huey on SQLite, one worker thread by default. Its tasks are synchronous; it has no bulk call."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment

_program.trace_sqlite()

from huey import SqliteHuey  # noqa: E402 - after the trace

DATABASE = str(_program.WORK / "huey.db")
huey = SqliteHuey("bench", filename=DATABASE)
recorder = recorder_from_environment()


@huey.task()
def noop(index: int, due: float) -> None:
    recorder.record(index, due)


@huey.task()
def sleep(index: int) -> None:
    recorder.record(index, SLEEP_STARTED)
    time.sleep(SLEEP_S)
    recorder.record(index, SLEEP_DONE)


class Huey:
    def prepare(self) -> None:
        pass  # importing this file made the tables

    def enqueue_at(self, dues: Sequence[float]) -> None:
        for index, due in enumerate(dues):
            noop.schedule((index, due), eta=datetime.fromtimestamp(due, UTC))

    def enqueue_many(self, count: int, due: float, kind: str) -> None:
        if due <= time.time():
            for index in range(count):
                noop(index, due) if kind == "noop" else sleep(index)
        else:
            for index in range(count):
                noop.schedule((index, due), eta=datetime.fromtimestamp(due, UTC))

    def worker_command(self) -> list[str]:
        command = [str(Path(sys.executable).parent / "huey_consumer"), "bench.peers.huey_sqlite.huey"]
        return [*command, "-w", str(_program.CONCURRENCY)] if _program.CONCURRENCY else command

    def results(self) -> dict[str, int | None]:
        with sqlite3.connect(DATABASE) as db:
            left = db.execute("select (select count(*) from task) + (select count(*) from schedule)")
            return {"left": left.fetchone()[0], "completed": None}


if __name__ == "__main__":
    # Jobs are stored by module and name: under the real name, not __main__.
    from bench.peers import huey_sqlite  # noqa: PLW0406 - on purpose, see above

    _program.run(huey_sqlite.Huey())
