"""From a call and its options to the job to store: every option is checked here, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

import msgspec

from oncue.clock import in_range, seconds_to_us, to_us
from oncue.errors import InvalidJob, InvalidTime, PayloadTooLarge
from oncue.job import Conflict, NewJob, WhenLate, WhileStarted
from oncue.task import Call, microseconds

Delay = float | timedelta
MAX_ARGS = 262_144
MAX_METADATA = 16_384
MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class Scheduled:
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


def new_job(wanted: Scheduled, now: int) -> NewJob:
    """Check a scheduled call and return the job to store.

    Raises InvalidTime, InvalidJob or PayloadTooLarge, each before anything is stored.
    """
    call = wanted.call
    if not isinstance(call, Call):
        raise InvalidJob(f"schedule takes a call, such as send.call('t-1'), not {call!r}.")
    options = call.task.options
    if len(call.args) > MAX_ARGS // 4 and len(call.args.encode()) > MAX_ARGS:
        raise PayloadTooLarge(
            f"The arguments of {call.task.name} take {len(call.args.encode()):,} bytes as JSON; at most {MAX_ARGS:,} "
            "are stored. Keep large data in your own table and pass its id."
        )
    job = NewJob(
        0,
        call.task.name,
        call.args,
        options.queue if wanted.queue is None else wanted.queue,
        options.priority if wanted.priority is None else wanted.priority,
        due_time(now, wanted.delay, wanted.at),
        options.retry.max_attempts if wanted.max_attempts is None else wanted.max_attempts,
        now,
        wanted.key,
        wanted.group,
    )
    if wanted.max_late is not None or options.max_late is not None:
        job.max_late = microseconds(options.max_late if wanted.max_late is None else wanted.max_late)
        job.when_late = options.when_late if wanted.when_late is None else wanted.when_late
    elif wanted.when_late is not None:
        raise InvalidJob(f"when_late={wanted.when_late!r} needs max_late: how many seconds late is too late?")
    job.on_conflict, job.while_started = wanted.on_conflict, wanted.while_started
    job.max_wait = microseconds(wanted.max_wait)
    job.metadata = _metadata(wanted.metadata)
    _check(job, wanted)
    return job


def _check(job: NewJob, wanted: Scheduled) -> None:
    _check_name("queue", job.queue)
    if job.key is not None:
        _check_name("key", job.key)
    if job.group is not None:
        _check_name("group", job.group)
    _check_whole("priority", job.priority, -100, 100)
    _check_whole("max_attempts", job.max_attempts, 1, 1_000_000)
    _check_one_of("on_conflict", job.on_conflict, Conflict)
    _check_one_of("while_started", job.while_started, WhileStarted)
    _check_one_of("when_late", job.when_late, WhenLate)
    if job.key is None and (job.on_conflict != "keep" or job.while_started != "queue"):
        raise InvalidJob("on_conflict and while_started speak of the job's key; give key= too.")
    if wanted.max_wait is not None and job.on_conflict != "debounce":
        raise InvalidJob(f"max_wait={wanted.max_wait!r} belongs to on_conflict='debounce'.")


def _check_name(name: str, value: object) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME or not value.isprintable():
        raise InvalidJob(f"{name} is a text of 1 to {MAX_NAME} printable characters, not {value!r}.")


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidJob(f"{name} is a whole number from {low:,} to {high:,}, not {value!r}.")


def _check_one_of(name: str, value: object, literal: Any) -> None:
    known = get_args(literal)
    if value not in known:
        raise InvalidJob(f"{name} is one of {', '.join(map(repr, known))}, not {value!r}.")


def _metadata(metadata: Mapping[str, Any] | None) -> str | None:
    if not metadata:
        return None
    try:
        text = msgspec.json.encode(dict(metadata)).decode()
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise InvalidJob(f"metadata can't be stored as JSON: {error}") from error
    if len(text.encode()) > MAX_METADATA:
        raise PayloadTooLarge(
            f"metadata takes {len(text.encode()):,} bytes as JSON; at most {MAX_METADATA:,} are stored."
        )
    return text
