"""A worker's one transaction: record acks, claim due jobs, and learn when to come back."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.json import encode

from oncue.job import Ack, Claimed, Skipped, decide
from oncue.limits import Bucket, Policy
from oncue.store import Claim, Claims
from oncue.store.choose import Choice, Facts, choose, is_plain
from oncue.store.sqlite.insert import ROWS, SQL, as_json, fetch, release, rows_statement


class _Peek(msgspec.Struct):
    lanes: list[tuple[str, int, int]]
    lease_until: int | None
    others_until: int | None
    next_fire: int | None
    paused: list[str]
    cancel: list[int]
    changed: int


_IDLE = 45 * 1_000_000
# So many candidates are looked at in one transaction, most of which may be blocked: nobody can write meanwhile.
_LOOKS = 2_000
_peek = msgspec.json.Decoder(_Peek)
_jobs = msgspec.json.Decoder(list[Claimed])


def claim(conn: sqlite3.Connection, request: Claim) -> Claims:
    """Do what ``Claim`` says, inside the caller's transaction."""
    lost = write_acks(conn, request.worker, request.acks) if request.acks else []
    peek = _peek.decode(conn.execute(SQL["peek"], {"worker": request.worker}).fetchone()[0])
    found = Claims([], lost, peek.cancel, None, peek.others_until, peek.next_fire, changed=bool(peek.changed))
    if peek.lease_until is None:
        found.lease_lost = True
        return found
    lanes = [
        lane
        for lane in peek.lanes
        if lane[0] not in peek.paused and (request.queues is None or lane[0] in request.queues)
    ]
    later = _claim_lanes(conn, request, lanes, found)
    found.next_eligible = min(later, default=None)
    # An idle worker holds nothing that could be rescued: its row only shows now and then that it lives.
    floor = request.now + request.lease * 3 // 4 if found.jobs else request.now - _IDLE
    if peek.lease_until < floor:
        extend_lease(conn, request.worker, request.now, request.lease)
    return found


def _claim_lanes(conn: sqlite3.Connection, request: Claim, lanes: list[Any], found: Claims) -> list[int]:
    later: list[int] = []
    looks = 0
    # Lower priority numbers first; among equals the lane whose first job has waited longest.
    for queue, priority, eligible in sorted(lanes, key=lambda lane: (lane[1], lane[2])):
        full = eligible <= request.until
        # Candidates that are blocked get parked: the next ones of their lane come before any other lane.
        while full and (free := request.count - len(found.jobs)) > 0 and looks < _LOOKS:
            looks += free
            full = _claim_lane(conn, request, queue, priority, free, found)
        if eligible > request.until:
            later.append(eligible)
        elif full:
            found.more = True
            if len(found.jobs) < request.count:
                # Places are left: the next claim goes on here.
                later.append(eligible)
        else:
            values = {"queue": queue, "priority": priority, "except": as_json(request.unknown)}
            after = conn.execute(SQL["next_in_lane"], values).fetchone()
            if after is not None:
                later.append(after[0])
    return later


def _claim_lane(conn: sqlite3.Connection, request: Claim, queue: str, priority: int, free: int, found: Claims) -> bool:
    """Claim up to ``free`` jobs of a lane; tell whether the lane may have more that are due."""
    values = {"queue": queue, "priority": priority, "until": request.until, "now": request.now, "count": free}
    text = conn.execute(SQL["candidates"], {**values, "except": as_json(request.unknown)}).fetchone()[0]
    jobs = _jobs.decode(text)
    if is_plain(jobs, request.policy):
        choice = Choice(take=jobs)
    else:
        facts = _facts(conn, jobs, request.policy)
        choice = choose(jobs, facts, request.policy, request.now)
        _settle(conn, request, choice, facts)
        found.skipped += len(choice.skip)
    if choice.take:
        ids = encode([job.id for job in choice.take]).decode()
        conn.execute(SQL["claim_jobs"], {"worker": request.worker, "now": request.now, "ids": ids})
        found.jobs += choice.take
    return len(jobs) == free


def _facts(conn: sqlite3.Connection, jobs: Sequence[Claimed], policy: Policy) -> Facts:
    facts = Facts()
    groups = as_json(sorted({job.group for job in jobs if job.group is not None}))
    if groups != "[]":
        facts.group_holder = dict(fetch(conn, "busy_groups", groups=groups))
        facts.group_head = {group: id for group, id in fetch(conn, "group_heads", groups=groups) if id is not None}
    keys = as_json(sorted({job.key for job in jobs if job.key is not None}))
    if keys != "[]":
        facts.key_started = dict(fetch(conn, "started_keys", keys=keys))
    if policy:
        names = sorted({name for job in jobs for name, _ in policy.rates(job.task, job.queue, job.group)})
        if names:
            rows = fetch(conn, "buckets", names=as_json(names))
            facts.buckets = {name: Bucket(tat, backlog) for name, tat, backlog in rows}
        if any(policy.caps(job.task, job.queue) for job in jobs):
            for task, queue, count in fetch(conn, "running_counts"):
                for name, _ in policy.caps(task, queue):
                    facts.running[name] = facts.running.get(name, 0) + count
    return facts


def _settle(conn: sqlite3.Connection, request: Claim, choice: Choice, facts: Facts) -> None:
    if facts.buckets:
        rows = [(name, bucket.tat, bucket.backlog) for name, bucket in facts.buckets.items()]
        conn.execute(SQL["save_buckets"], {"buckets": as_json(rows)})
    # Before the parking: a job that begins to wait now has its slot behind those that move.
    for name, shift in choice.shift.items():
        conn.execute(SQL["shift_waiting"], {"name": name, "shift": shift})
    if choice.park:
        conn.execute(SQL["park_jobs"], {"parked": as_json(choice.park)})
    if choice.skip:
        acks = [
            decide(job, Skipped(reason), request.now, request.now, retention=request.retention)
            for job, reason in choice.skip
        ]
        for ack in acks:
            # Never claimed: the row still has the attempt from before.
            ack.attempt -= 1
        finish(conn, None, acks)


def write_acks(conn: sqlite3.Connection, worker: int, acks: Sequence[Ack]) -> list[int]:
    """Record the outcomes of attempts that ``worker`` holds; return the ids of those it holds no more."""
    lost: list[int] = []
    final = [ack for ack in acks if ack.state != "scheduled"]
    again = [ack for ack in acks if ack.state == "scheduled"]
    if final:
        lost += finish(conn, worker, final)
    if again:
        text = as_json(again)
        values = {"acks": text, "worker": worker}
        if conn.execute(SQL["record_attempts"], values).rowcount != len(again):
            lost += fetch(conn, "lost_claims", **values)
        conn.execute(SQL["put_back"], values)
    names = [name for ack in acks if ack.release for name in ack.release if ack.id not in lost]
    if names:
        release(conn, names)
    return lost


def finish(conn: sqlite3.Connection, worker: int | None, acks: Sequence[Ack]) -> list[int]:
    """Move jobs that are final to the history; return the ids of those that ``worker`` holds no more."""
    done = 0
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
        done += conn.execute(rows_statement("finish_jobs", size, 11), [*values, worker]).rowcount
    ids = [ack.id for ack in acks]
    lost: list[int] = []
    if done != len(acks):
        lost = fetch(conn, "lost_claims", acks=as_json(acks), worker=worker)
        ids = [id for id in ids if id not in lost]
    conn.execute(SQL["drop_jobs"], {"ids": as_json(ids), "worker": worker})
    return lost


def extend_lease(conn: sqlite3.Connection, worker: int, now: int, lease: int) -> bool:
    """Renew a worker's lease; False where its row is gone, so that it holds nothing any more."""
    values = {"until": now + lease, "now": now, "worker": worker}
    return conn.execute(SQL["extend_lease"], values).rowcount == 1
