"""What goes between a store and those who use it: rows, a worker's claim, and what it was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import msgspec

from oncue.job import Ack, Claimed, NewJob
from oncue.limits import Policy
from oncue.store.shares import Shares


class WorkerRow(msgspec.Struct, array_like=True):
    """One life of a worker process. Times are microseconds since the epoch.

    ``queues``: JSON, a list of names or an object of names and weights; None for all. ``tasks``: a JSON list of those
    that it knew at its start; None where that isn't known. ``version``: of its OnCue. ``lease_until``: negative once
    the worker was given up; its row stays while others' transactions hold some of its jobs. ``wake``: what is wrong
    with its wake channel, and ``wake_since``; None while it works.
    """

    id: int
    name: str
    host: str
    pid: int
    queues: str | None
    started_at: int
    seen_at: int
    lease_until: int
    running: int = 0
    tasks: str | None = None
    version: str | None = None
    wake: str | None = None
    wake_since: int | None = None

    @property
    def given_up(self) -> bool:
        """Whether its jobs were taken back, as far as nobody else holds their rows."""
        return self.lease_until < 0


class ScheduleRow(msgspec.Struct, array_like=True):
    """A stored schedule. ``next_at`` is the nominal time of its next fire, None where there is none."""

    name: str
    task: str
    args: str
    expression: str
    timezone: str
    options: dict[str, Any]
    next_at: int | None
    last_at: int | None
    paused: int
    missed: int
    created_at: int


class Claim(msgspec.Struct):
    """What a worker asks of the store in one transaction: record these acks, then hand me due jobs.

    ``until``: claim what is eligible by then (now plus the look-ahead). ``count``: at most so many.
    ``queues``: None for all. ``shares``: what each of them gets where several have due jobs; None for the most urgent
    first, by priority over all queues. ``taken``: what each queue has got of this claim already. ``unknown``: task
    names that this worker can't run. ``retention``: how long the row of a job that is skipped at the claim is kept.
    ``holding``: the ids of all jobs that the worker knows it holds; others that it holds are given back.
    ``by_server``: the database server's clock has the last word.
    """

    worker: int
    now: int
    until: int
    lease: int
    count: int
    acks: Sequence[Ack] = ()
    queues: frozenset[str] | None = None
    shares: Shares | None = None
    unknown: Sequence[str] = ()
    retention: int | None = None
    policy: Policy = Policy()
    holding: AbstractSet[int] | None = None
    by_server: bool = False
    taken: Mapping[str, int] = {}


class Claims(msgspec.Struct):
    """What one transaction gave: claimed jobs, what became of the acks, and when to come back.

    ``next_eligible``, ``others_until`` (the earliest lease end of another worker that holds jobs) and
    ``next_fire`` (of a schedule) are microseconds since the epoch, or None. ``cancel`` names jobs of this
    worker that were asked to stop; ``lost`` those whose ack came too late. ``more``: there is more due.
    ``held``: some due jobs could not be taken, because another transaction holds their rows. ``left``: jobs of dead
    workers could not be taken back, for the same reason.
    ``bound_due``: some have a group, a key or a limit, and were left for a claim under the lock.
    ``limited``: so many were put off by a limit; ``waits``: until when a limit has no token, by its blocker.
    ``unwritten``: acks to hand in again, for the same reason, or because of ``trouble``, which kept part of the work
    from being done.
    """

    jobs: list[Claimed]
    lost: list[int]
    cancel: list[int]
    next_eligible: int | None
    others_until: int | None
    next_fire: int | None
    more: bool = False
    lease_lost: bool = False
    changed: bool = False
    skipped: int = 0
    limited: int = 0
    waits: dict[str, int] = {}
    held: bool = False
    left: bool = False
    bound_due: bool = False
    unwritten: list[int] = []
    trouble: Exception | None = None


class Adoption(NamedTuple):
    """A job of a BullMQ queue to take over: its id, BullMQ's timestamp (milliseconds), and the job to store for it.

    Without a ``job`` it is only asked for whether it was taken over before.
    """

    id: str
    timestamp: int
    job: NewJob | None


class Adopted(NamedTuple):
    """The job that stands for one of BullMQ's, and whether this very call stored it."""

    job: int
    new: bool
