"""Reading jobs from the SQLite store."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from oncue.job import GROUP, KEY
from oncue.store.sqlite.insert import SQL, as_json, fetch
from oncue.store.views import AttemptView, Backlog, Blocker, Counts, JobView, QueueView

_jobs = msgspec.json.Decoder(list[JobView])
_attempts = msgspec.json.Decoder(list[AttemptView])
_counts = msgspec.json.Decoder(Counts)
_backlog = msgspec.json.Decoder(Backlog)
_queues = msgspec.json.Decoder(list[QueueView])
_COLUMNS = {"id": "id", "task": "task", "queue": "queue", "key": "key", "group": "group_name"}


def list_jobs(conn: sqlite3.Connection, limit: int, **filters: Any) -> list[JobView]:
    """Return jobs, newest id first, that match all filters; ``state`` is a list, ``before`` an id."""
    clauses: list[str] = ["1"]
    values: dict[str, Any] = {"limit": limit}
    for name, value in filters.items():
        if value is None or value == () or value == []:
            continue
        values[name] = value
        if name == "state":
            values[name] = msgspec.json.encode(list(value)).decode()
            clauses.append("state IN (SELECT value FROM json_each(:state))")
        elif name == "before":
            clauses.append("id < :before")
        elif name == "ids":
            values[name] = as_json(value)
            clauses.append("id IN (SELECT value FROM json_each(:ids))")
        else:
            clauses.append(f"{_COLUMNS[name]} = :{name}")
    where = " AND ".join(clauses)
    query = SQL["list_jobs"].replace("{waiting}", where).replace("{finished}", where)
    return _jobs.decode(conn.execute(query, values).fetchone()[0])


def get_job(conn: sqlite3.Connection, id: int) -> JobView | None:
    """Return one job, or None."""
    found = list_jobs(conn, 1, id=id)
    return found[0] if found else None


def gone(conn: sqlite3.Connection, ids: Sequence[int]) -> list[int]:
    """Return those of ``ids`` that wait and run no more."""
    found: list[int] = fetch(conn, "gone", ids=as_json(ids))
    return found


def attempts(conn: sqlite3.Connection, id: int) -> list[AttemptView]:
    """Return the attempts that did not end the job, oldest first."""
    return _attempts.decode(conn.execute(SQL["attempts_of"], {"id": id}).fetchone()[0])


def counts(conn: sqlite3.Connection, now: int) -> Counts:
    """Return how many jobs are in which state."""
    return _counts.decode(conn.execute(SQL["counts"], {"now": now}).fetchone()[0])


def backlog(conn: sqlite3.Connection, now: int, queues: frozenset[str] | None) -> Backlog:
    """Return what is left to do in these queues (None: in all)."""
    wanted = None if queues is None else as_json(sorted(queues))
    return _backlog.decode(conn.execute(SQL["backlog"], {"now": now, "queues": wanted}).fetchone()[0])


def queues(conn: sqlite3.Connection, now: int) -> list[QueueView]:
    """Return the queues by name."""
    return _queues.decode(conn.execute(SQL["queues"], {"now": now}).fetchone()[0])


def overdue(conn: sqlite3.Connection, before: int, limit: int) -> list[JobView]:
    """Return jobs that were due before that time and don't run, longest overdue first."""
    ids = fetch(conn, "overdue", before=before, limit=limit)
    found = list_jobs(conn, limit, ids=ids) if ids else []
    return sorted(found, key=lambda job: (job.scheduled_at, job.id))


def blockers(conn: sqlite3.Connection) -> list[Blocker]:
    """Return everything that jobs wait behind, except limits and due times."""
    waiting = dict(fetch(conn, "blocked_names"))
    groups = as_json([name.removeprefix(GROUP) for name in waiting if name.startswith(GROUP)])
    keys = as_json([name.removeprefix(KEY) for name in waiting if name.startswith(KEY)])
    holders = {GROUP + group: id for group, id in fetch(conn, "group_heads", groups=groups) if id is not None}
    # A head that is itself parked behind its group holds nobody: then nothing does.
    parked = list_jobs(conn, len(holders), ids=list(holders.values())) if holders else []
    for job in parked:
        if job.group is not None and job.blocked_by == GROUP + job.group:
            del holders[job.blocked_by]
    holders |= {GROUP + group: id for group, id in fetch(conn, "busy_groups", groups=groups)}
    holders |= {KEY + key: id for key, id in fetch(conn, "started_keys", keys=keys)}
    return [Blocker(name, count, holders.get(name)) for name, count in waiting.items()]
