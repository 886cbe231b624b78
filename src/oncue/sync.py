"""The calls of OnCue for synchronous code, and for a caller's own transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from oncue.errors import InvalidJob
from oncue.handle import JobHandle, handles
from oncue.job import Cancelled
from oncue.scheduling import Delay, Scheduled, due_time, new_job
from oncue.task import MAX_ID, Call, checked_name, checked_whole

if TYPE_CHECKING:
    import sqlite3

    from oncue.app import OnCue


class SyncOnCue:
    """``app.sync``: schedule, cancel and reschedule without ``await``, from any thread."""

    def __init__(self, app: OnCue) -> None:
        self._app = app

    def schedule(
        self, call: Call[Any], *, connection: sqlite3.Connection | None = None, **options: Any
    ) -> JobHandle[Any]:
        """Store a call to run later; the options are those of ``OnCue.schedule``, and so are the errors."""
        return self.schedule_as(Scheduled(call, **options), connection)

    def schedule_as(self, wanted: Scheduled, connection: sqlite3.Connection | None = None) -> JobHandle[Any]:
        """``schedule`` with the options in a ``Scheduled``."""
        return self.schedule_many([wanted], connection=connection)[0]

    def schedule_many(
        self, calls: Sequence[Scheduled | Call[Any]], *, connection: sqlite3.Connection | None = None
    ) -> list[JobHandle[Any]]:
        """Store many calls in one transaction: the caller's where ``connection`` is given, else one of its own."""
        now = self._app.clock.now()
        jobs = [new_job(one, now) for one in calls]
        if not jobs:
            return []
        inserted = self._app.store.insert_sync(jobs, connection)
        # Also inside the caller's transaction: a hint too soon costs a look, one that is missing costs a sweep.
        self._app.wake.hint(min(one.scheduled_at for one in inserted))
        return handles(self._app, inserted, calls)

    def cancel(
        self, *, key: str | None = None, id: int | None = None, connection: sqlite3.Connection | None = None
    ) -> Cancelled:
        """``OnCue.cancel``, synchronously; in the caller's transaction where ``connection`` is given."""
        self.check_name(key, id)
        now = self._app.clock.now()
        expires = None if self._app.retention_us is None else now + self._app.retention_us
        answer = self._app.store.cancel_sync(now, expires, id, key, connection)
        self._app.wake.hint(now)
        return answer

    def reschedule(
        self,
        *,
        key: str | None = None,
        id: int | None = None,
        delay: Delay | None = None,
        at: datetime | None = None,
        connection: sqlite3.Connection | None = None,
    ) -> bool:
        """``OnCue.reschedule``, synchronously; in the caller's transaction where ``connection`` is given."""
        self.check_name(key, id)
        due = due_time(self._app.clock.now(), delay, at)
        moved = self._app.store.reschedule_sync(due, id, key, connection)
        self._app.wake.hint(due)
        return moved

    @staticmethod
    def check_name(key: str | None, id: int | None) -> None:
        """Raise InvalidJob unless exactly one of key and id is given, and could be a job's."""
        if (key is None) == (id is None):
            raise InvalidJob(f"Name the job by key= or by id=, exactly one of them; got key={key!r}, id={id!r}.")
        if key is not None:
            checked_name("key", key)
        else:
            checked_whole("id", id, 1, MAX_ID)
