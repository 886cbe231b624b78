"""What every face answers, as structs: the page, the HTTP API and the command line show the same.

Times are RFC 3339 in UTC with microseconds, such as ``2026-11-30T17:20:01.123456Z``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
Level = Literal["ok", "warn", "fail"]
StateFilter = Literal["scheduled", "due", "running", "late", "blocked", "completed", "discarded", "cancelled"]


class Health(msgspec.Struct, frozen=True):
    """One finding, and where it isn't well, how to mend it."""

    name: str
    state: Level
    found: str
    remedy: str | None = None


class Counts(msgspec.Struct, frozen=True):
    """How many jobs are in which state. ``late``: due for more than a second and not running; ``scheduled``: for later;
    ``blocked``: behind another job or a limit. ``next_due``: when the next may start."""

    scheduled: int
    due: int
    running: int
    late: int
    blocked: int
    completed: int
    discarded: int
    cancelled: int
    next_due: Time | None


class Lateness(msgspec.Struct, frozen=True):
    """How late jobs started in the last ``window_s`` seconds, in milliseconds; None where none did."""

    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    window_s: int


class Coming(msgspec.Struct, frozen=True):
    """How many jobs become eligible in the span that begins at ``at``."""

    at: Time
    count: int


class Past(msgspec.Struct, frozen=True):
    """What workers did in the minute that began at ``at``. How late jobs started is None where none did."""

    at: Time
    started: int
    completed: int
    retried: int
    discarded: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class Overview(msgspec.Struct, frozen=True):
    """How things are."""

    now: Time
    counts: Counts
    lateness: Lateness
    throughput_per_s: float
    coming: list[Coming]
    past: list[Past]
    health: list[Health]


class JobSummary(msgspec.Struct, frozen=True):
    """A job as a list shows it. ``error`` and ``reason``: of its end, or of its last attempt."""

    id: int
    state: Literal["scheduled", "running", "completed", "discarded", "cancelled"]
    outcome: str | None
    task: str
    queue: str
    key: str | None
    group: str | None
    priority: int
    attempt: int
    max_attempts: int
    scheduled_at: Time
    eligible_at: Time | None
    started_at: Time | None
    finished_at: Time | None
    blocked_by: str | None
    worker: int | None
    late: bool
    error: str | None
    reason: str | None


class JobRow(JobSummary, frozen=True):
    """A job with what it was given and what it left. ``first_due``: when it was due before it was moved;
    ``max_late``: in seconds."""

    args: Any
    metadata: Any
    progress: Any
    result: Any
    origin: str | None
    origin_ref: str | None
    created_at: Time
    first_due: Time | None
    claimed_at: Time | None
    max_late: float | None
    when_late: str
    folded: int
    snoozes: int
    cancel_requested: bool


class JobDetail(JobRow, frozen=True):
    """All that is known of a job."""

    traceback: str | None


class Attempt(msgspec.Struct, frozen=True):
    """One attempt of a job that has ended."""

    attempt: int
    outcome: str
    scheduled_at: Time
    claimed_at: Time | None
    started_at: Time
    finished_at: Time
    worker: int | None
    error: str | None
    traceback: str | None
    reason: str | None


class Scanned(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}):
    """The ids among which a search has looked."""

    start: int
    end: int


class JobPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of jobs, the highest id first. ``scanned``: where a search stopped before it had found a whole page."""

    items: list[JobSummary]
    next: str | None
    scanned: Scanned | msgspec.UnsetType = msgspec.UNSET


class LifeEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened to a job."""

    at: Time
    event: str
    text: str
    traceback: str | None = None
    worker: int | None = None


class JobLife(msgspec.Struct, frozen=True):
    """A job, in words why it does not run now or what became of it, all that happened to it, and its attempts; of many
    the first one and the latest 100."""

    job: JobDetail
    why: str
    life: list[LifeEvent]
    attempts: list[Attempt]


class Done(msgspec.Struct, frozen=True):
    """What came of an action: whether it changed anything, and in words."""

    done: bool
    text: str


class Refused(msgspec.Struct, frozen=True):
    """A job to which an action did not apply."""

    id: int
    why: str


class ManyCounted(msgspec.Struct, frozen=True):
    """So many jobs match; nothing was done. The ``token`` stands for the question, for ten minutes."""

    count: int
    token: str


class ManyDone(msgspec.Struct, frozen=True):
    """What was done to many: how many jobs, and the first hundred that were refused; ``text`` in words."""

    done: int
    refused: list[Refused]
    text: str


class Lane(msgspec.Struct, frozen=True):
    """A queue or a task, and its jobs, counted as ``Counts`` does."""

    name: str
    paused: bool
    paused_at: Time | None
    due: int
    late: int
    scheduled: int
    blocked: int
    running: int
    discarded: int


class Schedule(msgspec.Struct, frozen=True):
    """A recurring definition. ``rule``: its cron expression or interval; ``options``: what the code says beside it."""

    name: str
    task: str
    rule: str
    timezone: str
    next: Time | None
    last: Time | None
    paused: bool
    missed: int
    options: dict[str, Any]


class Fire(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fire: in UTC, in the schedule's zone, and where the clock is changed, that. ``job``: what it made."""

    at: Time
    local: str
    offset: str
    shift: str | None = None
    job: int | None = None


class ScheduleDetail(Schedule, frozen=True):
    """A schedule with its next and last fires; while it is paused, the next as they would be, were it resumed now."""

    next_fires: list[Fire]
    last_fires: list[Fire]


class Running(msgspec.Struct, frozen=True):
    """A job that a worker runs, and since when."""

    id: int
    task: str
    started_at: Time


class Worker(msgspec.Struct, frozen=True):
    """A registered worker; ``queues`` and ``tasks`` are None for all, or where it isn't known.

    ``weights``: those of its queues, where they have any. ``jobs``: what it runs, of more than a hundred those that
    began first. ``wake``: why it hears late of what other processes store; None while it hears at once. ``given_up``:
    its jobs were taken back, but for those whose rows other transactions hold.
    """

    id: int
    name: str
    state: Literal["alive", "silent", "dead"]
    host: str
    pid: int
    version: str | None
    running: int
    jobs: list[Running]
    queues: list[str] | None
    weights: dict[str, float] | None
    tasks: list[str] | None
    started_at: Time
    seen_at: Time
    lease_until: Time
    wake: str | None
    wake_since: Time | None
    given_up: bool


class Source(msgspec.Struct, frozen=True):
    """A source as its last sweep left it. ``rows``: how many jobs it has made; ``drift``: rows and jobs that differ,
    ``since`` which sweep; None while they agree."""

    name: str
    swept_at: Time | None
    rows: int
    moved: int
    cancelled: int
    drift: int
    since: Time | None
    error: str | None
    found: str


class Blocker(msgspec.Struct, frozen=True):
    """What jobs wait behind, and the job that holds them."""

    name: str
    waiting: int
    job: int | None
    state: str | None
    since: Time | None
    why: str


class AuditEntry(msgspec.Struct, frozen=True):
    """What somebody did, when, to what, and to how many."""

    id: int
    at: Time
    who: str
    action: str
    target: str
    count: int
    detail: dict[str, Any]


class AuditPage(msgspec.Struct, frozen=True):
    """What was done, the latest first."""

    items: list[AuditEntry]
    next: str | None


class Token(msgspec.Struct, frozen=True):
    """A token of the HTTP API, without what it is."""

    name: str
    roles: list[str]
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    good: bool


class Made(msgspec.Struct, frozen=True):
    """A job that was asked for: its id, whether it is a row of its own (``created``), and when it is due."""

    id: int
    status: str
    task: str
    scheduled_at: Time
