"""What operators and the sweeper do to jobs: cancel, move, rescue, run again, prune."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from oncue.errors import InvalidJob, UnknownJob
from oncue.job import GROUP, KEY, Ack, Cancelled, Claimed, Rescued, Snoozed, decide
from oncue.limits import possible_caps
from oncue.store import WorkerRow
from oncue.store.steps import Finish, Ids, Steps, as_json, ask, fetch, run
from oncue.store.steps.acks import write_acks
from oncue.store.steps.insert import release
from oncue.store.steps.watch import note

_EVER = 1 << 62
_claimed = msgspec.json.Decoder(list[Claimed])
_workers = msgspec.json.Decoder(list[WorkerRow])


class Rescue(NamedTuple):
    """What was taken back, with what became of it; and the dead workers of whom nothing is left."""

    jobs: list[tuple[Claimed, Ack]]
    gone: list[int]


def _find(id: int | None, key: str | None) -> Steps[list[tuple[int, str, int, str | None, str | None]]]:
    if id is not None:
        rows = yield from fetch("find_by_id", id=id)
    else:
        # Once more where there was none: one that was claimed while we waited for it is not in the first answer.
        rows = (yield from fetch("find_by_key", key=key)) or (yield from fetch("find_by_key", key=key))
    return [tuple(row) for row in rows]


def cancel(now: int, expires_at: int | None, *, id: int | None, key: str | None) -> Steps[Cancelled]:
    """Cancel what the id or key names: one that does not run yet at once, one that runs by asking its handler."""
    answer: Cancelled = "too late"
    for job, state, attempt, job_key, group in (yield from _find(id, key)):
        if state == "running":
            yield run("request_cancel", id=job)
            answer = "requested"
            continue
        ack = Ack(job, attempt, "cancelled", "cancelled", now, now, reason="cancelled before it ran")
        ack.expires_at = expires_at
        yield Finish(None, [ack])
        freed = [GROUP + group] if group is not None else []
        yield from release([*freed, KEY + job_key] if job_key is not None else freed)
        answer = answer if answer == "requested" else "prevented"
    return answer


def reschedule(due: int, *, id: int | None, key: str | None) -> Steps[bool]:
    """Move what the id or key names to ``due``, unless it runs; tell whether anything moved."""
    moved = False
    for job, _, _, _, group in sorted((yield from _find(id, key)), key=lambda row: row[2]):
        if not moved and (yield run("move_job", id=job, due=due)):
            moved = True
            if group is not None:
                yield from release((GROUP + group,))
    return moved


def run_now(now: int, id: int) -> Steps[None]:
    """Make a waiting job due now. Raises UnknownJob, or InvalidJob where it runs or is final."""
    if not (yield from reschedule(now, id=id, key=None)):
        yield from refuse(id, "run now")


def restart(now: int, id: int) -> Steps[None]:
    """Put a discarded or cancelled job back, due now, with as many fresh attempts as it had.

    Raises UnknownJob, or InvalidJob where it is not in one of those states or its key is taken.
    """
    if not (yield run("restart_finished", id=id, due=now)):
        yield from refuse(id, "retry")
    yield run("record_finished", id=id)
    yield run("drop_history", id=id)
    ((_, _, _, key, _),) = yield from _find(id, None)
    for other, _, _, _, group in (yield from _find(None, key)) if key is not None else ():
        if other != id and group is not None:
            # It waits behind its key from now on: it is not to be freed when its group is, nor to keep others waiting.
            yield run("look_again", id=other)
            yield from release((GROUP + group,))


def refuse(id: int, action: str) -> Steps[None]:
    """Raise why an action does not apply to a job: UnknownJob or InvalidJob."""
    state = yield ask("state_of", id=id)
    if action == "retry" and state in ("discarded", "cancelled"):
        raise InvalidJob(f"Job {id} can't run again: its key is in use by another job. Cancel that one first.")
    if state is not None:
        raise InvalidJob(f"Job {id} is {state}; '{action}' does not apply to that state.")
    raise UnknownJob(f"No job {id}, waiting, running or in the kept history.")


def workers() -> Steps[list[WorkerRow]]:
    """Return the registered workers, each with the number of jobs that it holds."""
    return _workers.decode((yield ask("workers")))


def add_worker(row: WorkerRow) -> Steps[int]:
    """Register a worker's life and return its id, the fence of all that it claims."""
    (id,) = yield Ids(1, "worker")
    values = {"id": id, "name": row.name, "host": row.host, "pid": row.pid, "queues": row.queues}
    yield run("add_worker", **values, tasks=row.tasks, version=row.version, now=row.started_at, until=row.lease_until)
    return int(id)


def jobs_of(worker: int) -> Steps[list[Claimed]]:
    """Return the jobs that a worker holds, without those whose rows another transaction holds just now."""
    return _claimed.decode((yield ask("jobs_of_worker", worker=worker)))


def sign_off(now: int, worker: int) -> Steps[None]:
    """Remove a worker. What it still holds, as after a claim whose answer it did not live to see, is given back."""
    back = Snoozed(0, "given back: its worker signed off before it began", released=True)
    yield from _take_from(worker, back, now, None, _EVER)


def rescue(now: int, retention: int | None, proved: Sequence[tuple[int, str]] = ()) -> Steps[Rescue]:
    """Take the jobs of dead workers back: of those whose lease ended by ``now`` and of those ``proved`` dead.

    ``proved`` holds (worker id, how it is known). A job without attempts left is discarded with that reason.
    """
    reasons = dict(proved)
    done = Rescue([], [])
    for worker in (yield from workers()):
        reason, before = reasons.get(worker.id), _EVER
        if reason is None and worker.given_up:
            reason = f"worker {worker.name} was given up before, while another transaction held this job"
        elif reason is None and worker.running and worker.lease_until < now:
            reason, before = f"worker {worker.name} let its lease end", now
        if reason is None:
            continue
        jobs, acks, gone = yield from _take_from(worker.id, Rescued(reason), now, retention, before)
        done.jobs.extend(zip(jobs, acks, strict=True))
        if gone:
            done.gone.append(worker.id)
    if done.jobs:
        yield from note("rescued_at", now)
    return done


def _take_from(
    worker: int, outcome: Snoozed | Rescued, now: int, retention: int | None, before: int
) -> Steps[tuple[list[Claimed], list[Ack], bool]]:
    """Take a worker's jobs back, unless its lease ends at ``before`` or later; tell whether none is left."""
    # First, so that a claim of it that is still under way comes to nothing, or is seen below.
    if not (yield run("give_up", worker=worker, before=before)):
        return [], [], False
    jobs = yield from jobs_of(worker)
    acks = [
        decide(job, outcome, now, job.claimed_at, "hold", retention, possible_caps(job.task, job.queue)) for job in jobs
    ]
    if acks:
        yield from write_acks(worker, acks)
    return jobs, acks, bool((yield run("drop_worker", worker=worker)))


def unblock() -> Steps[int]:
    """Give the first job behind every blocker another look; a claim parks it again where it still has to wait.

    Behind a cap more of them look: it may have been raised since, or be gone from the code.
    """
    names = [name for name in (yield from fetch("stuck_names")) if name != "restore" and not name.startswith("pause:")]
    if names:
        yield from release(names)
    for name in names:
        if name.startswith("cap:"):
            yield run("release_some", name=name, count=_LOOKS_BEHIND_CAP)
    return len(names)


def blocked() -> Steps[int]:
    """Return how many blockers there are."""
    return len((yield from fetch("stuck_names")))


def prunable(now: int) -> Steps[bool]:
    """Tell whether anything is to be pruned."""
    return bool((yield ask("prunable", now=now, before=now - _STALE)))


def prune(now: int, count: int) -> Steps[int]:
    """Delete up to ``count`` finished jobs whose retention is over, and what is stale beside them."""
    values = {"now": now, "count": count}
    yield run("prune_attempts", **values)
    gone: int = yield run("prune_finished", **values)
    yield run("prune_workers", before=now - _STALE)
    yield run("prune_limits", before=now - _STALE)
    yield run("prune_minutes", before=now - _WEEK)
    yield run("prune_audit", before=now - _AUDITED, limit=count)
    return gone


_STALE = 600 * 1_000_000
_AUDITED = 400 * 86_400 * 1_000_000
_WEEK = 7 * 86_400 * 1_000_000
_LOOKS_BEHIND_CAP = 1_000


def hold_due(now: int) -> Steps[int]:
    """After a restore: hold everything that came due by ``now``, until it is released or cancelled.

    Fires of schedules and rows of sources that were due by then are held too, as soon as a sweep makes jobs of them.
    """
    yield run("mark_restored", now=now)
    held: int = yield run("hold_due", now=now)
    return held


def release_held() -> Steps[int]:
    """Let what ``hold_due`` held run again, and hold nothing new."""
    yield run("unmark_restored")
    released: int = yield run("release_held")
    return released


def set_progress(worker: int, id: int, attempt: int, progress: Any) -> Steps[bool]:
    """Store a running job's progress; False where this claim is not the job's any more."""
    values = {"progress": as_json(progress), "id": id, "worker": worker, "attempt": attempt}
    return bool((yield run("set_progress", **values)) == 1)


def set_queue(now: int, name: str, paused: bool) -> Steps[None]:
    """Pause or resume a queue for all workers. One that is paused already stays paused since then."""
    yield run("set_queue", name=name, paused=int(paused), now=now)
