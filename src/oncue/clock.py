"""Time as OnCue keeps it: whole microseconds since the epoch, UTC; aware datetimes and seconds at the edges."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from oncue.errors import InvalidTime, NaiveDatetime

SECOND = 1_000_000
_FAR = 253_402_300_799 * SECOND
FIRST = datetime(1970, 1, 1, tzinfo=UTC)
LAST = FIRST + timedelta(microseconds=_FAR)
"""Between these a job can be due."""


class Clock(Protocol):
    """Where "now" comes from. Tests move it; production reads the machine's clock."""

    def now(self) -> int:
        """Return the time in microseconds since the epoch, UTC."""
        ...

    def watch(self, moved: Callable[[], None]) -> Callable[[], None]:
        """Have ``moved`` called whenever the clock is moved by hand; the returned function ends that."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> int:
        """Return the machine's time in microseconds since the epoch, UTC."""
        return time.time_ns() // 1000

    def watch(self, moved: Callable[[], None]) -> Callable[[], None]:
        """Nobody moves this clock by hand, so ``moved`` is never called."""
        return lambda: None


def to_us(moment: datetime) -> int:
    """Convert an aware datetime to microseconds since the epoch.

    Raises NaiveDatetime for one without a time zone, InvalidTime for one before 1970 or after 9999.
    """
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise NaiveDatetime(
            f"{moment!r} has no time zone, so its instant is unknown. Give an aware datetime, for example "
            "datetime.now(UTC) + timedelta(hours=2) or datetime(..., tzinfo=ZoneInfo('Europe/Berlin'))."
        )
    return in_range((moment - FIRST) // timedelta(microseconds=1), moment)


def from_us(us: int) -> datetime:
    """Convert microseconds since the epoch to an aware datetime in UTC."""
    return FIRST + timedelta(microseconds=us)


def iso(us: int) -> str:
    """Return a time as every face shows it: RFC 3339, UTC, with microseconds, ``2026-11-30T17:20:01.123456Z``."""
    return f"{from_us(us):%Y-%m-%dT%H:%M:%S.%f}Z"


def seconds_to_us(delay: float | timedelta) -> int:
    """Convert a delay (seconds, or a timedelta) to microseconds, rounded up so that nothing gets earlier.

    Raises InvalidTime for a delay that is negative, not a number, or beyond the year 9999.
    """
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise InvalidTime(f"A delay is a number of seconds or a timedelta, not {delay!r}.")
    if not 0 <= seconds <= _FAR / SECOND:
        raise InvalidTime(f"A delay is at least 0 seconds and ends before the year 9999; {delay!r} is not.")
    return -int(-seconds * SECOND // 1)


def in_range(us: int, given: object) -> int:
    """Return ``us`` where it lies between 1970 and 9999; raise InvalidTime naming ``given`` otherwise."""
    if not 0 <= us <= _FAR:
        raise InvalidTime(f"A due time lies between the years 1970 and 9999; {given!r} does not.")
    return us
