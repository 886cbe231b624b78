"""Storing jobs: new rows, and what becomes of one whose key is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from oncue.errors import StoreBusy
from oncue.job import GROUP, Inserted, NewJob
from oncue.store.steps import Ids, InsertJobs, Release, Steps, as_json, fetch, run

_TRIES = 20


def insert_jobs(jobs: Sequence[NewJob]) -> Steps[list[Inserted]]:
    """Store the jobs in order; a key that is taken is settled by the job's ``on_conflict``."""
    ids = yield Ids(len(jobs))
    for id, job in zip(ids, jobs, strict=True):
        job.id = id
    if any(job.key is not None for job in jobs):
        return (yield from _insert_keyed(jobs))
    taken = yield from _add_rows(jobs)
    return [Inserted(job.id, "created" if job.id not in taken else "kept", job.scheduled_at) for job in jobs]


def _add_rows(jobs: Sequence[NewJob]) -> Steps[set[int]]:
    taken = set((yield InsertJobs(jobs)))
    made = [job.id for job in jobs if job.origin is not None and job.id not in taken]
    if made:
        # After a restore: what the backup does not know to be done must not be done again unasked.
        yield run("hold_made", ids=as_json(made))
    return taken


class _Waiting:
    """The waiting job of a key: stored before, or made by this very batch (``job``)."""

    __slots__ = ("created_at", "group", "id", "job", "scheduled_at")

    def __init__(self, id: int, scheduled_at: int, created_at: int, group: str | None, job: NewJob | None) -> None:
        self.id, self.scheduled_at, self.created_at, self.group, self.job = id, scheduled_at, created_at, group, job


def _insert_keyed(jobs: Sequence[NewJob]) -> Steps[list[Inserted]]:
    """Store jobs with keys. Where another transaction took a key meanwhile, those that bear it are settled anew."""
    results: dict[int, Inserted] = {}
    # A job that replaces another takes over its id.
    asked = [job.id for job in jobs]
    wanted = list(jobs)
    for _ in range(_TRIES):
        again = yield from _settle_keys(wanted, results)
        if not again:
            return [results[id] for id in asked]
        wanted = again
    raise StoreBusy(f"Others kept taking the key {wanted[0].key!r} away, {_TRIES} times. Try again.")


def _settle_keys(jobs: Sequence[NewJob], results: dict[int, Inserted]) -> Steps[list[NewJob]]:
    keys = sorted({job.key for job in jobs if job.key is not None})
    waiting = {
        key: _Waiting(id, due, created, group, None)
        for id, key, due, created, group in (yield from fetch("waiting_with_keys", keys=as_json(keys)))
    }
    started = {key: (id, due) for id, key, due in (yield from fetch("started_with_keys", keys=as_json(keys)))}
    fresh: list[NewJob] = []
    folds: Counter[int] = Counter()
    for job in jobs:
        asked = job.id
        found = waiting.get(job.key) if job.key is not None else None
        if job.key is not None and job.key in started and job.while_started == "keep":
            id, due = started[job.key]
            folds[id] += 1
            results[asked] = Inserted(id, "kept", due)
        elif found is None:
            fresh.append(job)
            if job.key is not None:
                waiting[job.key] = _Waiting(job.id, job.scheduled_at, job.created_at, job.group, job)
            results[asked] = Inserted(job.id, "created", job.scheduled_at)
        else:
            folds[found.id] += 1
            results[asked] = yield from _fold(found, job)
    taken = (yield from _add_rows(fresh)) if fresh else set()
    counted = [(id, count) for id, count in folds.items() if id not in taken]
    if counted:
        yield run("fold_jobs", folds=as_json(counted))
    return _to_settle_again(jobs, fresh, taken, results)


def _to_settle_again(
    jobs: Sequence[NewJob], fresh: Sequence[NewJob], taken: set[int], results: dict[int, Inserted]
) -> list[NewJob]:
    if not taken:
        return []
    keys = {job.key for job in fresh if job.id in taken and job.origin is None and job.key is not None}
    for job in fresh:
        if job.id in taken and job.key not in keys:
            # The same row or fire was made a job by another sweep: that one stands.
            results[job.id] = Inserted(job.id, "kept", job.scheduled_at)
    return [job for job in jobs if job.key in keys]


def _fold(found: _Waiting, job: NewJob) -> Steps[Inserted]:
    """Settle a job whose key has a waiting one, by its ``on_conflict``."""
    if found.job is not None:
        return _fold_in_batch(found, job)
    if job.on_conflict == "keep":
        return Inserted(found.id, "kept", found.scheduled_at)
    due = _new_due(found, job)
    if job.on_conflict == "reschedule":
        yield run("move_job", id=found.id, due=due)
    else:
        job.id, job.scheduled_at = found.id, due
        # The job becomes the application's own: what its row asks for is open again.
        yield run("forget_replaced", id=found.id)
        yield run("replace_job", jobs=as_json([job]))
    if found.group is not None:
        yield from release((GROUP + found.group,))
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


def release(names: Sequence[str]) -> Steps[None]:
    """Make the first job behind each of these blockers eligible; for a cap, one for each time it is named."""
    if (yield Release(names)):
        return
    lanes = [name for name in dict.fromkeys(names) if not name.startswith("cap:")]
    if lanes:
        yield run("release_heads", names=as_json(lanes))
    caps = Counter(name for name in names if name.startswith("cap:"))
    for name, count in caps.items():
        yield run("release_some", name=name, count=count)
