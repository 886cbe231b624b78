"""From a call and its options to the job to store: every option is checked here, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, get_args

import msgspec

from oncue.clock import in_range, seconds_to_us, to_us
from oncue.errors import InvalidJob, InvalidTime, PayloadTooLarge
from oncue.job import Conflict, NewJob, WhenLate, WhileStarted
from oncue.task import Call, checked_name, checked_whole, microseconds
from oncue.tracing import RESERVED, UNTRACED, api, carried, scheduling
from oncue.words import counted

Delay = float | timedelta
MAX_ARGS = 262_144
MAX_METADATA = 16_384


class Scheduled(msgspec.Struct, frozen=True, gc=False):
    """A call with when and how it is to run: what ``schedule_many`` takes beside plain calls.

    The fields are the options of ``OnCue.schedule``, which explains them.
    """

    call: Call[Any]
    delay: Delay | None = None
    at: datetime | None = None
    key: str | None = None
    on_conflict: Conflict = "keep"
    max_wait: Delay | None = None
    while_started: WhileStarted = "queue"
    group: str | None = None
    queue: str | None = None
    priority: int | None = None
    max_late: Delay | None = None
    when_late: WhenLate | None = None
    max_attempts: int | None = None
    metadata: Mapping[str, Any] | None = None


def due_time(now: int, delay: Delay | None, at: datetime | None) -> int:
    """Return the due time in microseconds for a delay from ``now`` or an aware datetime. Raises InvalidTime."""
    if at is not None:
        if delay is not None:
            raise InvalidTime(f"Give delay={delay!r} or at={at!r}, not both.")
        return to_us(at)
    return now if delay is None else in_range(now + seconds_to_us(delay), delay)


def traced_storing(calls: Sequence[Scheduled | Call[Any]]) -> AbstractContextManager[Any]:
    """Return a context in which to store the jobs of these calls: its span is where their traces begin."""
    if api() is None:
        return UNTRACED
    if len(calls) != 1:
        return scheduling(counted(len(calls), "job"))
    # What is no call at all is refused when its job is made.
    call: object = getattr(calls[0], "call", calls[0])
    return scheduling(call.task.name if isinstance(call, Call) else "nothing")


def new_job(wanted: Scheduled | Call[Any], now: int) -> NewJob:
    """Check a call and its options, and return the job to store.

    Raises InvalidTime, InvalidJob or PayloadTooLarge, each before anything is stored.
    """
    job = _plain(wanted, now) if isinstance(wanted, Call) else _wanted(wanted, now)
    job.metadata = carried(job.metadata, job.task)
    return job


def _wanted(wanted: Scheduled, now: int) -> NewJob:
    given: object = wanted
    if not isinstance(given, Scheduled) or not isinstance(given.call, Call):
        found = given.call if isinstance(given, Scheduled) else given
        raise InvalidJob(f"What is scheduled is a call, such as send.call('t-1'), not {found!r}.")
    job = _plain(wanted.call, now)
    job.scheduled_at = due_time(now, wanted.delay, wanted.at)
    if wanted.queue is not None:
        job.queue = checked_name("queue", wanted.queue)
    if wanted.priority is not None:
        job.priority = checked_whole("priority", wanted.priority, -100, 100)
    if wanted.max_attempts is not None:
        job.max_attempts = checked_whole("max_attempts", wanted.max_attempts, 1, 1_000_000)
    if wanted.group is not None:
        job.group = checked_name("group", wanted.group)
    if wanted.metadata:
        job.metadata = _metadata(wanted.metadata)
    _set_lateness(job, wanted)
    _set_key(job, wanted)
    return job


def _plain(call: Call[Any], now: int) -> NewJob:
    options = call.task.options
    if len(call.args) > MAX_ARGS // 4 and len(call.args.encode()) > MAX_ARGS:
        raise PayloadTooLarge(
            f"The arguments of {call.task.name} take {len(call.args.encode()):,} bytes as JSON; at most {MAX_ARGS:,} "
            "are stored. Keep large data in your own table and pass its id."
        )
    name, retry = call.task.name, options.retry
    job = NewJob(0, name, call.args, options.queue, options.priority, now, retry.max_attempts, now)
    if call.task.max_late_us is not None:
        job.max_late, job.when_late = call.task.max_late_us, options.when_late
    return job


def _set_lateness(job: NewJob, wanted: Scheduled) -> None:
    if wanted.max_late is not None:
        job.max_late = microseconds(wanted.max_late)
    if wanted.when_late is not None:
        if job.max_late is None:
            raise InvalidJob(f"when_late={wanted.when_late!r} needs max_late: how many seconds late is too late?")
        job.when_late = _checked_one_of("when_late", wanted.when_late, get_args(WhenLate))
    elif wanted.max_late is not None:
        job.when_late = wanted.call.task.options.when_late


def _set_key(job: NewJob, wanted: Scheduled) -> None:
    if wanted.key is None:
        if wanted.on_conflict != "keep" or wanted.while_started != "queue":
            raise InvalidJob("on_conflict and while_started speak of the job's key; give key= too.")
    else:
        job.key = checked_name("key", wanted.key)
        job.on_conflict = _checked_one_of("on_conflict", wanted.on_conflict, get_args(Conflict))
        job.while_started = _checked_one_of("while_started", wanted.while_started, get_args(WhileStarted))
    if wanted.max_wait is not None:
        if job.on_conflict != "debounce":
            raise InvalidJob(f"max_wait={wanted.max_wait!r} belongs to on_conflict='debounce'.")
        job.max_wait = microseconds(wanted.max_wait)


def _checked_one_of(name: str, value: Any, known: tuple[Any, ...]) -> Any:
    if value not in known:
        raise InvalidJob(f"{name} is one of {', '.join(map(repr, known))}, not {value!r}.")
    return value


def _metadata(metadata: Mapping[str, Any] | None) -> str | None:
    if not metadata:
        return None
    try:
        text = msgspec.json.encode(dict(metadata)).decode()
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidJob(f"metadata can't be stored as JSON: {error}") from error
    if RESERVED in metadata:
        raise InvalidJob(f"metadata has the key {RESERVED!r}, which OnCue keeps for itself: choose another one.")
    if len(text.encode()) > MAX_METADATA:
        raise PayloadTooLarge(
            f"metadata takes {len(text.encode()):,} bytes as JSON; at most {MAX_METADATA:,} are stored."
        )
    return text
