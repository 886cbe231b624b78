"""The planner: turns schedules into jobs, each fire once however many processes plan."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from oncue.clock import SECOND, Clock
from oncue.cron import Cron, Every, jitter_us, missed, parse_schedule
from oncue.errors import ConfigError
from oncue.job import NewJob, WhenLate
from oncue.store import ScheduleRow, Store
from oncue.store.operating import AuditRow
from oncue.store.steps import Steps
from oncue.store.steps.insert import insert_jobs
from oncue.store.steps.operate import add_audit
from oncue.store.steps.schedules import pause_schedule
from oncue.task import Call, Missed, Overlap
from oncue.tracing import carried
from oncue.words import counted

log = logging.getLogger("oncue.planner")
_GRACE = SECOND


@dataclass(frozen=True, slots=True)
class Schedule:
    """A recurring definition: when, what, and what to do about overlap and missed fires. ``jitter`` in seconds."""

    name: str
    when: Cron | Every
    call: Call[Any]
    overlap: Overlap = "skip"
    missed: Missed = "once"
    max_missed: int = 10
    jitter: float = 0.0


def check_schedule(overlap: str, missed: str, max_missed: int, jitter: float) -> None:
    """Raise ConfigError for options of a schedule that can't work."""
    known = ("overlap", overlap, ("skip", "queue", "allow")), ("missed", missed, ("skip", "once", "all"))
    for name, value, words in known:
        if value not in words:
            raise ConfigError(f"{name} is one of {', '.join(map(repr, words))}, not {value!r}.")
    if max_missed < 1 or jitter < 0:
        raise ConfigError(f"max_missed ({max_missed}) is at least 1 and jitter ({jitter}) at least 0 seconds.")


class _Options(msgspec.Struct, omit_defaults=True):
    app: str
    queue: str
    priority: int
    max_attempts: int
    overlap: Overlap = "skip"
    missed: Missed = "once"
    max_missed: int = 10
    jitter: float = 0.0
    max_late: int | None = None
    when_late: WhenLate = "run"


class Planner:
    """Keeps the stored schedules in step with those in code, and makes a job of each fire."""

    def __init__(self, store: Store, clock: Clock, app: str, schedules: Mapping[str, Schedule]) -> None:
        self._store, self._clock, self._app, self._schedules = store, clock, app, schedules
        self._stored: set[str] = set()

    async def sync(self) -> None:
        """Make the store's schedules those of the code, and log what changed."""
        now = self._clock.now()
        wanted = {name: self._row(schedule, now) for name, schedule in self._schedules.items()}
        found = {row.name: row for row in await self._store.schedules()}
        for name, row in wanted.items():
            old = found.get(name)
            if old is not None and old.next_at is not None and _definition(old) == _definition(row):
                continue
            changed_when = old is None or (old.expression, old.timezone) != (row.expression, row.timezone)
            if not changed_when and old is not None and old.next_at is not None:
                row.next_at = old.next_at
            await self._store.save_schedule(row)
            log.info("schedule %s %s: %s", name, "added" if old is None else "changed", row.expression)
        for name, row in found.items():
            if name not in wanted and msgspec.convert(row.options, _Options).app == self._app:
                await self._store.drop_schedule(name)
                log.warning("schedule %s is no longer in the code: removed", name)
        self._stored = set(wanted)

    def _row(self, schedule: Schedule, now: int) -> ScheduleRow:
        task = schedule.call.task
        options = _Options(
            self._app,
            task.options.queue,
            task.options.priority,
            task.options.retry.max_attempts,
            schedule.overlap,
            schedule.missed,
            schedule.max_missed,
            schedule.jitter,
            task.max_late_us,
            task.options.when_late,
        )
        zone = schedule.when.timezone if isinstance(schedule.when, Cron) else "UTC"
        return ScheduleRow(
            schedule.name,
            task.name,
            schedule.call.args,
            schedule.when.text,
            zone,
            msgspec.to_builtins(options),
            schedule.when.next_after(now),
            None,
            0,
            0,
            now,
        )

    async def run_once(self, until: int | None = None) -> int:
        """Make the jobs of all fires that are due by ``until`` (microseconds; now by default); return how many."""
        now = self._clock.now()
        until = now if until is None else max(now, until)
        fired = 0
        rows = await self._store.schedules()
        self._tell_removed({row.name for row in rows})
        for row in rows:
            if not row.paused and row.next_at is not None and row.next_at <= until:
                try:
                    fired += await self._fire(row, until)
                except (ValueError, msgspec.ValidationError) as error:
                    log.error(
                        "schedule %s can't be read by this version (%s): it is at rest until a start of the version "
                        "that wrote it, or `oncue schedules resume %s`",
                        row.name,
                        error,
                        row.name,
                    )
                    # Without this the other schedules would wait for it, too.
                    await self._store.advance_schedule(row, None, 0, [])
        return fired

    def _tell_removed(self, there: set[str]) -> None:
        """Tell, once each, of schedules of this process that another one has taken out of the database."""
        for name in sorted(self._stored - there):
            log.error(
                "schedule %s was removed from the database by another process of application %r that does not declare "
                "it (an older or newer deploy, or another program on the same file): it does not fire any more. Give "
                "each program a name of its own, OnCue(..., name=...), and restart this one.",
                name,
                self._app,
            )
        self._stored &= there

    async def _fire(self, row: ScheduleRow, until: int) -> int:
        options = msgspec.convert(row.options, _Options)
        when = parse_schedule(row.expression, row.timezone)
        assert row.next_at is not None
        fires, following, dropped = missed(
            when, row.next_at, until, options.missed, options.max_missed, grace_us=_GRACE + until - self._clock.now()
        )
        jobs = [self._job(row, options, nominal) for nominal in fires]
        done = await self._store.advance_schedule(row, following, dropped, jobs)
        if done and dropped:
            lost = counted(dropped, "missed fire was", "missed fires were")
            log.warning("schedule %s: %s dropped (missed=%s)", row.name, lost, options.missed)
        return len(jobs) if done else 0

    def _job(self, row: ScheduleRow, options: _Options, nominal: int) -> NewJob:
        due = nominal + (jitter_us(row.name, nominal, options.jitter) if options.jitter else 0)
        return NewJob(
            0,
            row.task,
            row.args,
            options.queue,
            options.priority,
            due,
            options.max_attempts,
            self._clock.now(),
            max_late=options.max_late,
            when_late=options.when_late,
            metadata=carried(None, row.task),
            group=None if options.overlap == "allow" else f"cron:{row.name}",
            origin=f"cron:{row.name}",
            origin_ref=str(nominal),
            # Who asked for all missed fires gets them one after the other: none of them is in the way of the next.
            when_blocked="skip" if options.overlap == "skip" and nominal >= self._clock.now() - _GRACE else "wait",
        )

    async def pause(self, name: str, paused: bool = True, record: AuditRow | None = None) -> bool:
        """Pause or resume a schedule; False where there is none. Fires from before it is resumed are left out.

        ``record``: the line of the audit, by the same transaction.
        """
        row = next((row for row in await self._store.schedules() if row.name == name), None)
        if row is None:
            return False
        when = parse_schedule(row.expression, row.timezone)
        goes_on = not row.paused and row.next_at is not None
        next_at = row.next_at if paused or goes_on else when.next_after(self._clock.now())

        def steps() -> Steps[bool]:
            done = yield from pause_schedule(name, paused, next_at)
            if done and record is not None:
                yield from add_audit(record)
            return done

        return await self._store.change(steps, next_at)

    async def run_now(self, name: str, record: AuditRow | None = None) -> int | None:
        """Make a job of this schedule at once, apart from its fires; return its id, None where there is no such.

        ``record``: the line of the audit, by the same transaction, which adds the job to it.
        """
        row = next((row for row in await self._store.schedules() if row.name == name), None)
        if row is None:
            return None
        now = self._clock.now()
        job = self._job(row, msgspec.convert(row.options, _Options), now)
        job.scheduled_at, job.origin_ref = now, f"manual:{now}"

        def steps() -> Steps[int]:
            # A copy: what is stored is changed by that, and steps may run again.
            (made,) = yield from insert_jobs([msgspec.structs.replace(job)])
            if record is not None:
                detail = msgspec.json.encode({"answer": f"Job {made.id} is due now."}).decode()
                yield from add_audit(msgspec.structs.replace(record, detail=detail))
            return made.id

        return await self._store.change(steps, now)


def _definition(row: ScheduleRow) -> Sequence[Any]:
    return (row.task, row.args, row.expression, row.timezone, row.options)
