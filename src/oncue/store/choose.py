"""Which due jobs a claim may take: groups, keys, rates and caps. Pure; every store calls it inside its transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from oncue.job import GROUP, KEY, Claimed
from oncue.limits import Bucket, Limit, Policy

LIMIT = "limit:"
# Moving all who wait for a limit costs by their number, and leaving those whose slots have passed by theirs: so slots
# may pass for a second, before which nobody calls them late, but 4096 at most.
_DRIFT = 1_000_000
_MANY = 4096


@dataclass(slots=True)
class Facts:
    """What the store knows about the candidates' groups, keys and limits; ``choose`` moves it on as it takes jobs."""

    group_holder: dict[str, int] = field(default_factory=dict)
    group_head: dict[str, int] = field(default_factory=dict)
    key_started: dict[str, int] = field(default_factory=dict)
    buckets: dict[str, Bucket] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Choice:
    """``take`` to run; ``park`` as (id, blocked_by, eligible_at or None); ``skip`` to end, blocked, with its reason.

    ``shift``: by how much to move what waits for a limit already, by the limit's blocker; before ``park`` is written.
    ``hold``: until when what waits for a limit is to be left as it is, by the limit's blocker.
    """

    take: list[Claimed] = field(default_factory=list)
    park: list[tuple[int, str, int | None]] = field(default_factory=list)
    skip: list[tuple[Claimed, str]] = field(default_factory=list)
    shift: dict[str, int] = field(default_factory=dict)
    hold: dict[str, int] = field(default_factory=dict)


def is_plain(jobs: Sequence[Claimed], policy: Policy) -> bool:
    """Tell whether no candidate has a group, a key or a limit, so that all may be taken unseen."""
    return not policy and all(job.group is None and job.key is None for job in jobs)


def choose(jobs: Sequence[Claimed], facts: Facts, policy: Policy, now: int) -> Choice:
    """Sort candidates (in claim order) into those to run now, to park behind a blocker, and to skip."""
    choice = Choice()
    for job in jobs:
        if job.blocked_by in choice.shift or job.blocked_by in choice.hold:
            continue
        blocker = _blocker(job, facts, policy)
        if blocker is not None:
            if job.when_blocked == "skip":
                choice.skip.append((job, f"skipped: blocked by {blocker}"))
            else:
                choice.park.append((job.id, blocker, None))
            continue
        # A job that is claimed ahead of its due time spends its token at that time.
        start = max(now, job.start_at)
        wait = _rate_wait(job, facts, policy, start)
        if wait is not None:
            _make_wait(job, *wait, facts, choice)
            continue
        _take(job, facts, policy, start)
        choice.take.append(job)
    return choice


def _blocker(job: Claimed, facts: Facts, policy: Policy) -> str | None:
    if job.key is not None and facts.key_started.get(job.key, job.id) != job.id:
        return KEY + job.key
    if (
        job.group is not None
        and not job.holds
        and (job.group in facts.group_holder or facts.group_head.get(job.group, job.id) != job.id)
    ):
        return GROUP + job.group
    for name, cap in policy.caps(job.task, job.queue) if policy else ():
        if facts.running.get(name, 0) >= cap:
            return name
    return None


def _rate_wait(job: Claimed, facts: Facts, policy: Policy, now: int) -> tuple[str, int, Limit] | None:
    if not policy:
        return None
    has_slot = (job.blocked_by or "").startswith(LIMIT)
    worst: tuple[str, int, Limit] | None = None
    for name, limit in policy.rates(job.task, job.queue, job.group):
        bucket = facts.buckets.setdefault(name, Bucket())
        slot = bucket.slot(limit, now, has_slot)
        if slot > now and (worst is None or slot > worst[1]):
            worst = (name, slot, limit)
    if worst is not None and not has_slot:
        facts.buckets[worst[0]].backlog = worst[1]
    return worst


def _make_wait(job: Claimed, name: str, slot: int, limit: Limit, facts: Facts, choice: Choice) -> None:
    """Give the job its slot. Where its earlier one passed unused by a whole interval or more, because nobody came for
    it, or others spent the tokens, all who wait keep their order: they stay where they are until the next token, and
    once that has gone on for long they move on together.
    """
    late = slot - job.eligible_at
    if job.blocked_by != LIMIT + name or late < limit.interval_us:
        choice.park.append((job.id, LIMIT + name, slot))
    elif late < min(_DRIFT, _MANY * limit.interval_us):
        choice.hold[job.blocked_by] = slot
    else:
        choice.shift[job.blocked_by] = late
        facts.buckets[name].backlog += late


def _take(job: Claimed, facts: Facts, policy: Policy, now: int) -> None:
    if job.key is not None:
        facts.key_started[job.key] = job.id
    if job.group is not None:
        facts.group_holder[job.group] = job.id
    if policy:
        for name, limit in policy.rates(job.task, job.queue, job.group):
            facts.buckets[name].spend(limit, now)
        for name, _ in policy.caps(job.task, job.queue):
            facts.running[name] = facts.running.get(name, 0) + 1
