"""What ``schedule`` returns: the job's id, what became of the call, and its result when it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from oncue.clock import from_us
from oncue.errors import JobCancelled, JobFailed, ResultNotKept, ResultTimeout, UnknownJob
from oncue.job import Inserted, InsertStatus
from oncue.scheduling import Scheduled
from oncue.task import Call

if TYPE_CHECKING:
    from oncue.app import OnCue

R = TypeVar("R")


class JobHandle(Generic[R]):
    """A stored job, as its scheduler holds it."""

    __slots__ = ("_app", "_due", "_returns", "id", "status")

    def __init__(self, app: OnCue, inserted: Inserted, returns: Any) -> None:
        self._app, self._returns = app, returns
        self.id: int = inserted.id
        """The job's id."""
        self.status: InsertStatus = inserted.status
        """``created``, or what ``on_conflict`` did with the waiting job of the same key."""
        self._due = inserted.scheduled_at

    @property
    def scheduled_at(self) -> datetime:
        """When the job is due, UTC."""
        return from_us(self._due)

    def __repr__(self) -> str:
        return f"<job {self.id} {self.status}, due {self.scheduled_at.isoformat()}>"

    async def result(self, timeout: float | None = None) -> R:
        """Wait until the job is final and return what its handler returned.

        ``timeout`` in seconds. Raises JobFailed (discarded), JobCancelled (cancelled or skipped), ResultTimeout,
        ResultNotKept (completed with a result that could not be stored, or is not of the task's type any more), and
        UnknownJob where the finished row has been pruned already.
        """
        try:
            async with asyncio.timeout(timeout):
                row = await self._app.results.wait(self.id)
        except TimeoutError:
            raise ResultTimeout(f"Job {self.id} was not final after {timeout:g} s; it goes on.") from None
        if row is None:
            raise UnknownJob(f"Job {self.id} is not in the kept history any more; its retention is over.")
        if row.state == "discarded":
            raise JobFailed(f"Job {self.id} ({row.task}) was discarded: {row.reason}. Last error: {row.error}")
        if row.state == "cancelled":
            raise JobCancelled(f"Job {self.id} ({row.task}) was cancelled: {row.reason}")
        try:
            value: R = msgspec.convert(row.result, self._returns)
        except msgspec.ValidationError as error:
            raise ResultNotKept(f"Job {self.id} ({row.task}) completed, but {row.reason or error}.") from error
        return value


def handles(app: OnCue, inserted: Sequence[Inserted], calls: Sequence[Scheduled | Call[Any]]) -> list[JobHandle[Any]]:
    """Return the handles of calls that were stored together."""
    return [
        JobHandle(app, row, (one if isinstance(one, Call) else one.call).task.returns)
        for row, one in zip(inserted, calls, strict=True)
    ]
