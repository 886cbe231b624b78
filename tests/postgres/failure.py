"""What the tests of failures share: applications whose handlers write down what happens to them, and wait if told."""

from __future__ import annotations

import asyncio
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
def superuser(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the database itself, past whatever the application's connections go through."""
    with psycopg.connect(dsn) as connection:
        yield connection


def rows(dsn: str, query: str, *args: Any) -> list[Any]:
    """The rows of a query, of OnCue's tables too."""
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=oncue,public") as connection:
        return connection.execute(query, args or None).fetchall()  # type: ignore[call-overload,no-any-return]


async def until_rows(dsn: str, query: str, *args: Any, wanted: Callable[[list[Any]], bool] = bool) -> list[Any]:
    """Wait until a query's rows are as wanted: what another process or the server does sends no signal."""
    while not wanted(found := await asyncio.to_thread(rows, dsn, query, *args)):  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.02)
    return found
