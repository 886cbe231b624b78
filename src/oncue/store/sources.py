"""What a source says about its rows, what the store knows of them, and what follows from both. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from oncue.errors import OnCueError
from oncue.job import Claimed, NewJob
from oncue.store.due import DueFormat, UnreadableDue, parse_due, resolution

RowKey = int | str
WITHDRAWN = "withdrawn"
# An application computes the due column and its own job's delay one after the other; so far may they lie apart.
_SLACK = 100_000


class SourceBroken(OnCueError):
    """A source's table, column or condition can't be used as it is; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Table:
    """Where the rows of a source are. ``where`` is a fragment of SQL; ``columns`` None means all of them."""

    source: str
    table: str
    id: str
    due: str
    where: str | None
    format: DueFormat
    columns: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it was read: its due time (microseconds) where it matches, else the reason why it does not.

    ``seen`` is everything that was read of it, None where it is gone.
    """

    key: RowKey
    seen: tuple[Any, ...] | None
    due: int | None
    reason: str | None
    values: Mapping[str, Any] = field(default_factory=dict)
    unreadable: bool = False

    @property
    def raw(self) -> Any:
        """The due value as it stands in the row."""
        return None if self.seen is None else self.seen[1]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a source says about one row: the job that it asks for, or why it asks for none.

    ``far``: its due time is beyond the horizon, so that it moves a job but makes none.
    """

    key: RowKey
    job: NewJob | None
    reason: str | None = None
    raw: Any = None
    format: DueFormat = "auto"
    far: bool = False
    seen: tuple[Any, ...] | None = None

    @property
    def ref(self) -> str:
        """The row's key and due value, as the job carries them."""
        return reference(self.key, self.job.scheduled_at if self.job is not None else 0)


def read_row(table: Table, seen: tuple[Any, ...], values: Mapping[str, Any], never: str | None = None) -> Row:
    """Return a row as it was read: ``seen`` begins with its key, its due value and whether the condition holds.

    ``never``: the due value by which this database says that something never comes.
    """
    key, raw, ok = seen[:3]
    due: int | None = None
    unreadable = False
    if not ok:
        reason = f"it no longer matches ({table.where})"
    elif raw is None:
        reason = f"its {table.due} is empty"
    elif never is not None and raw == never:
        reason = f"its {table.due} is {never}"
    else:
        reason = ""
        try:
            due = parse_due(raw, table.format)
        except UnreadableDue as error:
            reason, unreadable = f"its {table.due} can't be read: {error}", True
    return Row(key, seen, due, reason or None, values, unreadable)


def reference(key: RowKey, due: int) -> str:
    """Return the text by which a job names its row and due value."""
    return msgspec.json.encode((key, due)).decode()


def row_of(job: Claimed) -> tuple[RowKey, int]:
    """Return the row key and the due value of a source's job."""
    key, due = msgspec.json.decode(job.origin_ref or "", type=tuple[RowKey, int])
    return key, due


class Memory(msgspec.Struct, array_like=True):
    """What was handled last of a row. ``unsettled``: the job may end as skipped, so look how it ended."""

    row_key: RowKey
    due: int
    job: int
    unsettled: int


class Live(msgspec.Struct, array_like=True):
    """A job that is not final. ``first_due`` is its due time before any retry."""

    id: int
    state: str
    attempt: int
    key: str | None
    group: str | None
    scheduled_at: int
    first_due: int
    origin: str | None
    origin_ref: str | None
    task: str
    args: str
    queue: str
    priority: int


@dataclass(slots=True)
class Facts:
    """What the store knows about the rows of a batch, read in the transaction that acts on it."""

    origin: str
    memory: dict[RowKey, Memory] = field(default_factory=dict)
    own: dict[RowKey, list[Live]] = field(default_factory=dict)
    waiting: dict[str, Live] = field(default_factory=dict)
    started: dict[str, Live] = field(default_factory=dict)
    outcomes: dict[int, str] = field(default_factory=dict)
    done_refs: dict[str, int] = field(default_factory=dict)
    done_keys: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """What to do. ``move`` holds (job, due, reference or None, group); ``remember`` (row, due, raw, job, unsettled)."""

    make: list[Offer] = field(default_factory=list)
    move: list[tuple[int, int, str | None, str | None]] = field(default_factory=list)
    cancel: list[tuple[Live, str]] = field(default_factory=list)
    remember: list[tuple[RowKey, int, Any, int, int]] = field(default_factory=list)
    forget: list[RowKey] = field(default_factory=list)
    deferred: list[RowKey] = field(default_factory=list)


def settle(offers: Iterable[Offer], facts: Facts) -> Plan:
    """Decide what follows for each row, from what its source says and what the store knows."""
    plan = Plan()
    for offer in offers:
        stale = [job for job in facts.own.get(offer.key, ()) if job.state == "scheduled"]
        if offer.job is None:
            _cancel(plan, facts, offer, stale, offer.reason or "it asks for no job any more")
        else:
            _want(plan, facts, offer, offer.job, stale)
    return plan


def _cancel(plan: Plan, facts: Facts, offer: Offer, jobs: Sequence[Live], reason: str) -> None:
    """Cancel the row's jobs; forget its due value where the job that stood for it goes, so that it may come back."""
    memory = facts.memory.get(offer.key)
    for job in jobs:
        plan.cancel.append((job, reason))
        if job.key is not None and facts.waiting.get(job.key) is job:
            del facts.waiting[job.key]
        if memory is not None and memory.job == job.id:
            plan.forget.append(offer.key)


def _want(plan: Plan, facts: Facts, offer: Offer, job: NewJob, stale: list[Live]) -> None:
    memory = facts.memory.get(offer.key)
    same = next((one for one in facts.own.get(offer.key, ()) if one.origin_ref == offer.ref), None)
    stale = [one for one in stale if one is not same]
    moved = f"its due time is now {job.scheduled_at / 1e6:.3f}"
    if same is not None:
        _cancel(plan, facts, offer, stale, moved)
        known = memory is not None and memory.job == same.id and memory.due == job.scheduled_at
        _remember(plan, offer, same.id, memory.unsettled if memory is not None and known else 1)
    elif (done := _handled(facts, offer, job, memory)) is not None:
        _cancel(plan, facts, offer, stale, moved)
        _remember(plan, offer, done, 0)
    elif (mover := next((one for one in stale if _movable(one, job)), None)) is not None:
        _cancel(plan, facts, offer, [one for one in stale if one is not mover], moved)
        plan.move.append((mover.id, job.scheduled_at, offer.ref, mover.group))
        _remember(plan, offer, mover.id, 0)
    else:
        _cancel(plan, facts, offer, stale, moved)
        _make(plan, facts, offer, job)


def _handled(facts: Facts, offer: Offer, job: NewJob, memory: Memory | None) -> int | None:
    """Return the job that has handled, or is handling, this very due value; None where none has."""
    if memory is not None and memory.due == job.scheduled_at:
        ended = facts.outcomes.get(memory.job, "skipped") if memory.unsettled else ""
        if ended not in ("skipped", WITHDRAWN):
            return memory.job
    if offer.ref in facts.done_refs:
        return facts.done_refs[offer.ref]
    if job.key is None:
        return None
    # The application may have scheduled the job itself, under the same key for the same time.
    own = list(facts.done_keys.get(job.key, ()))
    if (started := facts.started.get(job.key)) is not None and started.origin is None:
        own.append((started.id, started.first_due))
    for id, due in own:
        spent = memory is not None and memory.job == id and _same_due(due, memory.due, offer)
        if _same_due(due, job.scheduled_at, offer) and not spent:
            return id
    return None


def _same_due(due: int, wanted: int, offer: Offer) -> bool:
    """Tell whether the application can have meant the row's time ``wanted`` by a job of its own, due at ``due``."""
    return wanted - _SLACK <= due < wanted + resolution(offer.raw, offer.format) + _SLACK


def _movable(one: Live, job: NewJob) -> bool:
    same = (one.task, one.args, one.key, one.group, one.queue, one.priority)
    return one.attempt == 0 and same == (job.task, job.args, job.key, job.group, job.queue, job.priority)


def _make(plan: Plan, facts: Facts, offer: Offer, job: NewJob) -> None:
    waiting = facts.waiting.get(job.key) if job.key is not None else None
    if waiting is not None and waiting.origin is None:
        # The application's own job under this key is this row's job; where their times differ, the row is right.
        if not _same_due(waiting.scheduled_at, job.scheduled_at, offer):
            plan.move.append((waiting.id, job.scheduled_at, None, waiting.group))
        _remember(plan, offer, waiting.id, 0)
    elif waiting is not None:
        plan.deferred.append(offer.key)
    elif not offer.far:
        plan.make.append(offer)


def _remember(plan: Plan, offer: Offer, job: int, unsettled: int) -> None:
    assert offer.job is not None
    plan.remember.append((offer.key, offer.job.scheduled_at, offer.raw, job, unsettled))


class Applied(msgspec.Struct):
    """What came of a batch: counts, the earliest due time among jobs made or moved, and rows that wait for a key."""

    made: int = 0
    moved: int = 0
    cancelled: int = 0
    earliest: int | None = None
    deferred: list[RowKey] = []

    def add(self, other: Applied) -> None:
        """Count another batch in."""
        self.made += other.made
        self.moved += other.moved
        self.cancelled += other.cancelled
        self.deferred += other.deferred
        times: list[int] = [time for time in (self.earliest, other.earliest) if time is not None]
        self.earliest = min(times, default=None)


class SourceStatus(msgspec.Struct, array_like=True):
    """A source as its last sweep left it. ``swept_at`` in microseconds since the epoch; counts since it was first
    swept, but ``unreadable`` as of now. ``drift`` tells what is wrong with it now, ``drift_since`` which sweep found
    something first; None where nothing is."""

    name: str
    app: str
    swept_at: int | None = None
    made: int = 0
    moved: int = 0
    cancelled: int = 0
    unreadable: int = 0
    drift: dict[str, Any] | None = None
    drift_since: int | None = None


class Found(msgspec.Struct):
    """What a look at a table found: rows that may need something done, and how many could not be read."""

    rows: list[Any]
    unreadable: int = 0
    examples: list[str] = []
    more: bool = False


class SourceKeeper(Protocol):
    """What a store does for sources. Times are microseconds since the epoch."""

    async def check(self, table: Table) -> list[str]:
        """Return the table's columns. Raises SourceBroken where it, a column or the condition can't be used."""
        ...

    async def exists(self, table: str) -> bool:
        """Tell whether there is such a table or view."""
        ...

    async def install(self, app: str, names: Sequence[str], wanted: Sequence[Table]) -> list[str]:
        """Make the triggers those of ``wanted``, and drop this app's others; return what was changed, in words."""
        ...

    async def find(self, table: Table, horizon: int) -> Found:
        """Return rows due by ``horizon`` whose due value is not handled, and rows that left a waiting job behind."""
        ...

    async def rows(self, table: Table, keys: Sequence[RowKey]) -> list[Row]:
        """Return these rows as they are now."""
        ...

    async def live_keys(self, source: str, before: int) -> list[RowKey]:
        """Return the rows which have a waiting job of this source that was made before that time."""
        ...

    async def apply(
        self, source: str, table: Table | None, offers: Sequence[Offer], now: int, expires_at: int | None, listed: int
    ) -> Applied:
        """Do what follows from these offers, in one transaction. An offer whose row has changed since is left out."""
        ...

    async def changes(self) -> dict[str, list[RowKey]]:
        """Return, by source, the rows that triggers saw change."""
        ...

    async def drop_changes(self, source: str) -> None:
        """Forget what triggers saw of this source: a full look follows, or there is nothing to look at."""
        ...

    async def guard(self, table: Table, job: Claimed) -> tuple[str | None, bool]:
        """Return why a claimed job need not run (None: it must), and whether its row is due at another time now."""
        ...

    async def save(
        self, status: SourceStatus, forget_before: int | None, table: Table | None, listed: Sequence[RowKey]
    ) -> None:
        """Record a sweep, and forget what was handled before that time of rows that have gone on since.

        None forgets nothing; ``listed`` are the rows that a source without a table has just listed.
        """
        ...

    async def status(self) -> list[SourceStatus]:
        """Return all sources as their last sweep left them."""
        ...
