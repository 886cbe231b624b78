"""Rates, by the generic cell rate algorithm (GCRA; ITU-T I.371, annex A), and who they apply to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from oncue.errors import ConfigError

SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``rate`` starts in ``per`` seconds, evenly spaced, after a first ``burst`` that may go at once.

    ``Limit(80, per=1)`` is one start each 12.5 ms; ``Limit(1, per=6, burst=45)`` lets 45 go at once, then one
    each 6 s. Raises ConfigError for values that can't work.
    """

    rate: float
    per: float = 1.0
    burst: int = 1

    def __post_init__(self) -> None:
        if not self.rate > 0 or not self.per > 0 or self.burst < 1:
            raise ConfigError(f"{self!r}: rate and per are above 0 and burst is at least 1.")

    @property
    def interval_us(self) -> int:
        """Microseconds between two starts at the full rate (GCRA's T)."""
        return max(1, round(self.per * SECOND / self.rate))

    def __str__(self) -> str:
        return f"{self.rate:g}/{self.per:g}s" if self.per != 1 else f"{self.rate:g}/s"


@dataclass(slots=True)
class Bucket:
    """The stored state of one rate: GCRA's theoretical arrival time, and the last slot given to a waiting job."""

    tat: int = 0
    backlog: int = 0

    def slot(self, limit: Limit, now: int, has_slot: bool) -> int:
        """Return when a job may start: ``now`` where a token is free, else the slot to wait for.

        A newcomer goes behind the jobs that wait already (``has_slot`` tells those), so that the oldest
        is never overtaken for ever.
        """
        earliest = self.tat - limit.interval_us * (limit.burst - 1)
        if has_slot or self.backlog <= now:
            return max(earliest, now)
        return max(earliest, self.backlog + limit.interval_us)

    def spend(self, limit: Limit, now: int) -> None:
        """Take one token at ``now``."""
        self.tat = max(self.tat, now) + limit.interval_us


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of one task or one queue."""

    limit: Limit | None = None
    group_limit: Limit | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise ConfigError(f"concurrency is at least 1, not {self.concurrency!r}.")

    def __bool__(self) -> bool:
        return self.limit is not None or self.group_limit is not None or self.concurrency is not None


def possible_caps(task: str, queue: str) -> tuple[str, ...]:
    """Return the names of all caps that may bind a job, for one who doesn't know the application's policy."""
    return (f"cap:task:{task}", f"cap:queue:{queue}")


@dataclass(frozen=True, slots=True)
class Policy:
    """All limits of an application, by task name and by queue name; what a claim must respect."""

    tasks: Mapping[str, Rules] = field(default_factory=dict)
    queues: Mapping[str, Rules] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tasks or self.queues)

    def rules(self, task: str, queue: str) -> list[tuple[str, Rules]]:
        """Return the rules that bind a job, each with its name in the store (``task:x``, ``queue:y``)."""
        found = []
        if (by_task := self.tasks.get(task)) is not None:
            found.append((f"task:{task}", by_task))
        if (by_queue := self.queues.get(queue)) is not None:
            found.append((f"queue:{queue}", by_queue))
        return found

    def rates(self, task: str, queue: str, group: str | None) -> list[tuple[str, Limit]]:
        """Return the named rates from which a start of this job takes a token each."""
        found = []
        for name, rules in self.rules(task, queue):
            if rules.limit is not None:
                found.append((name, rules.limit))
            if rules.group_limit is not None and group is not None:
                found.append((f"{name}:group:{group}", rules.group_limit))
        return found

    def caps(self, task: str, queue: str) -> list[tuple[str, int]]:
        """Return the named concurrency caps that a running job counts against."""
        return [(f"cap:{n}", r.concurrency) for n, r in self.rules(task, queue) if r.concurrency is not None]
