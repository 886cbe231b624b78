"""The calls of OnCue for synchronous code, and for a caller's own transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from oncue.errors import InvalidJob
from oncue.handle import JobHandle, handles
from oncue.job import Cancelled
from oncue.scheduling import Delay, Scheduled, due_time, new_job, traced_storing
from oncue.store.steps.insert import insert_jobs
from oncue.store.steps.manage import cancel, reschedule
from oncue.task import MAX_ID, Call, checked_name, checked_whole

if TYPE_CHECKING:
    from oncue.app import OnCue


class SyncOnCue:
    """``app.sync``: schedule, cancel and reschedule without ``await``, from any thread.

    Without ``connection`` each call is a durable transaction of its own. With it the call is part of the caller's
    transaction: ``connection`` is a sqlite3 connection to the same file, or one to the same PostgreSQL database, of
    psycopg, psycopg2, SQLAlchemy (Session, scoped_session, Connection) or Django. See ``OnCue.schedule``.
    """

    def __init__(self, app: OnCue) -> None:
        self._app = app

    def schedule(self, call: Call[Any], *, connection: Any = None, **options: Any) -> JobHandle[Any]:
        """Store a call to run later; the options are those of ``OnCue.schedule``, and so are the errors."""
        return self.schedule_as(Scheduled(call, **options), connection)

    def schedule_as(self, wanted: Scheduled, connection: Any = None) -> JobHandle[Any]:
        """``schedule`` with the options in a ``Scheduled``."""
        return self.schedule_many([wanted], connection=connection)[0]

    def schedule_many(self, calls: Sequence[Scheduled | Call[Any]], *, connection: Any = None) -> list[JobHandle[Any]]:
        """Store many calls in one transaction: the caller's where ``connection`` is given, else one of its own."""
        with traced_storing(calls):
            now = self._now()
            jobs = [new_job(one, now) for one in calls]
            if not jobs:
                return []
            due = min(job.scheduled_at for job in jobs)
            inserted = self._app.store.within_sync(connection, lambda: insert_jobs(jobs), due)
        # Also inside the caller's transaction: a hint too soon costs a look, one that is missing costs a sweep.
        self._app.wake.hint(min(one.scheduled_at for one in inserted))
        return handles(self._app, inserted, calls)

    def cancel(self, *, key: str | None = None, id: int | None = None, connection: Any = None) -> Cancelled:
        """``OnCue.cancel``, synchronously; in the caller's transaction where ``connection`` is given."""
        self.check_name(key, id)
        now = self._now()
        expires = None if self._app.retention_us is None else now + self._app.retention_us
        answer = self._app.store.within_sync(connection, lambda: cancel(now, expires, id=id, key=key), now)
        self._app.wake.hint(now)
        return answer

    def reschedule(
        self,
        *,
        key: str | None = None,
        id: int | None = None,
        delay: Delay | None = None,
        at: datetime | None = None,
        connection: Any = None,
    ) -> bool:
        """``OnCue.reschedule``, synchronously; in the caller's transaction where ``connection`` is given."""
        self.check_name(key, id)
        due = due_time(self._now(), delay, at)
        moved = self._app.store.within_sync(connection, lambda: reschedule(due, id=id, key=key), due)
        self._app.wake.hint(due)
        return moved

    def _now(self) -> int:
        self._app.store.know_time()
        return self._app.clock.now()

    @staticmethod
    def check_name(key: str | None, id: int | None) -> None:
        """Raise InvalidJob unless exactly one of key and id is given, and could be a job's."""
        if (key is None) == (id is None):
            raise InvalidJob(f"Name the job by key= or by id=, exactly one of them; got key={key!r}, id={id!r}.")
        if key is not None:
            checked_name("key", key)
        else:
            checked_whole("id", id, 1, MAX_ID)
