"""A job's row as the rooms hand it on, and its state machine: ``decide(job, outcome, now) -> Ack``. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["scheduled", "running", "completed", "discarded", "cancelled"]
FINAL = ("completed", "discarded", "cancelled")
Conflict = Literal["keep", "replace", "reschedule", "debounce"]
WhileStarted = Literal["queue", "keep"]
WhenLate = Literal["run", "skip", "fail"]
OnRetry = Literal["hold", "yield"]
Cancelled = Literal["prevented", "requested", "too late"]
InsertStatus = Literal["created", "kept", "replaced", "rescheduled", "debounced"]


class NewJob(msgspec.Struct, array_like=True, gc=False):
    """A job to store. Times are microseconds since the epoch; ``args`` and ``metadata`` are JSON text."""

    id: int
    task: str
    args: str
    queue: str
    priority: int
    scheduled_at: int
    max_attempts: int
    created_at: int
    key: str | None = None
    group: str | None = None
    max_late: int | None = None
    when_late: WhenLate = "run"
    metadata: str | None = None
    origin: str | None = None
    origin_ref: str | None = None
    when_blocked: Literal["wait", "skip"] = "wait"
    on_conflict: Conflict = "keep"
    while_started: WhileStarted = "queue"
    max_wait: int | None = None


class Inserted(msgspec.Struct, gc=False):
    """What became of a job that was handed to the store: its row's id, and whether it made a row of its own."""

    id: int
    status: InsertStatus
    scheduled_at: int


class Claimed(msgspec.Struct, array_like=True, gc=False):
    """A job that this worker holds, as read at the claim. ``attempt`` counts this run already."""

    id: int
    task: str
    args: str
    queue: str
    priority: int
    scheduled_at: int
    attempt: int
    snoozes: int
    max_attempts: int
    key: str | None
    group: str | None
    holds: int
    blocked_by: str | None
    when_blocked: str
    cancel: int
    max_late: int | None
    when_late: WhenLate
    metadata: str | None
    origin: str | None
    origin_ref: str | None
    created_at: int
    eligible_at: int
    claimed_at: int = 0

    @property
    def start_at(self) -> int:
        """When this attempt may start: its due time, or later where a limit said so."""
        return max(self.scheduled_at, self.eligible_at)


class Ack(msgspec.Struct, array_like=True, gc=False):
    """One statement about one claimed attempt, ready for the store. Final where ``state`` is final."""

    id: int
    attempt: int
    state: State
    outcome: str
    started_at: int
    finished_at: int
    result: str | None = None
    error: str | None = None
    traceback: str | None = None
    reason: str | None = None
    scheduled_at: int = 0
    eligible_at: int = 0
    snoozes: int = 0
    holds: int = 0
    expires_at: int | None = None
    release: tuple[str, ...] = ()


class Completed(msgspec.Struct, gc=False):
    """The handler returned. ``result`` is JSON text; ``reason`` says why a result could not be kept."""

    result: str | None = None
    reason: str | None = None


class Failed(msgspec.Struct, gc=False):
    """The handler raised. ``delay`` (microseconds) is what the policy asks for; None means discard, for ``reason``."""

    error: str
    traceback: str | None = None
    delay: int | None = None
    reason: str | None = None


class Snoozed(msgspec.Struct, gc=False):
    """The handler asked for later (``delay`` in microseconds), or the worker gives the job back unrun."""

    delay: int
    reason: str
    released: bool = False


class Skipped(msgspec.Struct, gc=False):
    """The job must not run any more (late, no longer valid, cancelled): it ends as cancelled, with the reason."""

    reason: str
    outcome: Literal["skipped", "cancelled"] = "skipped"
    error: str | None = None


class Rescued(msgspec.Struct, gc=False):
    """The worker died or lost its lease with the job in hand; ``reason`` tells how that is known."""

    reason: str


Outcome = Completed | Failed | Snoozed | Skipped | Rescued
KEY, GROUP = "key:", "group:"


def lateness_verdict(job: Claimed, now: int) -> Outcome | None:
    """Return what ``max_late`` makes of a job about to start at ``now``; None where it may run."""
    if job.max_late is None or job.when_late == "run" or now - job.scheduled_at <= job.max_late:
        return None
    reason = f"{(now - job.scheduled_at) / 1e6:.3f} s late, more than max_late={job.max_late / 1e6:g} s"
    if job.when_late == "skip":
        return Skipped(f"skipped: {reason}")
    return Failed(error=reason, delay=None, reason=f"failed: {reason}")


def decide(
    job: Claimed,
    outcome: Outcome,
    now: int,
    started_at: int,
    on_retry: OnRetry = "hold",
    retention: int | None = None,
    caps: tuple[str, ...] = (),
) -> Ack:
    """Turn the outcome of a claimed attempt into the one statement that records it.

    ``now`` and ``started_at`` are microseconds since the epoch; ``retention`` (microseconds) says how long a
    finished row is kept, None for ever; ``caps`` are the concurrency caps that the job counted against.
    """
    if isinstance(outcome, Completed):
        ack = Ack(job.id, job.attempt, "completed", "completed", started_at, now, outcome.result, reason=outcome.reason)
    elif isinstance(outcome, Skipped):
        ack = Ack(job.id, job.attempt, "cancelled", outcome.outcome, started_at, now, reason=outcome.reason)
        ack.error = outcome.error
    elif isinstance(outcome, Snoozed):
        ack = _again(job, "released" if outcome.released else "snoozed", outcome.delay, now, started_at)
        ack.snoozes, ack.reason = 1, outcome.reason
    elif isinstance(outcome, Rescued):
        ack = _rescued(job, outcome, now, started_at)
    else:
        ack = _failed(job, outcome, now, started_at)
    if ack.state != "scheduled":
        ack.expires_at = None if retention is None else now + retention
    elif ack.outcome in ("retried", "rescued"):
        _hold_or_yield(job, ack, on_retry)
    if job.key is not None or job.group is not None or caps:
        ack.release = _freed(job, ack, caps)
    return ack


def _again(job: Claimed, outcome: str, delay: int, now: int, started_at: int) -> Ack:
    due = now + delay
    # Given back through no doing of its own, a job keeps the time it was asked for: its lateness goes on counting,
    # and one that was claimed ahead of that time, or whose clock was set back since, still does not start early.
    asked = job.scheduled_at if outcome in ("released", "rescued") else due
    eligible = max(due, asked)
    return Ack(job.id, job.attempt, "scheduled", outcome, started_at, now, scheduled_at=asked, eligible_at=eligible)


def _failed(job: Claimed, outcome: Failed, now: int, started_at: int) -> Ack:
    used = job.attempt - job.snoozes
    if outcome.delay is not None and used < job.max_attempts:
        ack = _again(job, "retried", outcome.delay, now, started_at)
        ack.reason = f"attempt {used} of {job.max_attempts} failed"
    else:
        ack = Ack(job.id, job.attempt, "discarded", "discarded", started_at, now)
        all_failed = "its only attempt failed" if job.max_attempts == 1 else f"all {job.max_attempts} attempts failed"
        ack.reason = outcome.reason or all_failed
    ack.error, ack.traceback = outcome.error, outcome.traceback
    return ack


def _rescued(job: Claimed, outcome: Rescued, now: int, started_at: int) -> Ack:
    used = job.attempt - job.snoozes
    if job.cancel:
        return Ack(job.id, job.attempt, "cancelled", "cancelled", started_at, now, reason="cancelled while running")
    if used < job.max_attempts:
        ack = _again(job, "rescued", 0, now, started_at)
        ack.reason = outcome.reason
    else:
        ack = Ack(job.id, job.attempt, "discarded", "discarded", started_at, now)
        ack.reason = f"its worker died during attempt {used} of {job.max_attempts}: {outcome.reason}"
    ack.error = outcome.reason
    return ack


def _hold_or_yield(job: Claimed, ack: Ack, on_retry: OnRetry) -> None:
    if job.group is not None and on_retry == "hold":
        ack.holds = 1


def _freed(job: Claimed, ack: Ack, caps: tuple[str, ...]) -> tuple[str, ...]:
    freed = list(caps)
    if job.group is not None and not ack.holds:
        freed.append(GROUP + job.group)
    if job.key is not None and ack.state != "scheduled":
        freed.append(KEY + job.key)
    return tuple(freed)
