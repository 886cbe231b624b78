"""A worker's one transaction: record acks, claim due jobs, and learn when to come back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from oncue.job import Claimed, Skipped, decide
from oncue.limits import Bucket, Policy
from oncue.store import Claim, Claims
from oncue.store.choose import Choice, Facts, choose, is_plain
from oncue.store.shares import Lane, Turns
from oncue.store.steps import Finish, Steps, as_json, ask, fetch, run
from oncue.store.steps.acks import write_acks


class Peek(msgspec.Struct):
    """One look at everything that a worker must know. A lane is (queue, priority, its first eligible time, and whether
    that job has a group, a key or a limit). ``freed``: names were freed outside a claim; ``left``: workers that were
    given up are left; ``paused_tasks``: nobody takes their jobs; ``now``: the server's time."""

    lanes: list[Lane]
    lease_until: int | None
    others_until: int | None
    next_fire: int | None
    paused: list[str]
    cancel: list[int]
    changed: int
    freed: int = 0
    left: int = 0
    paused_tasks: list[str] = []
    now: int = 0


_IDLE = 45 * 1_000_000
# So many candidates are looked at in one transaction, most of which may be blocked: nobody can write meanwhile.
_LOOKS = 2_000
_peek = msgspec.json.Decoder(Peek)
_jobs = msgspec.json.Decoder(list[Claimed])


def claim(request: Claim) -> Steps[Claims]:
    """Do what ``Claim`` says, inside one transaction that nobody else's claim overlaps."""
    lost = (yield from write_acks(request.worker, request.acks)) if request.acks else []
    peek = yield from look(request.worker, list(request.policy.tasks), request.unknown)
    found = claims_of(peek, lost)
    if found.lease_lost:
        return found
    # Names that were freed before the look are left only where others hold the rows of those who wait behind them.
    found.held = bool(peek.freed)
    request.until = until(request, peek)
    request.unknown = refused(request, peek)
    later = yield from _claim_lanes(request, served(peek, request), found)
    found.next_eligible = min(later, default=None)
    yield from renew(request, peek, takes=bool(found.jobs))
    return found


def look(worker: int, bound: list[str], unknown: Sequence[str]) -> Steps[Peek]:
    """Take the one look that comes before every claim. ``bound``: the tasks that have limits; ``unknown``: those that
    this worker can't run, and whose jobs it need not see where the database can tell."""
    return _peek.decode((yield ask("peek", worker=worker, bound=bound, unknown=list(unknown))))


def claims_of(peek: Peek, lost: list[int]) -> Claims:
    """Return what the look alone tells."""
    found = Claims([], lost, peek.cancel, None, peek.others_until, peek.next_fire, changed=bool(peek.changed))
    found.lease_lost, found.left = peek.lease_until is None, bool(peek.left)
    return found


def until(request: Claim, peek: Peek) -> int:
    """By the server's clock, where that decides, no job is claimed earlier than the look-ahead allows."""
    return min(request.until, peek.now + request.until - request.now) if request.by_server else request.until


def refused(request: Claim, peek: Peek) -> list[str]:
    """Return the tasks whose jobs this worker leaves: those that it can't run, and those that are paused."""
    return [*request.unknown, *peek.paused_tasks]


def served(peek: Peek, request: Claim) -> list[Lane]:
    """Return the lanes that this worker takes from, the most urgent first: lower priority numbers, then the lane whose
    first job has waited longest."""
    return sorted(
        (
            lane
            for lane in peek.lanes
            if lane[0] not in peek.paused and (request.queues is None or lane[0] in request.queues)
        ),
        key=lambda lane: (lane[1], lane[2]),
    )


def renew(request: Claim, peek: Peek, *, takes: bool) -> Steps[None]:
    """Renew the lease where the look, and whether the claim takes jobs, make that necessary."""
    # The claim may have waited for a lock, or for the server, longer than a lease is.
    now = max(request.now, peek.now) if request.by_server else request.now
    # An idle worker holds nothing that could be rescued: its row only shows now and then that it lives.
    floor = now + request.lease * 3 // 4 if takes else now - _IDLE
    if peek.lease_until is not None and peek.lease_until < floor:
        yield run("extend_lease", until=now + request.lease, now=now, worker=request.worker)


def _claim_lanes(request: Claim, lanes: list[Lane], found: Claims) -> Steps[list[int]]:
    turns = Turns([lane for lane in lanes if lane[2] <= request.until], request.shares, request.taken)
    looks = 0
    # Candidates that are blocked get parked: the next ones of their lane come before any other lane.
    while looks < _LOOKS and (turn := turns.pick(request.count - len(found.jobs))) is not None:
        lane, count = turn
        looks += count
        held = len(found.jobs)
        more = yield from _claim_lane(request, lane, count, found)
        turns.took(lane, len(found.jobs) - held, more=more)
    later: list[int] = []
    for lane in lanes:
        queue, priority, eligible, _ = lane
        if eligible > request.until:
            later.append(eligible)
        elif lane in turns.left:
            found.more = True
            if len(found.jobs) < request.count:
                # Places are left: the next claim goes on here.
                later.append(eligible)
        else:
            where = {"queue": queue, "priority": priority, "except": as_json(request.unknown), "held": _names(found)}
            after = yield ask("next_in_lane", **where)
            if after is not None and after <= request.until:
                found.held = True
                after = yield ask("lane_after", until=request.until, **where)
            if after is not None:
                later.append(after)
    return [*later, *found.waits.values()]


def _names(found: Claims) -> str:
    """Return the limits that have no token for now: who waits for one is not looked at again."""
    return as_json(sorted(found.waits))


def _claim_lane(request: Claim, lane: Lane, count: int, found: Claims) -> Steps[bool]:
    """Claim up to ``count`` jobs of a lane; tell whether the lane may have more that are due."""
    values = {"queue": lane[0], "priority": lane[1], "until": request.until, "now": request.now, "count": count}
    values["held"] = _names(found)
    jobs = _jobs.decode((yield ask("candidates", **values, **{"except": as_json(request.unknown)})))
    if is_plain(jobs, request.policy):
        choice = Choice(take=jobs)
    else:
        facts = yield from _facts(jobs, request.policy)
        choice = choose(jobs, facts, request.policy, request.now)
        yield from _settle(request, choice, facts)
        found.skipped += len(choice.skip)
        found.limited += sum(slot is not None for _, _, slot in choice.park)
        found.waits |= choice.hold
    if choice.take:
        ids = as_json([job.id for job in choice.take])
        yield run("claim_jobs", worker=request.worker, now=request.now, ids=ids)
        found.jobs += choice.take
    return len(jobs) == count


def _facts(jobs: Sequence[Claimed], policy: Policy) -> Steps[Facts]:
    facts = Facts()
    groups = as_json(sorted({job.group for job in jobs if job.group is not None}))
    if groups != "[]":
        facts.group_holder = dict((yield from fetch("busy_groups", groups=groups)))
        heads = yield from fetch("group_heads", groups=groups)
        facts.group_head = {group: id for group, id in heads if id is not None}
    keys = as_json(sorted({job.key for job in jobs if job.key is not None}))
    if keys != "[]":
        facts.key_started = dict((yield from fetch("started_keys", keys=keys)))
    if policy:
        names = sorted({name for job in jobs for name, _ in policy.rates(job.task, job.queue, job.group)})
        if names:
            rows = yield from fetch("buckets", names=as_json(names))
            facts.buckets = {name: Bucket(tat, backlog) for name, tat, backlog in rows}
        if any(policy.caps(job.task, job.queue) for job in jobs):
            for task, queue, count in (yield from fetch("running_counts")):
                for name, _ in policy.caps(task, queue):
                    facts.running[name] = facts.running.get(name, 0) + count
    return facts


def _settle(request: Claim, choice: Choice, facts: Facts) -> Steps[None]:
    if facts.buckets:
        rows = [(name, bucket.tat, bucket.backlog) for name, bucket in facts.buckets.items()]
        yield run("save_buckets", buckets=as_json(rows))
    # Before the parking: a job that begins to wait now has its slot behind those that move.
    for name, shift in choice.shift.items():
        yield run("shift_waiting", name=name, shift=shift)
    if choice.park:
        yield run("park_jobs", parked=as_json(choice.park))
    if choice.skip:
        acks = [
            decide(job, Skipped(reason), request.now, request.now, retention=request.retention)
            for job, reason in choice.skip
        ]
        for ack in acks:
            # Never claimed: the row still has the attempt from before.
            ack.attempt -= 1
        yield Finish(None, acks)
