"""Reading jobs, queues and workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from oncue.job import FINAL, GROUP, KEY
from oncue.store.steps import Query, Steps, as_json, ask, fetch, overview
from oncue.store.views import AttemptView, Backlog, Blocker, Counts, JobView, QueueView
from oncue.tracing import RESERVED, without_trace

_FEW = 10_000
_EVER = 1 << 62
_jobs = msgspec.json.Decoder(list[JobView])
_attempts = msgspec.json.Decoder(list[AttemptView])
_counts = msgspec.json.Decoder(Counts)
_backlog = msgspec.json.Decoder(Backlog)
_queues = msgspec.json.Decoder(list[QueueView])


def list_jobs(limit: int, **filters: Any) -> Steps[list[JobView]]:
    """Return jobs, newest id first, that match all filters; ``state`` is a list, ``before`` an id."""
    wanted = {name: value for name, value in filters.items() if value is not None and value not in ((), [])}
    values = {name: as_json(list(value)) if name in ("state", "ids") else value for name, value in wanted.items()}
    if not wanted.keys() & {"id", "ids"}:
        # First which ones, by the indexes: else all that match are made into JSON and sorted, to show a few.
        ids = yield from _ids_of(set(wanted.get("state", ())), values, limit)
        return (yield from list_jobs(len(ids), ids=ids)) if ids else []
    found = _jobs.decode((yield Query("list_jobs", {**values, "limit": limit}, filters=list(wanted))))
    return [_shown(job) for job in found]


def _ids_of(states: set[str], values: dict[str, Any], limit: int) -> Steps[list[int]]:
    """Return the highest ids of jobs that match; a table that has none in these states is not read."""
    conditions = [name for name in values if name != "before"]
    few: list[int] | None = None
    if "key" in values:
        few = yield from overview.few_of_key(values["key"], _FEW + 1)
    elif states == {"discarded"}:
        few = yield from overview.few("discarded", _FEW + 1, 0)
    if few is not None and len(few) <= _FEW:
        conditions, values = ["one_of", *conditions], {**values, "one_of": as_json(few)}
    waiting = conditions if not states or states & {"scheduled", "running"} else None
    finished = conditions if not states or states & set(FINAL) else None
    search = overview.Search(waiting, finished, values)
    return (yield from overview.matching_ids(search, 0, values.get("before", _EVER), limit))


def _shown(job: JobView) -> JobView:
    """Return a job without its trace, and a running one as started when it was due: workers claim a little ahead, and
    wait for the due time."""
    if isinstance(job.metadata, dict) and RESERVED in job.metadata:
        job = msgspec.structs.replace(job, metadata=without_trace(job.metadata))
    if job.state != "running" or job.started_at is None:
        return job
    due = job.scheduled_at if job.eligible_at is None else job.eligible_at
    return msgspec.structs.replace(job, started_at=due) if due > job.started_at else job


def get_job(id: int) -> Steps[JobView | None]:
    """Return one job, or None."""
    found = yield from list_jobs(1, id=id)
    return found[0] if found else None


def gone(ids: Sequence[int]) -> Steps[list[int]]:
    """Return those of ``ids`` that wait and run no more."""
    found: list[int] = yield from fetch("gone", ids=as_json(ids))
    return found


def attempts(id: int, since: int = 1) -> Steps[list[AttemptView]]:
    """Return the attempts that did not end the job, oldest first: the first one, and those from ``since`` on."""
    return _attempts.decode((yield ask("attempts_of", id=id, since=since)))


def counts(now: int) -> Steps[Counts]:
    """Return how many jobs are in which state."""
    return _counts.decode((yield ask("counts", now=now)))


def backlog(now: int, queues: frozenset[str] | None) -> Steps[Backlog]:
    """Return what is left to do in these queues (None: in all)."""
    wanted = None if queues is None else as_json(sorted(queues))
    return _backlog.decode((yield ask("backlog", now=now, queues=wanted)))


def coming(after: int, until: int, limit: int, queues: frozenset[str] | None) -> Steps[list[tuple[int, int]]]:
    """Return the first ``limit`` waiting jobs that become eligible after ``after`` and by ``until``: (id, when)."""
    wanted = None if queues is None else as_json(sorted(queues))
    found: list[list[int]] = yield from fetch("coming", after=after, until=until, limit=limit, queues=wanted)
    return [(id, eligible_at) for id, eligible_at in found]


def queues(now: int) -> Steps[list[QueueView]]:
    """Return the queues by name."""
    return _queues.decode((yield ask("queues", now=now)))


def overdue(before: int, limit: int) -> Steps[list[JobView]]:
    """Return jobs that were due before that time and don't run, longest overdue first."""
    ids = yield from fetch("overdue", before=before, limit=limit)
    found = (yield from list_jobs(limit, ids=ids)) if ids else []
    return sorted(found, key=lambda job: (job.scheduled_at, job.id))


def blockers() -> Steps[list[Blocker]]:
    """Return everything that jobs wait behind, except limits and due times."""
    waiting = dict((yield from fetch("blocked_names")))
    groups = as_json([name.removeprefix(GROUP) for name in waiting if name.startswith(GROUP)])
    keys = as_json([name.removeprefix(KEY) for name in waiting if name.startswith(KEY)])
    heads = yield from fetch("group_heads", groups=groups)
    holders = {GROUP + group: id for group, id in heads if id is not None}
    # A head that is itself parked behind its group holds nobody: then nothing does.
    parked = (yield from list_jobs(len(holders), ids=list(holders.values()))) if holders else []
    for job in parked:
        if job.group is not None and job.blocked_by == GROUP + job.group:
            del holders[job.blocked_by]
    holders |= {GROUP + group: id for group, id in (yield from fetch("busy_groups", groups=groups))}
    holders |= {KEY + key: id for key, id in (yield from fetch("started_keys", keys=keys))}
    return [Blocker(name, count, holders.get(name)) for name, count in waiting.items()]
