"""Schedules: what is defined, and the guarded step from one fire to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from oncue.job import NewJob
from oncue.store import ScheduleRow
from oncue.store.steps import Steps, as_json, ask, fetch, run
from oncue.store.steps.insert import insert_jobs

_rows = msgspec.json.Decoder(list[ScheduleRow])


def schedules() -> Steps[list[ScheduleRow]]:
    """Return the stored schedules by name."""
    return _rows.decode((yield ask("schedules")))


def save_schedule(row: ScheduleRow) -> Steps[None]:
    """Add a schedule, or change its definition; whether it is paused stays."""
    values: dict[str, Any] = {"name": row.name, "task": row.task, "args": row.args, "expression": row.expression}
    values |= {"timezone": row.timezone, "options": as_json(row.options)}
    yield run("save_schedule", **values, next_at=row.next_at, now=row.created_at)


def drop_schedule(name: str) -> Steps[None]:
    """Remove a schedule; jobs that it made stay."""
    yield run("drop_schedule", name=name)


def advance_schedule(row: ScheduleRow, following: int | None, dropped: int, jobs: Sequence[NewJob]) -> Steps[bool]:
    """Store a fire's jobs and move the schedule on, unless another planner did; tell which.

    A fire that has its job already, as after a clock that was set back, makes no other.
    """
    values = {"name": row.name, "nominal": row.next_at, "following": following, "dropped": dropped}
    fired = row.next_at if jobs else row.last_at
    if (yield run("advance_schedule", **values, fired=fired)) != 1:
        return False
    if jobs:
        refs = as_json([job.origin_ref for job in jobs])
        known = set((yield from fetch("known_fires", origin=jobs[0].origin, refs=refs)))
        fresh = [job for job in jobs if job.origin_ref not in known]
        if fresh:
            yield from insert_jobs(fresh)
    return True


def pause_schedule(name: str, paused: bool, next_at: int | None) -> Steps[bool]:
    """Pause or resume a schedule; False where there is none of that name."""
    return bool((yield run("pause_schedule", name=name, paused=int(paused), next_at=next_at)) == 1)
