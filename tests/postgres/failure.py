"""What the tests of failures share: applications whose handlers write down what happens to them, and wait if told."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg

from oncue import OnCue
from oncue.context import JobContext, current_job
from oncue.service import Service
from oncue.task import Call
from oncue.worker import Worker, WorkerOptions

Line = tuple[str, str, int, int]


class Ledger:
    """What handlers did, in order: (event, worker's name, the call's number, attempt)."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.go = asyncio.Event()
        self._changed = asyncio.Event()

    def add(self, event: str, name: str, number: int, job: JobContext) -> None:
        self.lines.append((event, name, number, job.attempt))
        self._changed.set()

    def of(self, event: str) -> list[int]:
        """The numbers of the calls to which this happened."""
        return [line[2] for line in self.lines if line[0] == event]

    def counts(self, event: str = "ran") -> Counter[int]:
        return Counter(self.of(event))

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._changed.clear()
            await self._changed.wait()


def application(dsn: str, ledger: Ledger, name: str = "w", **options: Any) -> OnCue:
    """An application with the tasks ``note`` (runs at once) and ``hold`` (until ``ledger.go``), each given a number."""
    options.setdefault("sweep", 3600.0)
    app = OnCue(dsn, **options)

    @app.task(name="note")
    async def note(number: int) -> int:
        ledger.add("ran", name, number, current_job())
        return number

    @app.task(name="hold")
    async def hold(number: int) -> None:
        job = current_job()
        ledger.add("began", name, number, job)
        try:
            await ledger.go.wait()
        except asyncio.CancelledError:
            ledger.add("lost" if job.lease_lost else "told", name, number, job)
            raise
        ledger.add("ended", name, number, job)

    return app


def note(app: OnCue, number: int) -> Call[int]:
    return app.tasks["note"].call(number)


def hold(app: OnCue, number: int) -> Call[None]:
    return app.tasks["hold"].call(number)


@asynccontextmanager
async def working(app: OnCue, **options: Any) -> AsyncIterator[Worker]:
    """A worker of this application, in this process."""
    options.setdefault("grace", 0.2)
    service: Service
    async with app.worker(WorkerOptions(**options)) as service:
        assert service.worker is not None
        yield service.worker


@contextmanager
def holding(dsn: str, statement: str) -> Iterator[psycopg.Connection[Any]]:
    """Somebody else's transaction that ran a statement (OnCue's tables by their bare names) and stays open."""
    with psycopg.connect(dsn, options="-c search_path=oncue,public") as connection:
        connection.execute(statement)
        yield connection


# With this gate in place, whoever changes a job waits in its commit while somebody holds CLOSED.
GATE = """
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER gate AFTER INSERT OR UPDATE OR DELETE ON oncue_job DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION gate()"""
CLOSED = "SELECT pg_advisory_xact_lock(42)"
_WAITERS = """SELECT query FROM pg_stat_activity
  WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE %s"""


async def until_waiting(dsn: str, part: str) -> None:
    """Wait until a statement with this text waits for a lock in the server."""
    await until_rows(dsn, _WAITERS, f"%{part}%")


def rows(dsn: str, query: str, *args: Any) -> list[Any]:
    """The rows of a query, of OnCue's tables too."""
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=oncue,public") as connection:
        return connection.execute(query, args or None).fetchall()


async def until_rows(dsn: str, query: str, *args: Any, wanted: Callable[[list[Any]], bool] = bool) -> list[Any]:
    """Wait until a query's rows are as wanted: what another process or the server does sends no signal."""
    while not wanted(found := await asyncio.to_thread(rows, dsn, query, *args)):  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.02)
    return found


@contextmanager
def said(logger: str, pattern: str) -> Iterator[asyncio.Event]:
    """An event that is set once a logger says what matches."""
    told, loop = asyncio.Event(), asyncio.get_running_loop()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if re.search(pattern, record.getMessage()):
                loop.call_soon_threadsafe(told.set)

    listener = Listener()
    logging.getLogger(logger).addHandler(listener)
    try:
        yield told
    finally:
        logging.getLogger(logger).removeHandler(listener)
