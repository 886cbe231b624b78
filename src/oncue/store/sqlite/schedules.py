"""Schedules in the SQLite store: what is defined, and the guarded step from one fire to the next."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from oncue.job import NewJob
from oncue.store import ScheduleRow
from oncue.store.sqlite.insert import SQL, as_json, fetch, insert_jobs

_rows = msgspec.json.Decoder(list[ScheduleRow])


def schedules(conn: sqlite3.Connection) -> list[ScheduleRow]:
    """Return the stored schedules by name."""
    return _rows.decode(conn.execute(SQL["schedules"]).fetchone()[0])


def save_schedule(conn: sqlite3.Connection, row: ScheduleRow) -> None:
    """Add a schedule, or change its definition; whether it is paused stays."""
    values = {"name": row.name, "task": row.task, "args": row.args, "expression": row.expression}
    options = as_json(row.options)
    conn.execute(
        SQL["save_schedule"],
        {**values, "timezone": row.timezone, "options": options, "next_at": row.next_at, "now": row.created_at},
    )


def drop_schedule(conn: sqlite3.Connection, name: str) -> None:
    """Remove a schedule; jobs that it made stay."""
    conn.execute(SQL["drop_schedule"], {"name": name})


def advance_schedule(
    conn: sqlite3.Connection, row: ScheduleRow, following: int | None, dropped: int, jobs: Sequence[NewJob]
) -> bool:
    """Store a fire's jobs and move the schedule on, unless another planner did; tell which.

    A fire that has its job already, as after a clock that was set back, makes no other.
    """
    values = {"name": row.name, "nominal": row.next_at, "following": following, "dropped": dropped}
    fired = row.next_at if jobs else row.last_at
    if conn.execute(SQL["advance_schedule"], {**values, "fired": fired}).rowcount != 1:
        return False
    if jobs:
        refs = as_json([job.origin_ref for job in jobs])
        known = set(fetch(conn, "known_fires", origin=jobs[0].origin, refs=refs))
        fresh = [job for job in jobs if job.origin_ref not in known]
        if fresh:
            insert_jobs(conn, fresh)
    return True


def pause_schedule(conn: sqlite3.Connection, name: str, paused: bool, next_at: int | None) -> bool:
    """Pause or resume a schedule; False where there is none of that name."""
    return conn.execute(SQL["pause_schedule"], {"name": name, "paused": paused, "next_at": next_at}).rowcount == 1
