"""Jobs as they are shown. Times are microseconds since the epoch, UTC."""

from __future__ import annotations

from typing import Any

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


class JobView(msgspec.Struct, frozen=True):
    """A job as stored. Times are microseconds since the epoch, UTC."""

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
