"""What one process has done, counted: counters and histograms in memory, with no input or output."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import pairwise
from typing import Protocol

import msgspec

from oncue.job import Ack, Claimed

Settled = tuple[Claimed, Ack]
_STEPS = (1, 2, 5)
EDGES: tuple[int, ...] = (
    *(step * 10**power for power in (3, 4, 5, 6) for step in _STEPS),
    *(second * 10**6 for second in (10, 30, 60, 300, 1_800, 7_200)),
)
"""The upper edges of a histogram's buckets in microseconds, 1 ms to 2 h; one more bucket holds what is above them."""
MINUTE = 60_000_000
_MOST_MINUTES = 5_000
_LONG_OVER = 10 * MINUTE
_FEW = 16
_RAN = frozenset(("completed", "retried", "discarded", "snoozed"))


class Histogram(msgspec.Struct):
    """How often which span came, in microseconds. ``counts`` has one figure for each of ``EDGES`` and one more."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(EDGES) + 1))
    total: int = 0
    """The sum of all spans."""
    max: int = 0

    @property
    def count(self) -> int:
        """How many spans there are."""
        return sum(self.counts)

    def add(self, buckets: Iterable[tuple[int, int]], total: int, longest: int) -> None:
        """Add what ``bucketed`` made of some spans, their sum and the longest of them."""
        for bucket, count in buckets:
            self.counts[bucket] += count
        self.total += total
        self.max = max(self.max, longest)

    def merge(self, other: Histogram) -> None:
        """Add another histogram's spans."""
        self.add(enumerate(other.counts), other.total, other.max)

    def quantile(self, share: float) -> int:
        """Return the span in microseconds that ``share`` (0 to 1) of all do not exceed, as exact as the buckets are.

        Within its bucket the spans are taken to be evenly spread; the longest one is known exactly. 0 without any.
        """
        rank, below = share * self.count, 0
        for bucket, count in enumerate(self.counts):
            if count and below + count >= rank:
                low = EDGES[bucket - 1] if bucket else 0
                high = min(EDGES[bucket], self.max) if bucket < len(EDGES) else self.max
                return low + round(max(0, high - low) * max(0.0, rank - below) / count)
            below += count
        return 0


def bucketed(spans: list[int]) -> list[tuple[int, int]]:
    """Return (bucket, count) for spans in rising order. A negative span counts as none at all."""
    if len(spans) <= _FEW:
        return list(Counter([bisect_left(EDGES, span) for span in spans]).items())
    first, last = bisect_left(EDGES, spans[0]), bisect_left(EDGES, spans[-1])
    if first == last:
        return [(first, len(spans))]
    ends = [0, *(bisect_right(spans, EDGES[bucket]) for bucket in range(first, last)), len(spans)]
    return [(first + n, high - low) for n, (low, high) in enumerate(pairwise(ends)) if high > low]


class Figures(msgspec.Struct):
    """What became of a task's attempts since the process began."""

    outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    lateness: Histogram = msgspec.field(default_factory=Histogram)
    duration: Histogram = msgspec.field(default_factory=Histogram)


class Minute(msgspec.Struct):
    """A row of ``oncue_minute``: what a worker recorded of a task in a minute. ``minute`` is its start, microseconds
    since the epoch; ``ran_us`` is how long all attempts took together."""

    minute: int
    worker: int
    task: str
    started: int = 0
    completed: int = 0
    retried: int = 0
    discarded: int = 0
    skipped: int = 0
    ran_us: int = 0
    lateness: Histogram = msgspec.field(default_factory=Histogram)


class Found(Protocol):
    """What a round trip gave: jobs, the ids of those whose outcome came too late, and how many were put off by a limit
    or skipped."""

    jobs: list[Claimed]
    lost: list[int]
    limited: int
    skipped: int


class Recorder:
    """Counts what the workers and the sweep of one process do. Not to be used by several threads.

    ``listeners`` are called when there are the first new figures since ``take_minutes``.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, Figures] = {}
        self.claims = self.claimed = self.skipped = self.limited = 0
        """Round trips to the store, and of jobs: how many were claimed, skipped at the claim, put off by a limit."""
        self.acks = self.acks_lost = self.leases_lost = self.rescued = 0
        self.sweeps: Counter[str] = Counter()
        """Sweeps by result (``ok``, ``failed``), and under the names of ``Swept`` what they did."""
        self.swept_at: int | None = None
        self.listeners: list[Callable[[], object]] = []
        # What no worker of this process recorded must not overwrite another process's row.
        self._nobody = -random.getrandbits(48)
        self._minutes: dict[tuple[int, int, str], Minute] = {}
        self._news: set[tuple[int, int, str]] = set()

    def round(self, worker: int, now: int, entries: Sequence[Settled], found: Found) -> None:
        """Count a worker's round trip: what it recorded, less what was lost, and what it was given."""
        self.claims += 1
        self.claimed += len(found.jobs)
        self.limited += found.limited
        if found.skipped:
            self.skipped += found.skipped
            self._minute(now, worker, "").skipped += found.skipped
        if entries:
            self.acked(worker, now, entries, found.lost)

    def acked(self, worker: int, now: int, entries: Sequence[Settled], lost: Collection[int] = ()) -> None:
        """Count outcomes that stand in the database now."""
        if lost:
            gone = frozenset(lost)
            self.acks_lost += len(gone)
            entries = [entry for entry in entries if entry[0].id not in gone]
        self.acks += len(entries)
        by_task: defaultdict[str, list[Settled]] = defaultdict(list)
        for entry in entries:
            by_task[entry[0].task].append(entry)
        for task, group in by_task.items():
            self._count(worker, now, task, group)

    def rescues(self, now: int, entries: Sequence[Settled]) -> None:
        """Count jobs that were taken back from workers that died or fell silent."""
        self.rescued += len(entries)
        for job, ack in entries:
            outcome = "rescued" if ack.state == "scheduled" else ack.outcome
            self.of(job.task).outcomes[outcome] += 1
            if outcome == "discarded":
                self._minute(now, self._nobody, job.task).discarded += 1

    def swept(self, now: int, done: Iterable[tuple[str, int]] | None) -> None:
        """Count a sweep and what it did; None for one that failed."""
        self.sweeps["failed" if done is None else "ok"] += 1
        if done is not None:
            self.swept_at = now
            self.sweeps.update(dict(done))

    def of(self, task: str) -> Figures:
        """Return a task's figures."""
        if (found := self.tasks.get(task)) is None:
            found = self.tasks[task] = Figures()
        return found

    def _count(self, worker: int, now: int, task: str, group: list[Settled]) -> None:
        outcomes = Counter([ack.outcome for _, ack in group])
        figures, minute = self.of(task), self._minute(now, worker, task)
        figures.outcomes.update(outcomes)
        minute.completed += outcomes["completed"]
        minute.retried += outcomes["retried"]
        minute.discarded += outcomes["discarded"]
        minute.skipped += outcomes["skipped"]
        if not outcomes.keys() <= _RAN:
            group = [entry for entry in group if entry[1].outcome in _RAN]
        if group:
            late = sorted([ack.started_at - job.scheduled_at for job, ack in group])
            took = sorted([ack.finished_at - ack.started_at for _, ack in group])
            buckets, total = bucketed(late), sum(late)
            figures.lateness.add(buckets, total, late[-1])
            minute.lateness.add(buckets, total, late[-1])
            total = sum(took)
            figures.duration.add(bucketed(took), total, took[-1])
            minute.started += len(group)
            minute.ran_us += total

    def _minute(self, now: int, worker: int, task: str) -> Minute:
        key = (now - now % MINUTE, worker, task)
        if (found := self._minutes.get(key)) is None:
            found = self._minutes[key] = Minute(*key)
        if key not in self._news:
            self._news.add(key)
            if len(self._news) == 1:
                for tell in self.listeners:
                    tell()
        return found

    @property
    def news(self) -> bool:
        """Whether there are figures that ``take_minutes`` has not returned yet."""
        return bool(self._news)

    def take_minutes(self, now: int) -> list[Minute]:
        """Return the minutes that have new figures, whole, and forget those that are long over."""
        taken = [self._minutes[key] for key in sorted(self._news)]
        self._news.clear()
        # A round trip that began in an earlier minute may still bring figures of it, and a row is written whole.
        for key in [key for key in self._minutes if key[0] + _LONG_OVER <= now]:
            del self._minutes[key]
        return taken

    def give_back(self, minutes: Iterable[Minute]) -> None:
        """Have minutes taken again that could not be written: the newest 5,000 rows of them."""
        for one in minutes:
            key = (one.minute, one.worker, one.task)
            self._minutes.setdefault(key, one)
            self._news.add(key)
        for key in sorted(self._news)[:-_MOST_MINUTES]:
            self._news.discard(key)
            self._minutes.pop(key, None)


def to_json(spans: Histogram) -> str:
    """Return the JSON text that ``oncue_minute`` keeps of a histogram: counts by upper bound, in microseconds.

    The highest bound is the longest span itself, so that nothing is lost of it.
    """
    bounds = {str(min(edge, spans.max)): count for edge, count in zip(EDGES, spans.counts, strict=False) if count}
    if spans.counts[-1]:
        bounds[str(spans.max)] = spans.counts[-1]
    return msgspec.json.encode(bounds).decode()


def merged(texts: Iterable[str]) -> Histogram:
    """Return histograms that ``to_json`` wrote as one; what their spans are in sum is not known, so 0."""
    found = Histogram()
    for text in texts:
        bounds = msgspec.json.decode(text, type=dict[int, int])
        counts = [(bisect_left(EDGES, bound), count) for bound, count in bounds.items()]
        found.add(counts, 0, max(bounds, default=0))
    return found
