"""What operators and the sweeper do to jobs: cancel, move, rescue, run again, prune. On any sqlite3 connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from oncue.errors import InvalidJob, UnknownJob
from oncue.job import GROUP, KEY, Ack, Cancelled, Claimed, Rescued, Snoozed, decide
from oncue.limits import possible_caps
from oncue.store import WorkerRow
from oncue.store.sqlite.claim import finish, write_acks
from oncue.store.sqlite.insert import SQL, as_json, fetch, release, take_ids

_claimed = msgspec.json.Decoder(list[Claimed])
_workers = msgspec.json.Decoder(list[WorkerRow])


def _find(
    conn: sqlite3.Connection, id: int | None, key: str | None
) -> list[tuple[int, str, int, str | None, str | None]]:
    if id is not None:
        return [tuple(row) for row in fetch(conn, "find_by_id", id=id)]
    return [tuple(row) for row in fetch(conn, "find_by_key", key=key)]


def cancel(conn: sqlite3.Connection, now: int, expires_at: int | None, *, id: int | None, key: str | None) -> Cancelled:
    """Cancel what the id or key names: one that does not run yet at once, one that runs by asking its handler."""
    answer: Cancelled = "too late"
    for job, state, attempt, job_key, group in _find(conn, id, key):
        if state == "running":
            conn.execute(SQL["request_cancel"], {"id": job})
            answer = "requested"
            continue
        ack = Ack(job, attempt, "cancelled", "cancelled", now, now, reason="cancelled before it ran")
        ack.expires_at = expires_at
        finish(conn, None, [ack])
        freed = [GROUP + group] if group is not None else []
        release(conn, [*freed, KEY + job_key] if job_key is not None else freed)
        answer = answer if answer == "requested" else "prevented"
    return answer


def reschedule(conn: sqlite3.Connection, due: int, *, id: int | None, key: str | None) -> bool:
    """Move what the id or key names to ``due``, unless it runs; tell whether anything moved."""
    moved = False
    for job, _, _, _, group in sorted(_find(conn, id, key), key=lambda row: row[2]):
        if not moved and conn.execute(SQL["move_job"], {"id": job, "due": due}).rowcount:
            moved = True
            if group is not None:
                release(conn, (GROUP + group,))
    return moved


def run_now(conn: sqlite3.Connection, now: int, id: int) -> None:
    """Make a waiting job due now. Raises UnknownJob, or InvalidJob where it runs or is final."""
    if not reschedule(conn, now, id=id, key=None):
        _refuse(conn, id, "run now")


def restart(conn: sqlite3.Connection, now: int, id: int) -> None:
    """Put a discarded or cancelled job back, due now, with as many fresh attempts as it had.

    Raises UnknownJob, or InvalidJob where it is not in one of those states or its key is taken.
    """
    try:
        done = conn.execute(SQL["restart_finished"], {"id": id, "due": now}).rowcount
    except sqlite3.IntegrityError as error:
        raise InvalidJob(f"Job {id} can't run again: its key is in use by another job ({error}).") from error
    if not done:
        _refuse(conn, id, "retry")
    conn.execute(SQL["record_finished"], {"id": id})
    conn.execute(SQL["drop_history"], {"id": id})
    ((_, _, _, key, _),) = _find(conn, id, None)
    for other, _, _, _, group in _find(conn, None, key) if key is not None else ():
        if other != id and group is not None:
            # It waits behind its key from now on: it is not to be freed when its group is, nor to keep others waiting.
            conn.execute(SQL["look_again"], {"id": other})
            release(conn, (GROUP + group,))


def _refuse(conn: sqlite3.Connection, id: int, action: str) -> None:
    row = conn.execute(SQL["state_of"], {"id": id}).fetchone()
    if row is not None:
        raise InvalidJob(f"Job {id} is {row[0]}; '{action}' does not apply to that state.")
    raise UnknownJob(f"No job {id}, waiting, running or in the kept history.")


def workers(conn: sqlite3.Connection) -> list[WorkerRow]:
    """Return the registered workers, each with the number of jobs that it holds."""
    return _workers.decode(conn.execute(SQL["workers"]).fetchone()[0])


def add_worker(conn: sqlite3.Connection, row: WorkerRow) -> int:
    """Register a worker's life and return its id, the fence of all that it claims."""
    id = take_ids(conn, 1, "worker")
    values = {"id": id, "name": row.name, "host": row.host, "pid": row.pid, "queues": row.queues}
    conn.execute(SQL["add_worker"], {**values, "now": row.started_at, "until": row.lease_until})
    return id


def sign_off(conn: sqlite3.Connection, now: int, worker: int) -> None:
    """Remove a worker. What it still holds, as after a claim whose answer it did not live to see, is given back."""
    reason = "given back: its worker signed off before it began"
    acks = [
        decide(job, Snoozed(0, reason, released=True), now, job.claimed_at)
        for job in _claimed.decode(conn.execute(SQL["jobs_of_worker"], {"worker": worker}).fetchone()[0])
    ]
    if acks:
        write_acks(conn, worker, acks)
    conn.execute(SQL["drop_worker"], {"worker": worker})


def rescue(
    conn: sqlite3.Connection, now: int, retention: int | None, proved: Sequence[tuple[int, str]] = ()
) -> list[tuple[Claimed, Ack]]:
    """Take the jobs of dead workers back: of those whose lease ended by ``now`` and of those ``proved`` dead.

    ``proved`` holds (worker id, how it is known). A job without attempts left is discarded with that reason.
    """
    reasons = dict(proved)
    done: list[tuple[Claimed, Ack]] = []
    for worker in workers(conn):
        reason = reasons.get(worker.id)
        if reason is None and worker.running and worker.lease_until < now:
            reason = f"worker {worker.name} let its lease end"
        if reason is None:
            continue
        jobs = _claimed.decode(conn.execute(SQL["jobs_of_worker"], {"worker": worker.id}).fetchone()[0])
        acks = [
            decide(job, Rescued(reason), now, job.claimed_at, "hold", retention, possible_caps(job.task, job.queue))
            for job in jobs
        ]
        if acks:
            write_acks(conn, worker.id, acks)
        conn.execute(SQL["drop_worker"], {"worker": worker.id})
        done += zip(jobs, acks, strict=True)
    return done


def unblock(conn: sqlite3.Connection) -> int:
    """Give the first job behind every blocker another look; a claim parks it again where it still has to wait.

    Behind a cap more of them look: it may have been raised since, or be gone from the code.
    """
    names = [name for name in fetch(conn, "stuck_names") if name != "restore"]
    if names:
        release(conn, names)
    for name in names:
        if name.startswith("cap:"):
            conn.execute(SQL["release_some"], {"name": name, "count": _LOOKS_BEHIND_CAP})
    return len(names)


def prune(conn: sqlite3.Connection, now: int, count: int) -> int:
    """Delete up to ``count`` finished jobs whose retention is over, and what is stale beside them."""
    values = {"now": now, "count": count}
    conn.execute(SQL["prune_attempts"], values)
    gone = conn.execute(SQL["prune_finished"], values).rowcount
    conn.execute(SQL["prune_workers"], {"before": now - _STALE})
    conn.execute(SQL["prune_limits"], {"before": now - _STALE})
    return gone


_STALE = 600 * 1_000_000
_LOOKS_BEHIND_CAP = 1_000


def hold_due(conn: sqlite3.Connection, now: int) -> int:
    """After a restore: hold everything that came due by ``now``, until it is released or cancelled.

    Fires of schedules and rows of sources that were due by then are held too, as soon as a sweep makes jobs of them.
    """
    conn.execute(SQL["mark_restored"], {"now": now})
    return conn.execute(SQL["hold_due"], {"now": now}).rowcount


def release_held(conn: sqlite3.Connection) -> int:
    """Let what ``hold_due`` held run again, and hold nothing new."""
    conn.execute(SQL["unmark_restored"])
    return conn.execute(SQL["release_held"]).rowcount


def set_progress(conn: sqlite3.Connection, worker: int, id: int, attempt: int, progress: Any) -> bool:
    """Store a running job's progress; False where this claim is not the job's any more."""
    values = {"progress": as_json(progress), "id": id, "worker": worker, "attempt": attempt}
    return conn.execute(SQL["set_progress"], values).rowcount == 1
