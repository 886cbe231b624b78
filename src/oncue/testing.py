"""Testing an application that schedules: its jobs run when the test moves the clock, in milliseconds.

    import oncue.testing

    async def test_a_reminder_goes_out_after_two_hours() -> None:
        async with oncue.testing.run(app) as t:
            await ask_question("t-1")                                      # your code, which schedules
            t.assert_scheduled(send_reminder.call("t-1"), delay=timedelta(hours=2), key="reminder-t-1")
            await t.advance(hours=2)
            assert t.completed(send_reminder)

The application runs as declared, on a SQLite file of its own in a temporary folder: real transactions, keys, groups,
retries and limits. Only time is the test's; a task's ``timeout=`` alone goes by real time. As a fixture for
pytest-asyncio (any other plug-in does as well):

    @pytest_asyncio.fixture
    async def t():
        async with oncue.testing.run(app) as harness:
            yield harness
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from oncue.app import OnCue
from oncue.clock import from_us, in_range, seconds_to_us, to_us
from oncue.drain import Drained
from oncue.errors import InvalidTime, OnCueError, UnknownTask
from oncue.job import State
from oncue.store.sqlite.connection import path_of
from oncue.store.sqlite.run import perform
from oncue.store.steps.read import list_jobs
from oncue.store.views import JobView
from oncue.task import Call, Task

START = datetime(2030, 1, 1, 12, tzinfo=UTC)
_MOST_ROUNDS = 1_000
_MOST_JOBS = 100_000
_SHOWN = 20
_NEVER = 1 << 62
TaskLike = Task[Any, Any] | str


class NeverIdle(OnCueError, AssertionError):
    """The application makes due work faster than it can be done: each round of the same instant made more."""


class TestClock:
    """A clock that stands still until a test moves it: from noon UTC on 1 January 2030, or from ``start`` (aware)."""

    __test__ = False  # pytest takes classes named Test* for tests

    def __init__(self, start: datetime = START) -> None:
        self._now = to_us(start)
        self._watchers: dict[int, tuple[Callable[[], None], asyncio.AbstractEventLoop | None]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<TestClock at {self.moment.isoformat()}>"

    @property
    def moment(self) -> datetime:
        """The clock's time, UTC."""
        return from_us(self._now)

    def now(self) -> int:
        """Return the clock's time in microseconds since the epoch, UTC."""
        return self._now

    def advance(self, delta: float | timedelta) -> None:
        """Move on by seconds or a timedelta. Raises InvalidTime for a negative one; ``set`` may go back."""
        self._move(in_range(self._now + seconds_to_us(delta), delta))

    def set(self, moment: datetime) -> None:
        """Set the time, forward or back. Raises NaiveDatetime for one without a time zone."""
        self._move(to_us(moment))

    def watch(self, moved: Callable[[], None]) -> Callable[[], None]:
        """Have ``moved`` called, on this loop, whenever the clock is moved; the returned function ends that."""
        number = next(self._numbers)
        with self._lock:
            self._watchers[number] = (moved, _running_loop())
        return lambda: self._forget(number)

    def _forget(self, number: int) -> None:
        with self._lock:
            self._watchers.pop(number, None)

    def _move(self, to: int) -> None:
        with self._lock:
            self._now = to
            watchers = list(self._watchers.values())
        here = _running_loop()
        for moved, loop in watchers:
            if loop is None or loop is here:
                moved()
            else:
                loop.call_soon_threadsafe(moved)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Harness:
    """An application under test: its clock, its jobs, and what a test says about them."""

    __test__ = False

    def __init__(self, app: OnCue, clock: TestClock) -> None:
        self.app, self.clock = app, clock
        self.path: Path = path_of(app.url)
        """The SQLite file; an application that has tables of its own in it makes them here."""

    @property
    def now(self) -> datetime:
        """The clock's time, UTC."""
        return self.clock.moment

    def node(self, task: Task[Any, Any], function: Callable[..., Any]) -> None:
        """Have a function called, with the job's arguments, in place of the Node worker that runs a task's jobs.

        It may be async; what it raises fails the attempt. No Redis is needed.
        """
        self.app.stand_ins = (self.app.stand_ins or {}) | {task.name: function}

    async def drain(self, limit: int | None = None) -> Drained:
        """Run what is due now, cron fires and sources included, until nothing is; the clock stands still.

        Raises NeverIdle where the work never ends.
        """
        done = await self.app.drain(limit=_MOST_JOBS if limit is None else limit)
        for _ in range(_MOST_ROUNDS):
            # Rows that the jobs changed in a source's table.
            if limit is not None or not await self.app.sources.reconcile():
                break
            done = _sum(done, await self.app.drain(limit=_MOST_JOBS))
        if limit is None and done.ran + done.failed + done.skipped >= _MOST_JOBS:
            raise NeverIdle(
                f"{_MOST_JOBS:,} jobs ran at {self.now.isoformat()} and there are more: does a job schedule itself "
                f"without a delay, or snooze for 0 s? Waiting now:\n{self._listing(self.jobs(state='scheduled'))}"
            )
        return done

    async def advance(
        self,
        delta: float | timedelta = 0,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> Drained:
        """Move the clock on by ``delta`` (seconds or a timedelta) plus the rest, and run all that comes due on the way.

        The clock goes from due time to due time, so that each job, cron fire and retry sees its own as "now".
        Returns the sums; ``remaining`` and ``next_due`` are those at the end. Raises InvalidTime, NeverIdle.
        """
        more = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        first = delta if isinstance(delta, timedelta) else timedelta(microseconds=seconds_to_us(delta))
        return await self.advance_to(self.now + first + more)

    async def advance_to(self, moment: datetime) -> Drained:
        """Move the clock on to ``moment`` (aware), and run all that comes due on the way; see ``advance``."""
        end = to_us(moment)
        if end < self.clock.now():
            raise InvalidTime(f"{moment.isoformat()} is before now ({self.now.isoformat()}); t.clock.set goes back.")
        done = await self.drain()
        while (now := self.clock.now()) < end:
            self.clock.set(from_us(min(end, self._next_stop(now, done.next_due))))
            done = _sum(done, await self.drain())
        return done

    def _next_stop(self, now: int, next_due: datetime | None) -> int:
        # Sources are only read some sweeps ahead, so the clock may not jump over a sweep.
        sweep = [now + self.app.sweep_us] if self.app.declared_sources else []
        due = [] if next_due is None else [to_us(next_due)]
        return min((stop for stop in sweep + due if stop > now), default=_NEVER)

    def jobs(
        self,
        task: TaskLike | None = None,
        *,
        state: State | None = None,
        key: str | None = None,
        group: str | None = None,
        limit: int = 10_000,
    ) -> list[JobView]:
        """Return the jobs that match all that is given, oldest first; their times are microseconds since the epoch."""
        filters = {
            "task": None if task is None else self._task(task).name,
            "state": [state] if state else None,
            "key": key,
            "group": group,
        }
        with closing(sqlite3.connect(self.path)) as conn:
            return perform(conn, list_jobs(limit, **filters))[::-1]

    def completed(self, task: TaskLike | None = None, *, key: str | None = None) -> list[JobView]:
        """Return the completed jobs (of a task, with a key), oldest first."""
        return self.jobs(task, state="completed", key=key)

    def assert_scheduled(
        self,
        what: TaskLike | Call[Any],
        *,
        key: str | None = None,
        at: datetime | None = None,
        delay: float | timedelta | None = None,
        args: Sequence[Any] | Mapping[str, Any] | None = None,
        group: str | None = None,
    ) -> JobView:
        """Return the job of a task (or of a call, with its arguments) that waits, and matches all that is given.

        ``at``: its due time (aware); ``delay``: the same, counted from the clock's now; ``args``: its arguments, in
        order or by name. Raises AssertionError, which lists what there is, unless exactly one matches.
        """
        wanted = self._wanted(what, key, at, delay, args, group)
        found = self._matching(wanted)
        if len(found) != 1:
            count = "No scheduled job is" if not found else f"{len(found)} scheduled jobs are"
            raise AssertionError(f"{count} {self._told(wanted)}.\n{self._what_there_is()}")
        return found[0]

    def assert_not_scheduled(
        self,
        what: TaskLike | Call[Any],
        *,
        key: str | None = None,
        at: datetime | None = None,
        delay: float | timedelta | None = None,
        args: Sequence[Any] | Mapping[str, Any] | None = None,
        group: str | None = None,
    ) -> None:
        """Raise AssertionError, which lists them, where scheduled jobs match; options as for ``assert_scheduled``."""
        wanted = self._wanted(what, key, at, delay, args, group)
        if found := self._matching(wanted):
            told = f"{len(found)} scheduled, where none should be {self._told(wanted)}"
            raise AssertionError(f"{told}:\n{self._listing(found)}")

    def _wanted(
        self,
        what: TaskLike | Call[Any],
        key: str | None,
        at: datetime | None,
        delay: float | timedelta | None,
        args: Sequence[Any] | Mapping[str, Any] | None,
        group: str | None,
    ) -> _Wanted:
        if at is not None and delay is not None:
            raise TypeError("give at= or delay=, not both")
        due = None if at is None else to_us(at)
        if delay is not None:
            due = self.clock.now() + seconds_to_us(delay)
        if isinstance(what, Call):
            if args is not None:
                raise TypeError("a call has its arguments already: leave args= out")
            return _Wanted(what.task.name, key, group, due, what.args)
        task = self._task(what)
        if args is None:
            return _Wanted(task.name, key, group, due, None)
        call = task.call(**args) if isinstance(args, Mapping) else task.call(*args)
        return _Wanted(task.name, key, group, due, call.args)

    def _task(self, task: TaskLike) -> Task[Any, Any]:
        if isinstance(task, Task):
            return task
        if task not in self.app.tasks:
            known = ", ".join(sorted(self.app.tasks)) or "none"
            raise UnknownTask(f"No task is named {task!r}; there is: {known}.")
        return self.app.tasks[task]

    def _matching(self, wanted: _Wanted) -> list[JobView]:
        found = self.jobs(wanted.task, state="scheduled", key=wanted.key, group=wanted.group)
        if wanted.due is not None:
            found = [job for job in found if job.scheduled_at == wanted.due]
        if wanted.args is not None:
            found = [job for job in found if job.args == msgspec.json.decode(wanted.args)]
        return found

    def _told(self, wanted: _Wanted) -> str:
        parts = [f"of {wanted.task}" + ("" if wanted.args is None else f" with {wanted.args}")]
        parts += [f"{name} {value!r}" for name, value in (("key", wanted.key), ("group", wanted.group)) if value]
        parts += [] if wanted.due is None else [f"due {self._when(wanted.due)}"]
        return ", ".join(parts)

    def _what_there_is(self) -> str:
        waiting = self.jobs(state="scheduled")
        if waiting:
            return f"Scheduled, now being {self.now.isoformat()}:\n{self._listing(waiting)}"
        others = self.jobs()
        return "Nothing is scheduled." + (f" There was:\n{self._listing(others)}" if others else " There was nothing.")

    def _listing(self, jobs: Iterable[JobView]) -> str:
        lines = []
        for job in jobs:
            line = f"  #{job.id} {job.task} {_json(job.args)} {job.state}, due {self._when(job.scheduled_at)}"
            marks = {"key": job.key, "group": job.group, "blocked by": job.blocked_by, "error": job.error}
            marks["reason"] = job.reason
            lines.append(line + "".join(f", {name} {value!r}" for name, value in marks.items() if value is not None))
        more = len(lines) - _SHOWN
        return "\n".join(lines[:_SHOWN] + ([f"  and {more} more"] if more > 0 else []))

    def _when(self, us: int) -> str:
        away = timedelta(microseconds=abs(us - self.clock.now()))
        return f"{from_us(us).isoformat()} ({f'in {away}' if us >= self.clock.now() else f'{away} ago'})"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a test says about a scheduled job: None where it says nothing. ``due`` in microseconds, ``args`` as JSON."""

    task: str
    key: str | None
    group: str | None
    due: int | None
    args: str | None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _sum(before: Drained, after: Drained) -> Drained:
    ran, failed, skipped = (a + b for a, b in zip(astuple(before)[:3], astuple(after)[:3], strict=True))
    return Drained(ran, failed, skipped, after.remaining, after.next_due)


@asynccontextmanager
async def run(app: OnCue, *, start: datetime = START, url: str | None = None) -> AsyncIterator[Harness]:
    """Put an application under test: on a database of its own, with a clock that only the test moves.

    ``start``: the clock's first time (aware). ``url``: another SQLite file than one in a temporary folder. The
    application is open within; afterwards it is as it was. Raises ConfigError where it is open already.
    """
    clock = TestClock(start)
    with (
        tempfile.TemporaryDirectory(prefix="oncue-", ignore_cleanup_errors=True) as folder,
        app.bound_to(url or f"sqlite:///{folder}/test.db", clock),
    ):
        app.stand_ins = {}
        try:
            async with app:
                yield Harness(app, clock)
        finally:
            app.stand_ins = None
