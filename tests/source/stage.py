"""What the tests of sources stand on: a clock that they move, a table of trials, the real roles one step at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oncue import OnCue, Retry
from oncue.clock import SECOND, from_us
from oncue.drain import Drain
from oncue.job import State
from oncue.service import Service

START = 1_790_000_000 * SECOND


class MovedClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: int = START) -> None:
        self._now = now
        self._watchers: list[Callable[[], None]] = []

    def now(self) -> int:
        return self._now

    def watch(self, moved: Callable[[], None]) -> Callable[[], None]:
        self._watchers.append(moved)
        return lambda: self._watchers.remove(moved)

    def move(self, seconds: float) -> None:
        self._now += round(seconds * SECOND)
        for moved in list(self._watchers):
            moved()


TRIALS = """CREATE TABLE free_trials (id INTEGER PRIMARY KEY, name TEXT, status TEXT NOT NULL DEFAULT 'active',
  next_question_scheduled_for TEXT)"""


class Stage:
    """An application with one task, which notes what ran; ``sweep`` and ``work`` do one step of the real roles."""

    def __init__(self, path: Path, clock: MovedClock | None = None, schema: str = TRIALS) -> None:
        self.path, self.clock = path, clock or MovedClock()
        self.app = OnCue(f"sqlite:///{path}", clock=self.clock, sweep=60.0)
        self.ran: list[Any] = []
        self.fails = 0
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        if schema:
            self.db.execute(schema)

        @self.app.task(name="send_question", retry=Retry(max_attempts=3, delay=5.0))
        async def send_question(trial_id: int) -> None:
            self.ran.append(trial_id)
            if self.fails:
                self.fails -= 1
                raise ValueError("not yet")

        self.task = send_question

    def declare(self, **options: Any) -> None:
        """Declare the source of the issue, changed by ``options``."""
        given: dict[str, Any] = {
            "key": "question-{id}",
            "due": "next_question_scheduled_for",
            "where": "status = 'active'",
            "task": self.task,
        }
        self.app.source("free_trials", **{**given, **options})

    def at(self, seconds: float, sep: str = " ") -> str:
        """A text as SQLite writes it, so many seconds from the clock's beginning."""
        return from_us(START + round(seconds * SECOND)).replace(tzinfo=None).isoformat(sep)

    def put(self, id: int, due: Any, status: str = "active") -> None:
        """Insert a row, or change it."""
        self.db.execute(
            "INSERT INTO free_trials (id, status, next_question_scheduled_for) VALUES (?1, ?2, ?3) ON CONFLICT (id) "
            "DO UPDATE SET status = ?2, next_question_scheduled_for = ?3",
            (id, status, due),
        )

    async def sweep(self) -> int:
        """One sweep of the real sweeper; return how many jobs were made or moved."""
        return (await Service(self.app, worker=False).sweeper.run_once()).reconciled

    async def work(self) -> Drain:
        """Run what is due with a real worker, without a sweep before."""
        service = Service(self.app, worker=False)
        drain = Drain(
            self.app.store,
            self.app.wake,
            self.clock,
            service.runner,
            service.options,
            limit=None,
            retention=self.app.retention_us,
            plan=service.planner.run_once,
            changed=self.app.sources.reconcile_changed,
            settled=service._settled,
        )
        service.worker = drain
        try:
            await drain.drain(None)
        finally:
            service.runner.close()
        return drain

    async def jobs(self, *states: State) -> list[Any]:
        """Jobs, oldest first."""
        return sorted(await self.app.jobs.list(state=states), key=lambda job: job.id)
