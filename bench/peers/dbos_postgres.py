"""DBOS, with its defaults: a workflow a job, on a queue polled once a second; finished workflows are kept."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from typing import Any

import psycopg
from dbos import DBOS, DBOSClient

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment

recorder = recorder_from_environment()


@DBOS.workflow(name="noop")
async def noop(index: int, due: float) -> None:
    recorder.record(index, due)


@DBOS.workflow(name="sleep")
async def sleep(index: int, _due: float) -> None:
    recorder.record(index, SLEEP_STARTED)
    await asyncio.sleep(SLEEP_S)
    recorder.record(index, SLEEP_DONE)


class DBOSPostgres(_program.AsyncPeer):
    async def open(self) -> None:
        self._opened: Any = None  # opened by the first call, since its tables are made by `prepare`

    @property
    def _client(self) -> Any:
        if self._opened is None:
            self._opened = DBOSClient(system_database_url=_program.DSN)
        return self._opened

    def close(self) -> None:
        if self._opened:
            self._opened.destroy()
        super().close()

    def prepare(self) -> None:
        launch()
        DBOS.destroy()

    async def one(self, kind: str, index: int, due: float) -> None:
        after = {"delay_seconds": due - time.time()} if due > time.time() else {}
        await self._client.enqueue_async({"queue_name": "bench", "workflow_name": kind, **after}, index, due)

    def worker_command(self) -> list[str]:
        return [sys.executable, "-m", "bench.peers.dbos_postgres", "work"]

    def results(self) -> dict[str, int | None]:
        query = "SELECT status, count(*) FROM dbos.workflow_status WHERE queue_name = 'bench' GROUP BY 1"
        with psycopg.connect(_program.DSN) as db:
            counts: dict[str, int] = dict(db.execute(query).fetchall())
        completed = counts.pop("SUCCESS", 0)
        return {"left": sum(counts.values()), "completed": completed}


def launch() -> None:
    DBOS(config={"name": "bench", "system_database_url": _program.DSN, "log_level": "WARNING"})
    DBOS.launch()
    DBOS.register_queue("bench")


def work() -> None:
    """Run until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    launch()
    stop.wait()
    DBOS.destroy()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work()
    else:
        peer = DBOSPostgres()
        _program.run(peer)
        peer.close()
