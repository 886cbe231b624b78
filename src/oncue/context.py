"""What a running handler can know of its job, and say about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from oncue.clock import from_us
from oncue.errors import ConfigError, LeaseLost
from oncue.job import Claimed
from oncue.tracing import without_trace

T = TypeVar("T")
Completer = Callable[[Any, Any, bool], Any]
"""``(connection, result, sync)``: records the completion; tells, or has to be awaited to tell, whether it counts."""
_current: ContextVar[JobContext] = ContextVar("oncue_job")


class JobContext:
    """The job that a handler runs for. Take it as the first parameter, or call ``current_job()``."""

    __slots__ = ("_complete", "_job", "_loop", "_report", "_resources", "cancelled", "lease_lost", "stopped")

    def __init__(
        self,
        job: Claimed,
        resources: Mapping[type, Any],
        report: Callable[[Claimed, dict[str, Any]], Any],
        loop: asyncio.AbstractEventLoop,
        complete: Completer,
    ) -> None:
        self._job, self._resources, self._report, self._loop = job, resources, report, loop
        self._complete = complete
        self.cancelled = False
        """True once the job was asked to stop: the flag that a synchronous handler looks at."""
        self.lease_lost = False
        """True once the job was taken back from this worker: what this attempt still does no longer counts."""
        self.stopped = ""
        """Why the job was asked to stop: ``timeout``, ``cancelled``, ``shutdown``, ``lease lost``; else empty."""

    @property
    def id(self) -> int:
        """The job's id."""
        return self._job.id

    @property
    def task(self) -> str:
        """The task's name as stored."""
        return self._job.task

    @property
    def attempt(self) -> int:
        """Which run this is, from 1; with ``id`` it names this attempt for ever."""
        return self._job.attempt

    @property
    def attempts_used(self) -> int:
        """How many attempts are used up, this one counted: runs that were snoozed or given back are not."""
        return self._job.attempt - self._job.snoozes

    @property
    def attempts_left(self) -> int:
        """How many attempts remain after this one."""
        return max(0, self._job.max_attempts - self.attempts_used)

    @property
    def scheduled_at(self) -> datetime:
        """When this attempt was due, UTC."""
        return from_us(self._job.scheduled_at)

    @property
    def created_at(self) -> datetime:
        """When the job was stored first, UTC."""
        return from_us(self._job.created_at)

    @property
    def key(self) -> str | None:
        """The job's key."""
        return self._job.key

    @property
    def group(self) -> str | None:
        """The job's group."""
        return self._job.group

    @property
    def origin(self) -> str | None:
        """Who made the job: ``cron:NAME``, ``source:NAME``, or None for a call of ``schedule``."""
        job = self._job
        # Of one that was put back since, who made it stands beside: the schedule or source decides no more over it.
        return msgspec.json.decode(job.origin_ref)[0] if job.origin is None and job.origin_ref else job.origin

    @property
    def metadata(self) -> dict[str, Any]:
        """What was given as ``metadata`` when the job was scheduled."""
        return without_trace(msgspec.json.decode(self._job.metadata)) or {} if self._job.metadata else {}

    def resource(self, kind: type[T]) -> T:
        """Return the resource of this type that a function under ``@app.provide`` made. Raises ConfigError."""
        try:
            found: T = self._resources[kind]
        except KeyError:
            known = ", ".join(sorted(k.__name__ for k in self._resources)) or "none"
            raise ConfigError(
                f"No resource of type {kind.__name__} is provided (known: {known}). Declare one with @app.provide on "
                "an async generator whose return type is AsyncIterator of that type."
            ) from None
        return found

    async def progress(self, fraction: float, note: str = "") -> None:
        """Store how far the job is (0 to 1, with a note). Raises LeaseLost where the job was taken back."""
        if not await self._report(self._job, {"fraction": fraction, "note": note}):
            self.lease_lost = True
            raise LeaseLost(f"Job {self.id} was taken back from this worker during attempt {self.attempt}.")

    def progress_sync(self, fraction: float, note: str = "") -> None:
        """``progress`` for a handler that runs in a thread."""
        asyncio.run_coroutine_threadsafe(self.progress(fraction, note), self._loop).result()

    async def complete(self, connection: Any, result: Any = None) -> None:
        """Complete the job inside the transaction that ``connection`` is in, so that it commits with your writes.

        Once that transaction has committed, the job is completed, whatever the handler does afterwards, and never runs
        again; rolled back, the attempt has failed unless the handler raises an error of its own. Takes the same
        connections as ``schedule(connection=...)``; ``result`` is what ``result()`` returns. Call it last, then commit,
        and return. Raises LeaseLost where the job was taken back from this worker: roll back. Raises InvalidJob for a
        connection that can't take part.

        Called again in the same attempt, as by a loop that repeats a transaction after a serialization failure, it
        replaces what was recorded first: the last ``result`` counts.
        """
        recorded = self._complete(connection, result, False)
        if not await recorded:
            self._lost()

    def complete_sync(self, connection: Any, result: Any = None) -> None:
        """``complete`` for a handler that runs in a thread, on its synchronous connection."""
        if not self._complete(connection, result, True):
            self._lost()

    def _lost(self) -> None:
        self.lease_lost = True
        raise LeaseLost(
            f"Job {self.id} was taken back from this worker during attempt {self.attempt}: roll back what it wrote."
        )


def current_job() -> JobContext:
    """Return the context of the job that runs here. Raises LookupError outside a handler."""
    try:
        return _current.get()
    except LookupError:
        raise LookupError("No job runs here: current_job() works inside a task's function only.") from None


def enter(context: JobContext) -> None:
    """Make ``context`` the current one in this task or thread."""
    _current.set(context)
