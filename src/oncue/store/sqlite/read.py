"""Reading jobs from the SQLite store."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from oncue.store.sqlite.insert import SQL
from oncue.store.views import AttemptView, Counts, JobView

_jobs = msgspec.json.Decoder(list[JobView])
_attempts = msgspec.json.Decoder(list[AttemptView])
_counts = msgspec.json.Decoder(Counts)
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
        else:
            clauses.append(f"{_COLUMNS[name]} = :{name}")
    where = " AND ".join(clauses)
    query = SQL["list_jobs"].replace("{waiting}", where).replace("{finished}", where)
    return _jobs.decode(conn.execute(query, values).fetchone()[0])


def get_job(conn: sqlite3.Connection, id: int) -> JobView | None:
    """Return one job, or None."""
    found = list_jobs(conn, 1, id=id)
    return found[0] if found else None


def attempts(conn: sqlite3.Connection, id: int) -> list[AttemptView]:
    """Return the attempts that did not end the job, oldest first."""
    return _attempts.decode(conn.execute(SQL["attempts_of"], {"id": id}).fetchone()[0])


def counts(conn: sqlite3.Connection, now: int) -> Counts:
    """Return how many jobs are in which state."""
    return _counts.decode(conn.execute(SQL["counts"], {"now": now}).fetchone()[0])
