"""What the operator's view reads of jobs: ids that match a search, counts, bins, and what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from oncue.store.steps import Query, Steps, as_json, ask, fetch

_FEW = ("running", "discarded", "blocked", "due")


class Live(msgspec.Struct):
    """How many jobs wait and run, how many were given up, and when the next may start (microseconds)."""

    scheduled: int
    due: int
    late: int
    blocked: int
    running: int
    discarded: int
    next_due: int | None


class Group(NamedTuple):
    """The jobs of a queue and a task: how many are due, late, scheduled for later, blocked, and running."""

    queue: str
    task: str
    due: int
    late: int
    later: int
    blocked: int
    running: int


class Search(msgspec.Struct, frozen=True):
    """The conditions (names of ``where_...`` queries) on jobs that wait or run, and on finished ones.

    None: no job of that kind can match.
    """

    waiting: Sequence[str] | None
    finished: Sequence[str] | None
    values: Mapping[str, Any]


class Change(NamedTuple):
    """Where a job is: enough to see that it went on."""

    id: int
    state: str
    attempt: int
    eligible_at: int | None


def id_span() -> Steps[tuple[int, int] | None]:
    """Return the lowest and the highest id of all jobs; None without any."""
    first, last = yield from fetch("id_span")
    return None if first is None else (first, last)


def matching_ids(search: Search, start: int, before: int, limit: int) -> Steps[list[int]]:
    """Return up to ``limit`` ids from ``start`` on and below ``before`` that match, the highest first."""
    found: set[int] = set()
    values = {**search.values, "from": start, "before": before, "limit": limit}
    # First those that wait: a job that ends meanwhile is then found twice, and not never.
    for name, filters in (("waiting_ids", search.waiting), ("finished_ids", search.finished)):
        if filters is not None:
            text = yield Query(name, values, filters=list(filters))
            found.update(msgspec.json.decode(text, type=list[int]))
    return sorted(found, reverse=True)[:limit]


def next_below(search: Search, before: int) -> Steps[int | None]:
    """Return the highest id below ``before`` of the tables that are searched; None where there is none."""
    tables = {"waiting": int(search.waiting is not None), "finished": int(search.finished is not None)}
    found: int | None = yield ask("next_below", before=before, **tables)
    return found


def few_of_key(key: str, most: int) -> Steps[list[int]]:
    """Return up to ``most`` ids of jobs with that key."""
    found: list[int] = yield from fetch("few_of_key", key=key, most=most)
    return found


def few(kind: str, most: int, until: int) -> Steps[list[int]]:
    """Return up to ``most`` ids of a kind that an index finds: ``running``, ``discarded``, ``blocked``, ``due``."""
    assert kind in _FEW
    values = {"most": most, "until": until} if kind == "due" else {"most": most}
    found: list[int] = yield from fetch(f"few_{kind}", **values)
    return found


def running_longest(most: int) -> Steps[dict[int, list[tuple[int, str, int]]]]:
    """Return up to ``most`` jobs that each worker runs, what began first first: (id, task, when it began)."""
    found: dict[int, list[tuple[int, str, int]]] = {}
    for worker, id, task, began in (yield from fetch("running_longest", most=most)):
        found.setdefault(worker, []).append((id, task, began))
    return found


def last_errors(ids: Sequence[int]) -> Steps[dict[int, tuple[str | None, str | None]]]:
    """Return what the last attempt of each job that had one said: (error, reason)."""
    return {id: (error, reason) for id, error, reason in (yield from fetch("last_errors", ids=as_json(ids)))}


def live_counts(now: int, late: int) -> Steps[Live]:
    """Count what waits and runs; ``late`` is what was to start by then."""
    return msgspec.json.decode((yield ask("live_counts", now=now, late=late)), type=Live)


def final_counts(start: int, before: int) -> Steps[dict[str, int]]:
    """Count the kept history by state, from one id to below another. Reads all of that."""
    found: dict[str, int] = yield from fetch("final_counts", **{"from": start, "before": before})
    return found


def coming_bins(after: int, width: int, number: int) -> Steps[list[int]]:
    """Count what becomes eligible in each of so many spans of ``width`` microseconds from ``after`` on."""
    bins = [0] * number
    for bin, count in (yield from fetch("coming_bins", after=after, until=after + number * width, width=width)):
        bins[bin] = count
    return bins


def groups(now: int, late: int) -> Steps[list[Group]]:
    """Count what waits and runs by queue and task. Reads all of it."""
    return [Group(*row) for row in (yield from fetch("groups_of_jobs", now=now, late=late))]


def discarded_groups() -> Steps[list[tuple[str, str, int]]]:
    """Count what was given up by queue and task."""
    return [(queue, task, count) for queue, task, count in (yield from fetch("groups_of_discarded"))]


def fires(schedule: str, limit: int) -> Steps[list[tuple[int, str | None, int]]]:
    """Return a schedule's last jobs: (id, nominal time or ``manual:...``, due time), the latest first."""
    rows = yield from fetch("fires_of", origin=f"cron:{schedule}", limit=limit)
    return [(id, ref, due) for id, ref, due in rows]


def states_of(ids: Sequence[int]) -> Steps[list[Change]]:
    """Return where these jobs are now."""
    return [Change(*row) for row in (yield from fetch("states_of", ids=as_json(ids)))]


def newest_ids(after: int, limit: int) -> Steps[list[int]]:
    """Return up to ``limit`` ids above ``after``, of the highest."""
    found: list[int] = yield from fetch("newest_ids", after=after, limit=limit)
    return sorted(found)[-limit:]
