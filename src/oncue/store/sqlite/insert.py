"""Storing jobs: new rows, and what becomes of one whose key is taken. Works on any sqlite3 connection."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from msgspec.json import decode, encode

from oncue.job import GROUP, Inserted, NewJob
from oncue.store.sql import queries

SQL = queries("sqlite")
ROWS = (1, 4, 16, 64, 256)


def as_json(value: object) -> str:
    """Return the JSON text of a batch, as the queries take it."""
    return encode(value).decode()


def fetch(conn: sqlite3.Connection, name: str, **values: Any) -> Any:
    """Run a named query that answers one JSON text, and decode it."""
    return decode(conn.execute(SQL[name], values).fetchone()[0])


def take_ids(conn: sqlite3.Connection, count: int, name: str = "job") -> int:
    """Reserve ``count`` ids and return the first."""
    row = conn.execute(SQL["take_ids"], {"count": count, "name": name}).fetchone()
    return int(row[0]) - count + 1


def insert_jobs(conn: sqlite3.Connection, jobs: Sequence[NewJob]) -> list[Inserted]:
    """Store the jobs in order; a key that is taken is settled by the job's ``on_conflict``."""
    first = take_ids(conn, len(jobs))
    for number, job in enumerate(jobs):
        job.id = first + number
    if any(job.key is not None for job in jobs):
        return _insert_keyed(conn, jobs)
    _add_rows(conn, jobs)
    return [Inserted(job.id, "created", job.scheduled_at) for job in jobs]


def _add_rows(conn: sqlite3.Connection, jobs: Sequence[NewJob]) -> None:
    done = 0
    while done < len(jobs):
        size = max(size for size in ROWS if size <= len(jobs) - done)
        values: list[Any] = []
        for job in jobs[done : done + size]:
            values += (
                job.id, job.task, job.args, job.queue, job.priority, job.scheduled_at, job.scheduled_at,
                job.max_attempts, job.created_at, job.key, job.group, job.max_late, job.when_late, job.metadata,
                job.origin, job.origin_ref, job.when_blocked,
            )  # fmt: skip
        conn.execute(rows_statement("insert_jobs", size, 17), values)
        done += size
    made = [job.id for job in jobs if job.origin is not None]
    if made:
        # After a restore: what the backup does not know to be done must not be done again unasked.
        conn.execute(SQL["hold_made"], {"ids": as_json(made)})


@cache
def rows_statement(name: str, rows: int, columns: int) -> str:
    """Return a query whose ``{rows}`` are that many rows of parameters: half the cost of reading them from JSON.

    ``rows`` is one of ROWS, so that few texts have to be prepared.
    """
    row = "(" + ", ".join("?" * columns) + ")"
    return SQL[name].replace("{rows}", ", ".join([row] * rows))


class _Waiting:
    """The waiting job of a key: stored before, or made by this very batch (``job``)."""

    __slots__ = ("created_at", "group", "id", "job", "scheduled_at")

    def __init__(self, id: int, scheduled_at: int, created_at: int, group: str | None, job: NewJob | None) -> None:
        self.id, self.scheduled_at, self.created_at, self.group, self.job = id, scheduled_at, created_at, group, job


def _insert_keyed(conn: sqlite3.Connection, jobs: Sequence[NewJob]) -> list[Inserted]:
    keys = sorted({job.key for job in jobs if job.key is not None})
    waiting: dict[str, _Waiting] = {}
    started: dict[str, tuple[int, int]] = {}
    for id, key, is_started, due, created, group in fetch(conn, "jobs_with_keys", keys=as_json(keys)):
        if is_started:
            started[key] = (id, due)
        else:
            waiting[key] = _Waiting(id, due, created, group, None)
    results: list[Inserted] = []
    fresh: list[NewJob] = []
    folds: Counter[int] = Counter()
    for job in jobs:
        found = waiting.get(job.key) if job.key is not None else None
        if job.key is not None and job.key in started and job.while_started == "keep":
            id, due = started[job.key]
            folds[id] += 1
            results.append(Inserted(id, "kept", due))
        elif found is None:
            fresh.append(job)
            if job.key is not None:
                waiting[job.key] = _Waiting(job.id, job.scheduled_at, job.created_at, job.group, job)
            results.append(Inserted(job.id, "created", job.scheduled_at))
        else:
            folds[found.id] += 1
            results.append(_fold(conn, found, job))
    if fresh:
        _add_rows(conn, fresh)
    if folds:
        conn.execute(SQL["fold_jobs"], {"folds": as_json(list(folds.items()))})
    return results


def _fold(conn: sqlite3.Connection, found: _Waiting, job: NewJob) -> Inserted:
    """Settle a job whose key has a waiting one, by its ``on_conflict``."""
    if found.job is not None:
        return _fold_in_batch(found, job)
    if job.on_conflict == "keep":
        return Inserted(found.id, "kept", found.scheduled_at)
    due = _new_due(found, job)
    if job.on_conflict == "reschedule":
        conn.execute(SQL["move_job"], {"id": found.id, "due": due})
    else:
        job.id, job.scheduled_at = found.id, due
        # The job becomes the application's own: what its row asks for is open again.
        conn.execute(SQL["forget_replaced"], {"id": found.id})
        conn.execute(SQL["replace_job"], {"jobs": as_json([job])})
    if found.group is not None:
        release(conn, (GROUP + found.group,))
        found.group = job.group if job.on_conflict != "reschedule" else found.group
    found.scheduled_at = due
    return Inserted(found.id, _STATUS[job.on_conflict], due)


def _fold_in_batch(found: _Waiting, job: NewJob) -> Inserted:
    assert found.job is not None
    if job.on_conflict == "keep":
        return Inserted(found.id, "kept", found.scheduled_at)
    due = _new_due(found, job)
    if job.on_conflict != "reschedule":
        for name in ("task", "args", "queue", "priority", "max_attempts", "group", "max_late", "when_late", "metadata"):
            setattr(found.job, name, getattr(job, name))
    found.job.scheduled_at = found.scheduled_at = due
    return Inserted(found.id, _STATUS[job.on_conflict], due)


_STATUS: Any = {"replace": "replaced", "reschedule": "rescheduled", "debounce": "debounced"}


def _new_due(found: _Waiting, job: NewJob) -> int:
    """A debounced job moves back, but never beyond the longest wait after it was first asked for."""
    if job.on_conflict != "debounce" or job.max_wait is None:
        return job.scheduled_at
    return min(job.scheduled_at, max(found.created_at + job.max_wait, job.created_at))


def release(conn: sqlite3.Connection, names: Sequence[str]) -> None:
    """Make the first job behind each of these blockers eligible; for a cap, one for each time it is named."""
    lanes = [name for name in dict.fromkeys(names) if not name.startswith("cap:")]
    if lanes:
        conn.execute(SQL["release_heads"], {"names": as_json(lanes)})
    caps: dict[str, int] = {}
    for name in names:
        if name.startswith("cap:"):
            caps[name] = caps.get(name, 0) + 1
    for name, count in caps.items():
        conn.execute(SQL["release_some"], {"name": name, "count": count})
