"""When a recurring schedule fires: ``Cron`` and ``Every``, what was missed, and jitter. Pure: no clock, no I/O.

Every time here is an int of **microseconds since the epoch, UTC**; a time zone only decides what the wall clock shows.

How a clock change is met:

- A cron that fires in **every hour** (``*/10 * * * * *``, ``*/15 * * * *``, ``0 * * * *``) follows elapsed time and
  stays even: the hour that autumn repeats fires again, the hour that spring leaves out has nothing to fire.
- Any other cron means **times of the day**. A time that spring leaves out fires once, at the moment after the gap; a
  time that autumn repeats fires once, the first time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim

from ._cron_fields import InvalidCron, Spec, parse
from ._cron_walls import DAY, Walls, walls_of

__all__ = ["Cron", "Every", "InvalidCron", "MissedPolicy", "Schedule", "jitter_us", "missed", "parse_schedule"]

MissedPolicy = Literal["skip", "once", "all"]

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - what a wall clock shows has no zone
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in a time zone.

    5 fields (minute hour day month weekday) or 6 with the second first; names (``JAN``, ``MON``), lists, steps, ranges
    that wrap (``22-2``, ``FRI-MON``), ``L``, ``LW``, ``15W`` (nearest weekday, see below), ``5L`` (last Friday),
    ``5#2`` (second Friday), ``@daily`` and kin; 0 and 7 are Sunday. Where both day fields are restricted either may
    match, as in every cron, unless one of them starts with ``*``: then both must.

    ``nW`` is the weekday nearest to day n of the same month: Friday for a Saturday, Monday for a Sunday, but Monday 3
    for a Saturday 1, and Friday for a Sunday that ends its month. A month without day n is left out.

    Raises ``InvalidCron`` for an expression or zone that cannot be used, and for one that never fires (30 February).
    """

    expression: str
    timezone: str = "UTC"
    spec: Spec = field(init=False, repr=False, compare=False)
    _walls: Walls = field(init=False, repr=False, compare=False)
    _zone: ZoneInfo | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        spec = parse(self.expression)
        walls = walls_of(spec)
        if walls is None:
            weekday = "" if spec.weekday.text == "*" else f" that is weekday {spec.weekday.text}"
            raise InvalidCron(
                f"cron {self.expression!r} never fires: there is no day {spec.day.text} of the month{weekday} "
                f"in month {spec.month.text}. Correct the day, the month or the weekday"
            )
        object.__setattr__(self, "spec", spec)
        object.__setattr__(self, "_walls", walls)
        object.__setattr__(self, "_zone", _zone(self.timezone))

    @property
    def normalised(self) -> str:
        """Always six fields, second first, numbers for names; the meaning without the spelling."""
        return self.spec.text

    @property
    def text(self) -> str:
        """What a store keeps, beside the time zone; ``parse_schedule`` reads it."""
        return self.expression

    def describe(self) -> str:
        """A short English sentence, such as ``At 09:00 on Monday through Friday, Europe/Berlin time``."""
        parts = self.spec.text.split()
        nearest = re.fullmatch("([0-9]+)W", parts[3])
        if nearest:
            parts[3] = "L"
        elif "W" in parts[3].replace("LW", ""):
            return f"Cron {self.spec.text}, {self.timezone} time"
        sentence = CronSim(" ".join(parts), _EPOCH).explain()
        if nearest:
            sentence = sentence.replace("last day", f"weekday nearest to day {nearest[1]}")
        return f"{sentence}, {self.timezone} time"

    def finest_interval_seconds(self) -> int:
        """The smallest gap between two fires, in seconds of an ordinary day; clock changes are left aside."""
        return self._walls.smallest_gap()

    def upcoming(self, now_us: int, n: int) -> list[int]:
        """The next ``n`` fires strictly after ``now_us``."""
        return _upcoming(self.next_after, now_us, n)

    def next_after(self, now_us: int) -> int | None:
        """The first fire strictly after ``now_us``; None only where the calendar ends (the year 9999)."""
        at = now_us // _US
        try:
            if self._zone is None:
                return self._walls.after(at) * _US
            following = self._next_even if self._every_hour else self._next_time_of_day
            return following(at) * _US
        except OverflowError:
            return None

    def count(self, after_us: int, until_us: int) -> int:
        """How many fires there are in (after_us, until_us], without walking through them: a year takes milliseconds."""
        at, until = after_us // _US, until_us // _US
        if self._zone is None:
            return self._walls.count(at, until)
        total, offset = 0, self._offset(at)
        while at < until:
            probe = min(until, at + DAY)
            ahead = self._offset(probe)
            if ahead == offset:
                total += self._walls.count(max(at + offset, self._already_fired(at + 1)), probe + offset)
                at = probe
                continue
            change = self._change(at, probe)
            total += self._walls.count(max(at + offset, self._already_fired(at + 1)), change - 1 + offset)
            total += self._fires_of_gap(change, offset, ahead)
            at, offset = change - 1, ahead
        return total

    @property
    def _every_hour(self) -> bool:
        return len(self.spec.hour.numbers) == 24

    def _next_even(self, at: int) -> int:
        """For crons of every hour: match what the wall shows, second by elapsed second."""
        offset = self._offset(at)
        while True:
            fire = self._walls.after(at + offset) - offset
            # A day at a time at first: a fold just ahead may show the wall times of a match again.
            probe = min(fire, at + DAY)
            ahead = self._offset(probe)
            if ahead != offset:
                change = self._change(at, probe)
                if fire < change:
                    return fire
                at, offset = change - 1, ahead
            elif self._offset(fire) == offset:
                return fire
            else:
                at = max(probe, fire - DAY)
                offset = self._offset(at)

    def _next_time_of_day(self, at: int) -> int:
        """For crons of certain hours: each time of the day once, whatever the clock does."""
        wall = self._walls.after(max(at + self._offset(at), self._already_fired(at)))
        shown = (_EPOCH + timedelta(seconds=wall)).replace(tzinfo=self._zone)
        before, after = _offset_of(shown), _offset_of(shown.replace(fold=1))
        # PEP 495: in a gap, fold=0 reads with the offset from before it, which is the smaller one.
        return wall - before if before >= after else self._change(wall - after, wall - before)

    def _already_fired(self, at: int) -> int:
        """In the second pass of a repeated hour: the last wall second of its first pass. Else long ago."""
        if self._every_hour:
            return -(10**12)
        local = (_EPOCH_UTC + timedelta(seconds=at)).astimezone(self._zone)
        if not local.fold:
            return -(10**12)
        before = _offset_of(local.replace(fold=0))
        return self._change(at - (before - _offset_of(local)), at) + before - 1

    def _fires_of_gap(self, change: int, before: int, after: int) -> int:
        """1 where the gap's end fires for the times that it left out, and not for its own time."""
        if self._every_hour or after < before:
            return 0
        end = change + after - 1
        left_out, own = self._walls.count(change + before - 1, end), self._walls.count(end, end + 1)
        return int(left_out > 0 and not own)

    def _offset(self, at: int) -> int:
        return _offset_of((_EPOCH_UTC + timedelta(seconds=at)).astimezone(self._zone))

    def _change(self, low: int, high: int) -> int:
        """The first second in (low, high] with the offset of ``high``; there is one change between them."""
        offset = self._offset(high)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == offset:
                high = middle
            else:
                low = middle
        return high


@dataclass(frozen=True, slots=True)
class Every:
    """A fixed interval of ``seconds``, aligned on ``anchor_us``: every fire is the anchor plus a whole number of them.

    Raises ``InvalidCron`` for less than a hundredth of a second, or what is no number.
    """

    seconds: float
    anchor_us: int = 0

    def __post_init__(self) -> None:
        if not math.isfinite(self.seconds) or self.seconds < 0.01:
            raise InvalidCron(f"an interval of {self.seconds} seconds cannot be kept. Use at least 0.01 seconds")

    @property
    def text(self) -> str:
        """What a store keeps; ``parse_schedule`` reads it."""
        seconds = int(self.seconds) if self.seconds == int(self.seconds) else self.seconds
        return f"@every {seconds}s" + (f" from {self.anchor_us}" if self.anchor_us else "")

    def describe(self) -> str:
        """A short English sentence."""
        return "Every second" if self.seconds == 1 else f"Every {self.seconds:g} seconds"

    def finest_interval_seconds(self) -> float:
        """The gap between two fires, in seconds."""
        return self.seconds

    def upcoming(self, now_us: int, n: int) -> list[int]:
        """The next ``n`` fires strictly after ``now_us``."""
        return _upcoming(self.next_after, now_us, n)

    def next_after(self, now_us: int) -> int:
        """The first fire strictly after ``now_us``."""
        period = self._period_us
        return self.anchor_us + ((now_us - self.anchor_us) // period + 1) * period

    def count(self, after_us: int, until_us: int) -> int:
        """How many fires there are in (after_us, until_us]."""
        turns = (until_us - self.anchor_us) // self._period_us - (after_us - self.anchor_us) // self._period_us
        return max(0, turns)

    @property
    def _period_us(self) -> int:
        return round(self.seconds * _US)


Schedule = Cron | Every

_EVERY = re.compile(
    r"@every\s+(?P<number>[0-9.e+-]+)\s*(?P<unit>[smhd]?)(?:\s+from\s+(?P<anchor>-?[0-9]+))?", re.IGNORECASE
)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": DAY}


def parse_schedule(text: str, timezone: str = "UTC") -> Schedule:
    """Read what ``Cron.text`` or ``Every.text`` wrote, or a user: a cron expression, or ``@every 5m``.

    ``timezone`` is an IANA name and concerns crons only. Raises ``InvalidCron``.
    """
    if not text.lstrip().lower().startswith("@every"):
        return Cron(text, timezone)
    match = _EVERY.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        seconds = float(match["number"]) * _UNITS[match["unit"].lower()]
    except ValueError:
        raise InvalidCron(
            f"interval {text!r} is not understood. Write @every and a number with s, m, h or d: @every 5m"
        ) from None
    return Every(seconds, int(match["anchor"] or 0))


def missed(
    schedule: Schedule,
    nominal_us: int,
    now_us: int,
    policy: MissedPolicy,
    max_missed: int,
    grace_us: int = _US,
) -> tuple[list[int], int | None, int]:
    """What to fire now, given the stored next nominal time: (fires in order, following nominal time, how many dropped).

    A due time at most ``grace_us`` old is on time and always fires. Older ones are missed: ``skip`` drops them, ``all``
    fires the latest ``max_missed``, ``once`` fires the latest due time only, so none beside one that is on time. Where
    nothing is due the nominal time comes back as it is. The following time is None where the schedule ends. The cost
    depends on what is fired and the days that have passed, not on how much was missed.

    Raises ``ValueError`` for an unknown policy or a negative number.
    """
    if policy not in ("skip", "once", "all"):
        raise ValueError(f"missed={policy!r} is no policy. Use 'skip', 'once' or 'all'")
    if max_missed < 0 or grace_us < 0:
        raise ValueError(f"max_missed={max_missed} and grace_us={grace_us} must not be negative")
    if nominal_us > now_us:
        return [], nominal_us, 0
    last_late = now_us - grace_us - 1
    on_time = [] if nominal_us <= last_late else [nominal_us]
    following = schedule.next_after(max(nominal_us, last_late))
    while following is not None and following <= now_us:
        on_time.append(following)
        following = schedule.next_after(following)
    if nominal_us > last_late:
        return on_time, following, 0
    late = 1 + schedule.count(nominal_us, last_late)
    wanted = {"skip": 0, "once": 0 if on_time else 1, "all": max_missed}[policy]
    fires = _latest(schedule, nominal_us, last_late, min(wanted, late))
    return fires + on_time, following, late - len(fires)


def _latest(schedule: Schedule, nominal: int, until: int, wanted: int) -> list[int]:
    """The last ``wanted`` of the nominal time and the fires in (nominal, until]."""
    if not wanted:
        return []
    if schedule.count(nominal, until) < wanted:
        return [nominal, *_upcoming(schedule.next_after, nominal, wanted - 1)]
    span = _US
    while schedule.count(until - span, until) < wanted:
        span *= 2
    low, high = until - span, until
    # The latest moment that still has `wanted` fires after it.
    while high - low > 1:
        middle = (low + high) // 2
        if schedule.count(middle, until) < wanted:
            high = middle
        else:
            low = middle
    return _upcoming(schedule.next_after, low, wanted)


def jitter_us(name: str, nominal_us: int, jitter_seconds: float) -> int:
    """A delay in [0, jitter_seconds) as microseconds: the same for one schedule and nominal time in every process."""
    # Slow to load and wanted by few, so not at the top.
    from hashlib import blake2b

    digest = blake2b(f"{name}\0{nominal_us}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) * round(jitter_seconds * _US) >> 64


def _upcoming(next_after: Callable[[int], int | None], now_us: int, n: int) -> list[int]:
    fires: list[int] = []
    while len(fires) < n:
        following = next_after(fires[-1] if fires else now_us)
        if following is None:
            break
        fires.append(following)
    return fires


def _zone(name: str) -> ZoneInfo | None:
    """The zone; None for UTC, which needs no arithmetic."""
    if name == "UTC":
        return None
    try:
        return ZoneInfo(name)
    # Besides its own error, zoneinfo lets the file system's through: "Europe" is a folder.
    except (KeyError, ValueError, OSError):
        raise InvalidCron(f"time zone {name!r} is not known. {_zone_hint(name)}") from None


def _zone_hint(name: str) -> str:
    from difflib import get_close_matches

    known = available_timezones()
    if not known:
        return "This machine has no time zone data: install the package tzdata"
    by_lower = {zone.lower(): zone for zone in known} | {
        zone.rpartition("/")[2].lower(): zone for zone in sorted(known)
    }
    close = get_close_matches(name.lower(), by_lower, 1)
    return f"Did you mean {by_lower[close[0]]!r}?" if close else "Write an IANA name such as 'Europe/Berlin'"


def _offset_of(moment: datetime) -> int:
    offset = moment.utcoffset()
    assert offset is not None
    return offset // _SECOND
