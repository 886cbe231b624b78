"""Jobs as they are shown. Times are microseconds since the epoch, UTC."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from oncue.job import State


class AttemptView(msgspec.Struct, frozen=True):
    """One attempt of a job. Times are microseconds since the epoch, UTC."""

    attempt: int
    outcome: str
    scheduled_at: int
    started_at: int
    finished_at: int
    worker: int | None
    error: str | None
    traceback: str | None
    reason: str | None
    claimed_at: int | None = None


class JobView(msgspec.Struct, frozen=True):
    """A job as stored. Times are microseconds since the epoch, UTC.

    ``started_at``: of its last attempt; while it runs, when that was claimed, as ``claimed_at`` tells.
    ``first_due``: when it was due before it was moved; None where it was not moved before its first attempt.
    """

    id: int
    state: State
    outcome: str | None
    task: str
    args: Any
    queue: str
    priority: int
    scheduled_at: int
    eligible_at: int | None
    blocked_by: str | None
    attempt: int
    snoozes: int
    max_attempts: int
    worker: int | None
    started_at: int | None
    finished_at: int | None
    key: str | None
    group: str | None
    max_late: int | None
    when_late: str
    metadata: Any
    origin: str | None
    origin_ref: str | None
    folded: int
    progress: Any
    created_at: int
    cancel: int
    result: Any
    error: str | None
    traceback: str | None
    reason: str | None
    claimed_at: int | None = None
    first_due: int | None = None


class Counts(msgspec.Struct, frozen=True):
    """How many jobs are in which state; ``next_due`` in microseconds since the epoch."""

    scheduled: int
    due: int
    blocked: int
    running: int
    completed: int
    discarded: int
    cancelled: int
    next_due: int | None


class Backlog(msgspec.Struct, frozen=True):
    """What is left to do: jobs that are due and don't run, and when the next job or fire comes (microseconds).

    Paused queues and what a restore holds don't count; jobs that a limit, a group or a key keeps waiting do.
    """

    remaining: int
    next_due: int | None


class QueueView(msgspec.Struct, frozen=True):
    """A queue that has jobs or was paused once. ``waiting``: not due yet; ``blocked``: behind another job or a cap.

    ``paused_at``: since when it is paused, in microseconds since the epoch.
    """

    name: str
    paused: bool
    waiting: int
    due: int
    blocked: int
    running: int
    paused_at: int | None = None


class WorkerView(msgspec.Struct, frozen=True):
    """A registered worker. Times are microseconds since the epoch, UTC; ``queues`` is None for all.

    ``weights``: those of its queues, where they have any. ``tasks``: what it knew at its start, None where that isn't
    recorded. ``version``: of its OnCue.
    ``state``: ``alive``; ``silent`` where no sign of life came for two minutes; ``dead`` where its process is known to
    have ended, or it was ``given_up``: its jobs were taken back, all but those whose rows other transactions hold.
    ``wake``: why it hears late of what other processes store, and ``wake_since``; None while it hears at once.
    """

    id: int
    name: str
    state: Literal["alive", "silent", "dead"]
    host: str
    pid: int
    queues: list[str] | None
    running: int
    started_at: int
    seen_at: int
    lease_until: int
    weights: dict[str, float] | None = None
    tasks: list[str] | None = None
    version: str | None = None
    given_up: bool = False
    wake: str | None = None
    wake_since: int | None = None

    def knows(self, task: str) -> bool:
        """Whether it can run a task, as far as is recorded."""
        return self.tasks is None or task in self.tasks

    def serves(self, queue: str) -> bool:
        """Whether it takes jobs from a queue."""
        return self.queues is None or queue in self.queues


class Blocker(msgspec.Struct, frozen=True):
    """What jobs wait behind (``group:x``, ``key:x``, ``cap:task:x``, ``restore``): how many, and which job holds them.

    ``job`` is None where no single job does; for a group, key or cap that means that the next sweep frees them.
    """

    name: str
    waiting: int
    job: int | None


class SchemaView(msgspec.Struct, frozen=True):
    """The tables as found: schema version ``found`` (0: none), ``expected`` by this OnCue, SQL of the steps between.

    ``oldest``: the oldest version of OnCue's tables whose processes go on with what is there; None: only its own.
    """

    location: str
    exists: bool
    found: int
    expected: int
    pending: list[str]
    oldest: int | None = None

    @property
    def good(self) -> bool:
        """Whether this OnCue works with the tables as they are."""
        return self.found == self.expected or (
            self.found > self.expected and self.oldest is not None and self.oldest <= self.expected
        )


class Check(msgspec.Struct, frozen=True):
    """One finding about the state of things: what was found, and where it isn't well, how to mend it."""

    name: str
    level: Literal["ok", "warn", "FAIL"]
    found: str
    remedy: str = ""
