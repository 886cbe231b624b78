"""What can go wrong, each with what happened, which value, and what to do."""

from __future__ import annotations


class OnCueError(Exception):
    """The base of every error that OnCue raises on purpose."""


class ConfigError(OnCueError, ValueError):
    """A declaration (task, schedule, source, setting, URL) that can't work; raised when it is made."""


class NotOpen(OnCueError, RuntimeError):
    """The application is not open: nothing can be stored or read before ``async with app`` or ``app.open()``."""


class InvalidTime(OnCueError, ValueError):
    """A due time or delay that is not a usable instant."""


class NaiveDatetime(InvalidTime):
    """A datetime without a time zone was given where an instant is needed."""


class InvalidJob(OnCueError, ValueError):
    """An option of ``schedule`` (key, group, priority, ...) has an unusable value. Nothing was stored."""


class InvalidArguments(OnCueError, TypeError):
    """The arguments of a call do not fit the task's signature. Nothing was stored."""


class PayloadTooLarge(InvalidJob):
    """Arguments or metadata are larger than the stated limit. Nothing was stored."""


class UnknownTask(OnCueError, LookupError):
    """A task name that this application has not registered."""


class UnknownSchedule(OnCueError, LookupError):
    """No schedule of that name is stored."""


class UnknownJob(OnCueError, LookupError):
    """No job with that id, waiting, running or in the kept history."""


class UnknownPerson(OnCueError, LookupError):
    """Nothing is kept of that person."""


class StoreError(OnCueError):
    """The database could not do what was asked. What was not confirmed was not stored."""


class StoreBusy(StoreError):
    """Others held a lock in the database for longer than the busy timeout, or a statement took too long."""


class StoreUnavailable(StoreError):
    """The database server can't be reached, or the connection broke: what was being written may or may not be there."""


class StoreFull(StoreError):
    """The disk that holds the database is full."""


class StoreReadOnly(StoreError):
    """The database file or its folder can't be written."""


class StoreCorrupt(StoreError):
    """The file is not a database, or is damaged."""


class SchemaTooNew(StoreError):
    """The database was written by a newer OnCue than this one."""


class SchemaTooOld(StoreError):
    """The database has no OnCue tables yet, or those of an older version; ``oncue migrate`` mends that."""


class NoDatabase(StoreError):
    """There is no database at that address, and what was asked only reads, so none was made."""


class LeaseLost(OnCueError):
    """The job was taken back from this worker (its lease ended); what this attempt does no longer counts."""


class JobFailed(OnCueError):
    """``result()`` of a job that was discarded; the text holds the reason and the last error."""


class JobCancelled(OnCueError):
    """``result()`` of a job that was cancelled or skipped; the text holds the reason."""


class ResultNotKept(OnCueError):
    """``result()`` of a job that completed, but whose result was not stored or has another type; the text says why."""


class ResultTimeout(OnCueError, TimeoutError):
    """``result(timeout=...)`` ran out before the job ended. The job itself goes on."""


class NodeError(OnCueError):
    """A job that was handed to a Node worker failed there. ``stack``: the error's stack in Node, where it is known."""

    def __init__(self, message: str, stack: str | None = None) -> None:
        super().__init__(message)
        self.stack = stack
