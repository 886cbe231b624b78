"""Steps as statements for PostgreSQL, and running them on asyncpg."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.json import decode

from oncue.job import Ack
from oncue.store.postgres.statement import Statement
from oncue.store.sql import queries
from oncue.store.steps import (
    Finish,
    Ids,
    InsertJobs,
    Query,
    ReadRows,
    Release,
    Remember,
    Step,
    Steps,
    as_json,
)

if TYPE_CHECKING:
    import asyncpg

T = TypeVar("T")
_NAMES = (
    "job", "finished", "finished_rest", "attempt", "worker", "schedule", "source", "source_row", "source_change",
    "limit", "queue", "release", "counter", "adopted", "channel", "person", "chat", "chat_step", "message", "sent",
    "status", "inbound", "update", "event", "audit", "token", "task_pause", "minute", "alert",
    "job_id_seq", "worker_id_seq",
)  # fmt: skip
_TABLE = re.compile(rf"\boncue_({'|'.join(_NAMES)})\b")
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)\b")


def qualified(text: str, schema: str) -> str:
    """Return a text in which OnCue's tables are named with their schema, whatever the search path is."""
    return _TABLE.sub(lambda found: f'"{schema}".{found[0]}', text)


@cache
def _text(name: str, schema: str, filters: tuple[str, ...] = ()) -> tuple[str, tuple[str, ...]]:
    """Return a named query with ``$1``, ``$2``, ... and the names that these stand for."""
    sql = queries("postgres")
    text = sql[name]
    if "{where}" in text:
        text = text.replace("{where}", " AND ".join(sql[f"where_{one}"] for one in filters) or "true")
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    return _PARAMETER.sub(number, qualified(text, schema)), tuple(names)


def named(name: str, schema: str, values: Mapping[str, Any], filters: Sequence[str] = ()) -> tuple[str, list[Any]]:
    """Return a named query's text and its arguments in order."""
    text, names = _text(name, schema, tuple(filters))
    return text, [values[one] for one in names]


def statements(step: Step, schema: str, *, locked: bool) -> list[Statement]:
    """Return what a step is in SQL. ``locked``: the transaction holds the lock under which blocked jobs are freed."""
    if isinstance(step, Query):
        text, args = named(step.name, schema, step.values, step.filters)
        return [Statement(text, tuple(args), step.wanted)]
    if isinstance(step, Ids):
        text, args = named("take_worker_ids" if step.name == "worker" else "take_ids", schema, {"count": step.number})
        return [Statement(text, tuple(args), read=decode)]
    if isinstance(step, InsertJobs):
        return [_insert(step, schema)]
    if isinstance(step, Finish):
        acks = sorted(step.acks, key=lambda ack: ack.attempt)
        return [
            _finish(step.worker, attempt, list(part), schema)
            for attempt, part in groupby(acks, lambda ack: ack.attempt)
        ]
    if isinstance(step, Release):
        if locked:
            return []
        text, args = named("release_later", schema, {"names": as_json(list(step.names))})
        return [Statement(text, tuple(args), "count")]
    from oncue.store.postgres import rows

    if isinstance(step, ReadRows):
        return [rows.read_rows(step.table, step.keys)]
    if isinstance(step, Remember):
        return [rows.remember(step.source, step.entries, schema)]
    return [rows.forget_gone(step.source, step.before, step.table, step.listed, schema)]


def answer_of(step: Step, answers: list[Any]) -> Any:
    """Put the answers of a step's statements together."""
    if isinstance(step, Finish):
        return [id for lost in answers for id in lost]
    if isinstance(step, Release):
        return bool(answers)
    return answers[0]


def _insert(step: InsertJobs, schema: str) -> Statement:
    # In the order of their keys, so that two who store the same keys wait for each other instead of for ever.
    jobs = sorted(step.jobs, key=lambda job: (job.key or "", job.id))
    columns = {
        name: [getattr(job, name) for job in jobs]
        for name in (
            "id", "task", "args", "queue", "priority", "scheduled_at", "max_attempts", "created_at", "key", "max_late",
            "when_late", "metadata", "origin", "origin_ref", "when_blocked",
        )
    }  # fmt: skip
    text, args = named("insert_jobs", schema, {**columns, "group_name": [job.group for job in jobs]})
    wanted = set(columns["id"])
    return Statement(text, tuple(args), read=lambda made: sorted(wanted.difference(decode(made))))


def _finish(worker: int | None, attempt: int, acks: Sequence[Ack], schema: str) -> Statement:
    values: dict[str, Any] = {
        name: [getattr(ack, name) for ack in acks] for name in ("id", "started_at", "finished_at")
    }
    values |= {"worker": worker, "attempt": attempt}
    first = acks[0]
    retention = None if first.expires_at is None else first.expires_at - first.finished_at
    if all(_is_bare(ack, retention) for ack in acks):
        text, args = named("finish_completed", schema, {**values, "retention": retention})
        return Statement(text, tuple(args), read=decode)
    for name in ("state", "outcome", "result", "error", "traceback", "reason", "expires_at"):
        values[name] = [getattr(ack, name) for ack in acks]
    text, args = named("finish_jobs", schema, values)
    return Statement(text, tuple(args), read=decode)


def _is_bare(ack: Ack, retention: int | None) -> bool:
    """Tell whether an outcome is a completion without a result or a reason, to be kept so long."""
    return (
        ack.outcome == "completed"
        and ack.result is None
        and ack.reason is None
        and (ack.expires_at is None if retention is None else ack.expires_at == ack.finished_at + retention)
    )


async def perform(conn: asyncpg.Connection[Any], steps: Steps[T], schema: str, *, locked: bool = False) -> T:
    """Run an operation's steps inside the transaction that the connection is in; return the operation's answer."""
    answer: Any = None
    try:
        while True:
            step = steps.send(answer)
            answers = [await execute(conn, one) for one in statements(step, schema, locked=locked)]
            answer = answer_of(step, answers)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def execute(conn: asyncpg.Connection[Any], statement: Statement) -> Any:
    """Run one statement on asyncpg and return its answer."""
    answer: Any
    if statement.wanted == "value":
        answer = await conn.fetchval(statement.sql, *statement.args)
    elif statement.wanted == "rows":
        answer = await conn.fetch(statement.sql, *statement.args)
    else:
        # The status reads "UPDATE 3" or "INSERT 0 3".
        answer = int((await conn.execute(statement.sql, *statement.args)).rpartition(" ")[2])
    return answer if statement.read is None else statement.read(answer)
