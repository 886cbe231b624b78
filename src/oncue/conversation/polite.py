"""When a reminder may go: quiet hours where the person is, and the hours in which free-form messages may be sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from oncue.clock import SECOND, from_us, to_us
from oncue.errors import ConfigError

BEFORE_SHUT = 600 * SECOND
"""The last free-form reminder goes out so long (microseconds) before the window shuts."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Hours in which no reminder is sent, by the wall clock of the person: from ``start`` until ``end`` ("HH:MM").

    ``Quiet("21:00", "08:00")`` goes over midnight. Where the clocks are put forward over one of these times, the first
    moment after the gap stands for it; where they are put back over it, the hours are the longer ones: they begin when
    ``start`` is shown first, and end when ``end`` is shown last. Raises ConfigError for what is no such time, or no
    hours at all.
    """

    start: str
    end: str

    def __post_init__(self) -> None:
        if _clock_time(self.start) == _clock_time(self.end):
            raise ConfigError(f"{self!r}: quiet hours end at another time than they begin; None: there are none.")

    def span(self, at: int, zone: tzinfo) -> tuple[int, int] | None:
        """Return when the quiet hours that ``at`` lies in began and when they end; None where it lies in none.

        All are microseconds since the epoch; the end is no part of them.
        """
        start, end = _clock_time(self.start), _clock_time(self.end)
        today = from_us(at).astimezone(zone).date()
        found: tuple[int, int] | None = None
        # Those that began yesterday may still go on, also by a clock that was put back over midnight.
        for day in (today - timedelta(days=1), today, today + timedelta(days=1)):
            until = day if start < end else day + timedelta(days=1)
            begin, over = _instant(day, start, zone, last=False), _instant(until, end, zone, last=True)
            if begin <= at < over:
                found = (begin, over) if found is None else (min(found[0], begin), max(found[1], over))
        return found


def zone_of(name: str | None, default: str) -> tzinfo:
    """Return a person's time zone, or the channel's where theirs isn't known or no such zone exists."""
    return (_zone(name) if name else None) or _zone(default) or UTC


def checked_zone(name: str) -> str:
    """Return a time zone's name. Raises ConfigError for one that isn't known here."""
    if _zone(name) is None:
        raise ConfigError(f"{name!r} is no time zone that this machine knows, such as 'Europe/Berlin' or 'UTC'.")
    return name


class Nudge(NamedTuple):
    """A reminder as asked for: its time, and whether it can go as a template."""

    due: int
    template: bool


class Planned(NamedTuple):
    """When a reminder goes; None: not at all, for that reason. ``as_template``: the window will be shut by then."""

    due: int | None
    reason: str = ""
    as_template: bool = False


def plan(nudges: Sequence[Nudge], now: int, shuts: int | None, quiet: Quiet | None, zone: tzinfo) -> list[Planned]:
    """Plan the reminders of one question, in their order; ``shuts``: when the window does (None: never).

    The first that can only go free-form, and would come when the window is shut, goes ten minutes before that; those
    after it are left out. What falls into quiet hours waits for their end; where the window is shut by then, it goes
    before they begin, else as a template, else not at all.
    """
    answer: list[Planned] = []
    moved = False
    last = now
    for nudge in nudges:
        due = nudge.due
        if shuts is not None and due > shuts - BEFORE_SHUT and not nudge.template:
            if moved:
                answer.append(Planned(None, "the window is shut by then, and it has no template"))
                continue
            moved, due = True, shuts - BEFORE_SHUT
        planned = _outside_quiet(due, nudge.template, shuts, quiet, zone)
        if planned.due is not None and planned.due <= last and planned.due != nudge.due:
            # Moved onto the one before it, or into the past.
            later = planned.due > nudge.due
            planned = Planned(None, "another one goes out at that time" if later else "no time is left before then")
        if planned.due is not None:
            last = max(last, planned.due)
        answer.append(planned)
    return answer


def _outside_quiet(due: int, template: bool, shuts: int | None, quiet: Quiet | None, zone: tzinfo) -> Planned:
    span = None if quiet is None else quiet.span(due, zone)
    if span is None:
        return Planned(due, as_template=shuts is not None and due >= shuts)
    began, over = span
    if shuts is None or over < shuts:
        return Planned(over)
    if due < shuts and not template:
        return Planned(began - SECOND)
    if template:
        return Planned(over, as_template=True)
    return Planned(None, "quiet hours last until the window is shut, and it has no template")


def _instant(day: date, wall: time, zone: tzinfo, *, last: bool) -> int:
    """Return when the clock there shows this: first or last, where it does so twice; where never, the gap's end."""
    shown = datetime.combine(day, wall, zone)
    first, second = to_us(shown), to_us(shown.replace(fold=1))
    if first <= second:
        return second if last else first
    # A gap: fold=1 reads the time by the offset after it, and so names an instant before it.
    return _change_between(second, first, zone)


def _change_between(low: int, high: int, zone: tzinfo) -> int:
    """Return the first instant after ``low`` at which another offset holds, which does at ``high``."""
    before = from_us(low).astimezone(zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if from_us(middle).astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high


def _clock_time(text: str) -> time:
    try:
        shown = datetime.strptime(text, "%H:%M")  # noqa: DTZ007 - a wall clock's time has no zone
    except (TypeError, ValueError):
        raise ConfigError(f"Quiet hours begin and end at a time such as '21:00', not {text!r}.") from None
    return shown.time()


@cache
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        # Not known, no name at all, or a folder of the database.
        return None
