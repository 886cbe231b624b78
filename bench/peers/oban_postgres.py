"""Oban for Python, by its command line: a queue of ten, its staging once a second, finished jobs kept for a day."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from oban import Job, Oban, worker
from oban.schema import install

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment

_BULK = 1000  # jobs in one call
recorder = recorder_from_environment()


@worker(queue="default")
class Noop:
    async def process(self, job: Job) -> None:
        recorder.record(job.args["index"], job.args["due"])


@worker(queue="default")
class Sleep:
    async def process(self, job: Job) -> None:
        recorder.record(job.args["index"], SLEEP_STARTED)
        await asyncio.sleep(SLEEP_S)
        recorder.record(job.args["index"], SLEEP_DONE)


def _job(kind: str, index: int, due: float) -> Any:
    made: Any = Noop if kind == "noop" else Sleep
    when = {"scheduled_at": datetime.fromtimestamp(due, UTC)} if due > time.time() else {}
    return made.new({"index": index, "due": due}, **when)


class ObanPostgres(_program.AsyncPeer):
    async def open(self) -> None:
        self._pool: Any = await Oban.create_pool(_program.DSN)
        self._oban = Oban(pool=self._pool)

    async def shut(self) -> None:
        await self._pool.close()

    def prepare(self) -> None:
        self.wait(install(self._pool))

    async def one(self, kind: str, index: int, due: float) -> None:
        await self._oban.enqueue(_job(kind, index, due))

    def enqueue_many(self, count: int, due: float, kind: str) -> None:
        async def in_bulk() -> None:
            for first in range(0, count, _BULK):
                await self._oban.enqueue_many(
                    [_job(kind, index, due) for index in range(first, min(count, first + _BULK))]
                )

        self.wait(in_bulk())

    def worker_command(self) -> list[str]:
        program = str(Path(sys.executable).parent / "oban")
        queue = f"default:{_program.CONCURRENCY or 10}"
        return [program, "start", "--dsn", _program.DSN, "--queues", queue, "--log-level", "WARNING"]

    def results(self) -> dict[str, int | None]:
        with psycopg.connect(_program.DSN) as db:
            counts: dict[str, int] = dict(
                db.execute("SELECT state::text, count(*) FROM oban_jobs GROUP BY 1").fetchall()
            )
        completed = counts.pop("completed", 0)
        return {"left": sum(counts.values()), "completed": completed}


if __name__ == "__main__":
    # Workers are stored by module and name: under the real name, not __main__.
    from bench.peers import oban_postgres  # noqa: PLW0406 - on purpose, see above

    peer = oban_postgres.ObanPostgres()
    _program.run(peer)
    peer.close()
