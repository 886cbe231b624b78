"""Procrastinate, with its defaults: one job at a time, every finished job kept."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from procrastinate import App, PsycopgConnector

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment

_BULK = 10_000  # jobs in one call
app = App(connector=PsycopgConnector(conninfo=_program.DSN))
recorder = recorder_from_environment()


@app.task(name="noop")
async def noop(index: int, due: float) -> None:
    recorder.record(index, due)


@app.task(name="sleep")
async def sleep(index: int) -> None:
    recorder.record(index, SLEEP_STARTED)
    await asyncio.sleep(SLEEP_S)
    recorder.record(index, SLEEP_DONE)


def _when(due: float) -> datetime | None:
    return datetime.fromtimestamp(due, UTC) if due > time.time() else None


class ProcrastinatePostgres(_program.AsyncPeer):
    async def open(self) -> None:
        await app.open_async()

    async def shut(self) -> None:
        await app.close_async()

    def prepare(self) -> None:
        self.wait(app.schema_manager.apply_schema_async())

    async def one(self, _kind: str, index: int, due: float) -> None:
        await noop.configure(schedule_at=_when(due)).defer_async(index=index, due=due)

    def enqueue_many(self, count: int, due: float, kind: str) -> None:
        async def in_bulk() -> None:
            for first in range(0, count, _BULK):
                indexes = range(first, min(count, first + _BULK))
                if kind == "noop":
                    jobs: list[Any] = [{"index": index, "due": due} for index in indexes]
                    await noop.configure(schedule_at=_when(due)).batch_defer_async(*jobs)
                else:
                    await sleep.batch_defer_async(*[{"index": index} for index in indexes])

        self.wait(in_bulk())

    def worker_command(self) -> list[str]:
        program = str(Path(sys.executable).parent / "procrastinate")
        command = [program, "--app", "bench.peers.procrastinate_postgres.app", "worker"]
        return [*command, "--concurrency", str(_program.CONCURRENCY)] if _program.CONCURRENCY else command

    def results(self) -> dict[str, int | None]:
        with psycopg.connect(_program.DSN) as db:
            counts: dict[str, int] = dict(
                db.execute("SELECT status::text, count(*) FROM procrastinate_jobs GROUP BY 1").fetchall()
            )
        return {"left": counts.get("todo", 0) + counts.get("doing", 0), "completed": counts.get("succeeded", 0)}


if __name__ == "__main__":
    peer = ProcrastinatePostgres()
    _program.run(peer)
    peer.close()
