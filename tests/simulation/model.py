"""What a store must do, in memory and as plainly as it can be said. The machine compares a real store with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from oncue.job import Inserted, NewJob

Kind = Literal["complete", "fail", "give up", "snooze", "release", "skip"]
STATUS = {"keep": "kept", "replace": "replaced", "reschedule": "rescheduled", "debounce": "debounced"}


@dataclass
class Job:
    """A job as the model knows it. ``not_before`` is later than ``due`` where it was given back."""

    id: int
    due: int
    not_before: int
    priority: int
    queue: str
    key: str | None
    group: str | None
    max_attempts: int
    created: int
    state: str = "scheduled"
    attempt: int = 0
    snoozes: int = 0
    folded: int = 0
    holds: bool = False
    worker: int | None = None
    asked_to_stop: bool = False
    expires: int | None = None
    attempts: list[str] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return self.state in ("scheduled", "running")


class Model:
    """The rules of part 3 of the design, without limits."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}

    def live(self) -> list[Job]:
        return [one for one in self.jobs.values() if one.live]

    def waiting(self, key: str | None) -> Job | None:
        return next((one for one in self.live() if one.key == key is not None and one.attempt == 0), None)

    def started(self, key: str | None) -> Job | None:
        return next((one for one in self.live() if one.key == key is not None and one.attempt > 0), None)

    def insert(self, new: NewJob, got: Inserted) -> None:
        """Follow an insert, and check what the store said of it."""
        started, waiting = self.started(new.key), self.waiting(new.key)
        if started is not None and new.while_started == "keep":
            assert (got.id, got.status, got.scheduled_at) == (started.id, "kept", started.due)
            started.folded += 1
        elif waiting is None:
            assert got.status == "created"
            assert got.id not in self.jobs
            due = new.scheduled_at
            self.jobs[got.id] = Job(
                got.id, due, due, new.priority, new.queue, new.key, new.group, new.max_attempts, new.created_at
            )
        else:
            self._fold(waiting, new)
            assert (got.id, got.status) == (waiting.id, STATUS[new.on_conflict])
            assert got.scheduled_at == waiting.due

    def _fold(self, waiting: Job, new: NewJob) -> None:
        waiting.folded += 1
        if new.on_conflict == "keep":
            return
        due = new.scheduled_at
        if new.on_conflict == "debounce" and new.max_wait is not None:
            due = min(due, max(waiting.created + new.max_wait, new.created_at))
        waiting.due = waiting.not_before = due
        if new.on_conflict != "reschedule":
            waiting.priority, waiting.queue, waiting.group = new.priority, new.queue, new.group
            waiting.max_attempts = new.max_attempts

    def behind_its_key(self, one: Job) -> bool:
        started = self.started(one.key)
        return started is not None and started is not one

    def head(self, group: str) -> Job | None:
        lane = [
            one
            for one in self.live()
            if one.group == group and one.state == "scheduled" and not one.holds and not self.behind_its_key(one)
        ]
        return min(lane, key=lambda one: (one.due, one.id), default=None)

    def claimable(self, now: int, queues: frozenset[str] | None) -> set[int]:
        """The ids of all jobs that a claim must find, whatever the order in which it looks."""
        found = set()
        for one in self.live():
            if one.state != "scheduled" or one.not_before > now or (queues is not None and one.queue not in queues):
                continue
            if self.behind_its_key(one):
                continue
            if one.group is not None and not one.holds:
                holder = any(other.holds and other.group == one.group for other in self.live())
                if holder or self.head(one.group) is not one:
                    continue
            found.add(one.id)
        return found

    def claim(self, id: int, worker: int) -> None:
        one = self.jobs[id]
        one.state, one.worker, one.attempt, one.holds = "running", worker, one.attempt + 1, one.group is not None

    def end(self, id: int, kind: Kind, now: int, delay: int, hold: bool, retention: int | None) -> None:
        """Follow the outcome of a running attempt."""
        one = self.jobs[id]
        used = one.attempt - one.snoozes
        one.worker, one.holds = None, False
        if kind in ("snooze", "release"):
            one.snoozes += 1
            one.attempts.append("snoozed" if kind == "snooze" else "released")
            self._back(one, now + delay if kind == "snooze" else one.due, now)
        elif kind == "fail" and used < one.max_attempts:
            one.attempts.append("retried")
            one.holds = hold and one.group is not None
            self._back(one, now + delay, now)
        else:
            final = {"complete": "completed", "skip": "cancelled"}.get(kind, "discarded")
            self._final(one, final, now, retention)

    def rescue(self, id: int, now: int, retention: int | None) -> None:
        one = self.jobs[id]
        one.worker, one.holds = None, False
        if one.asked_to_stop:
            self._final(one, "cancelled", now, retention)
        elif one.attempt - one.snoozes < one.max_attempts:
            one.attempts.append("rescued")
            one.holds = one.group is not None
            self._back(one, one.due, now)
        else:
            self._final(one, "discarded", now, retention)

    @staticmethod
    def _back(one: Job, due: int, now: int) -> None:
        one.state, one.due, one.not_before = "scheduled", due, max(due, now)

    @staticmethod
    def _final(one: Job, state: str, now: int, retention: int | None) -> None:
        one.state, one.worker, one.holds = state, None, False
        one.expires = None if retention is None else now + retention

    def named(self, id: int | None, key: str | None) -> list[Job]:
        """The live jobs that an id or key names, the waiting one first."""
        if id is not None:
            return [one for one in self.live() if one.id == id]
        return [one for one in (self.waiting(key), self.started(key)) if one is not None]

    def cancel(self, id: int | None, key: str | None, now: int, retention: int | None) -> str:
        answer = "too late"
        for one in self.named(id, key):
            if one.state == "running":
                one.asked_to_stop, answer = True, "requested"
            else:
                self._final(one, "cancelled", now, retention)
                answer = "requested" if answer == "requested" else "prevented"
        return answer

    def reschedule(self, id: int | None, key: str | None, due: int) -> bool:
        one = next((one for one in self.named(id, key) if one.state == "scheduled"), None)
        if one is not None:
            one.due = one.not_before = due
            one.holds = False
        return one is not None

    def restart(self, id: int, now: int) -> bool:
        """Put a discarded or cancelled job back; False where its key is in use."""
        one = self.jobs[id]
        other = self.waiting(one.key) if one.attempt == 0 else self.started(one.key)
        if other is not None:
            return False
        one.attempts.append("discarded" if one.state == "discarded" else "cancelled")
        one.max_attempts += one.attempt - one.snoozes
        one.state, one.expires, one.asked_to_stop = "scheduled", None, False
        one.due = one.not_before = now
        return True

    def prune(self, now: int) -> int:
        gone = [id for id, one in self.jobs.items() if not one.live and one.expires is not None and one.expires <= now]
        for id in gone:
            del self.jobs[id]
        return len(gone)
