"""Running steps on a sqlite3 connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

from msgspec.json import decode

from oncue.job import NewJob
from oncue.store.sql import queries
from oncue.store.sqlite import rows
from oncue.store.steps import (
    Finish,
    ForgetGone,
    Ids,
    InsertJobs,
    Query,
    ReadRows,
    Release,
    Remember,
    Steps,
    as_json,
)

T = TypeVar("T")
SQL = queries("sqlite")
ROWS = (1, 4, 16, 64, 256)


def perform(conn: sqlite3.Connection, steps: Steps[T]) -> T:
    """Run an operation's steps inside the transaction that the connection is in; return the operation's answer."""
    answer: Any = None
    try:
        while True:
            step = steps.send(answer)
            answer = _query(conn, step) if type(step) is Query else _OTHERS[type(step)](conn, step)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


def _query(conn: sqlite3.Connection, step: Query) -> Any:
    text = SQL[step.name]
    if "{where}" in text:
        text = text.replace("{where}", " AND ".join(SQL[f"where_{name}"] for name in step.filters) or "true")
    cursor = conn.execute(text, step.values)
    if step.wanted == "count":
        return cursor.rowcount
    row = cursor.fetchone()
    return None if row is None else row[0]


def _ids(conn: sqlite3.Connection, step: Ids) -> Sequence[int]:
    last = conn.execute(SQL["take_ids"], {"count": step.number, "name": step.name}).fetchone()[0]
    return range(last - step.number + 1, last + 1)


def _insert(conn: sqlite3.Connection, step: InsertJobs) -> Sequence[int]:
    jobs, done = step.jobs, 0
    while done < len(jobs):
        size = max(size for size in ROWS if size <= len(jobs) - done)
        values: list[Any] = []
        for job in jobs[done : done + size]:
            values += _columns(job)
        conn.execute(_rows_statement("insert_jobs", size, 17), values)
        done += size
    return ()


def _columns(job: NewJob) -> tuple[Any, ...]:
    return (
        job.id, job.task, job.args, job.queue, job.priority, job.scheduled_at, job.scheduled_at, job.max_attempts,
        job.created_at, job.key, job.group, job.max_late, job.when_late, job.metadata, job.origin, job.origin_ref,
        job.when_blocked,
    )  # fmt: skip


@cache
def _rows_statement(name: str, rows: int, columns: int) -> str:
    """Return a query whose ``{rows}`` are that many rows of parameters: half the cost of reading them from JSON.

    ``rows`` is one of ROWS, so that few texts have to be prepared.
    """
    row = "(" + ", ".join("?" * columns) + ")"
    return SQL[name].replace("{rows}", ", ".join([row] * rows))


def _finish(conn: sqlite3.Connection, step: Finish) -> list[int]:
    acks, worker, done = step.acks, step.worker, 0
    for start in range(0, len(acks), ROWS[-1]):
        part = acks[start : start + ROWS[-1]]
        values: list[Any] = []
        for ack in part:
            values += (
                ack.id, ack.attempt, ack.state, ack.outcome, ack.started_at, ack.finished_at, ack.result, ack.error,
                ack.traceback, ack.reason, ack.expires_at,
            )  # fmt: skip
        size = next(size for size in ROWS if size >= len(part))
        values += [None] * (11 * (size - len(part)))
        done += conn.execute(_rows_statement("finish_jobs", size, 11), [*values, worker]).rowcount
    ids = [ack.id for ack in acks]
    lost: list[int] = []
    if done != len(acks):
        lost = decode(_query(conn, Query("lost_claims", {"acks": as_json(acks), "worker": worker})))
        ids = [id for id in ids if id not in lost]
    conn.execute(SQL["drop_jobs"], {"ids": as_json(ids), "worker": worker})
    return lost


def _remember(conn: sqlite3.Connection, step: Remember) -> None:
    conn.executemany(SQL["source_remember"], [(step.source, *entry) for entry in step.entries])


_OTHERS: dict[type, Callable[[sqlite3.Connection, Any], Any]] = {
    Ids: _ids,
    InsertJobs: _insert,
    Finish: _finish,
    # Nobody else writes now, so it is done here.
    Release: lambda _conn, _step: False,
    Remember: _remember,
    ReadRows: lambda conn, step: rows.read_rows(conn, step.table, step.keys),
    ForgetGone: lambda conn, step: rows.forget_gone(conn, step.source, step.before, step.table, step.listed),
}
