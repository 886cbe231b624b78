"""The wall clock times that a cron expression matches: cronsim's search, with ``15W``, counting, the smallest gap."""

from __future__ import annotations

import copy
import math
import re
from bisect import bisect_left
from datetime import date, datetime, timedelta
from itertools import pairwise

from cronsim import CronSim, CronSimError

from ._cron_fields import Spec

DAY = 86_400
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - what a wall clock shows has no zone
_EPOCH_DAY = _EPOCH.toordinal()
_SECOND = timedelta(seconds=1)
# 1 January 2000: the start of a 400 year cycle of the calendar.
_SAMPLE_START = 946_684_800


class Walls(CronSim):
    """The wall clock times, in no time zone, that a ``Spec`` matches, as seconds since 1970.

    cronsim searches; it is never given a time zone, because it treats clock changes by the form of the text.
    ``nW`` is added: the weekday nearest to day n of the same month, so Friday for a Saturday and Monday for a Sunday,
    but Monday 3 for a Saturday 1 and Friday for a Sunday that ends its month. A month without day n has none.
    """

    def __init__(self, spec: Spec) -> None:
        nearest = [item for item in spec.day.special if re.fullmatch("[0-9]+W", item)]
        plain = [item for item in spec.day.text.split(",") if item not in nearest]
        parts = spec.text.split()
        parts[3] = ",".join(plain) or "1"
        super().__init__(" ".join(parts), _EPOCH)
        if not plain:
            self.days = set()
        self.nearest = frozenset(int(item[:-1]) for item in nearest)
        self.times = (spec.hour.numbers, spec.minute.numbers, spec.second.numbers)
        self.all_days = spec.day.text == spec.weekday.text == spec.month.text == "*"

    def match_dom(self, d: date) -> bool:
        if super().match_dom(d):
            return True
        return bool(self.nearest) and any(_nearest_weekday(d, day) == d.day for day in self.nearest)

    def after(self, wall: int) -> int:
        """The first match after ``wall``; ``OverflowError`` where the calendar ends or 50 years hold none."""
        # A copy, because cronsim searches by moving itself and schedules are shared between threads.
        search = copy.copy(self)
        search.dt = _EPOCH + timedelta(seconds=wall)
        try:
            search.tick()
            search.advance()
        except StopIteration:
            raise OverflowError from None
        return (search.dt - _EPOCH) // _SECOND

    def count(self, low: int, high: int) -> int:
        """How many matches there are in (low, high], without walking through them."""
        if high <= low:
            return 0
        (first, before), (last, until) = divmod(low + 1, DAY), divmod(high + 1, DAY)
        days = last - first if self.all_days else sum(map(self._has, range(first, last)))
        total = days * math.prod(map(len, self.times))
        return total - self._has(first) * self._below(before) + self._has(last) * self._below(until)

    def _has(self, day: int) -> bool:
        d = date.fromordinal(_EPOCH_DAY + day)
        return d.month in self.months and self.match_day(d)

    def _below(self, second_of_day: int) -> int:
        """Matches of one day before this second of it."""
        hours, minutes, seconds = self.times
        minute_of_day, second = divmod(second_of_day, 60)
        hour, minute = divmod(minute_of_day, 60)
        total = bisect_left(hours, hour) * len(minutes) * len(seconds)
        if hour in hours:
            total += bisect_left(minutes, minute) * len(seconds)
            if minute in minutes:
                total += bisect_left(seconds, second)
        return total

    def smallest_gap(self) -> int:
        """Seconds between the two matches that are closest together."""
        hours, minutes, seconds = self.times
        gaps = [b - a for a, b in pairwise(seconds)]
        gaps += [(b - a) * 60 - seconds[-1] + seconds[0] for a, b in pairwise(minutes)]
        in_hour = (minutes[-1] - minutes[0]) * 60 + seconds[-1] - seconds[0]
        gaps += [(b - a) * 3600 - in_hour for a, b in pairwise(hours)]
        in_day = (hours[-1] - hours[0]) * 3600 + in_hour
        first = _SAMPLE_START // DAY
        # Dates and weekdays repeat after 28 years, so these hold every distance that occurs before 2100.
        days = range(2) if self.all_days else [day for day in range(first, first + 28 * 366) if self._has(day)]
        if len(days) > 1:
            gaps.append(min(b - a for a, b in pairwise(days)) * DAY - in_day)
        elif not gaps:
            once = self.after(_SAMPLE_START - 1)
            gaps.append(self.after(once) - once)
        return min(gaps)


def _nearest_weekday(month: date, day: int) -> int:
    """The day of ``month`` that ``nW`` names; 0 where the month has no day n."""
    last = ((month.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)).day
    if day > last:
        return 0
    weekday = month.replace(day=day).weekday()
    if weekday == 5:
        return day - 1 if day > 1 else day + 2
    if weekday == 6:
        return day + 1 if day < last else day - 2
    return day


def walls_of(spec: Spec) -> Walls | None:
    """The walls of a spec; None where there is never a match, such as 30 February."""
    try:
        walls = Walls(spec)
        walls.after(_SAMPLE_START)
    # cronsim refuses the simplest cases itself; the others show when it searches.
    except (CronSimError, OverflowError):
        return None
    return walls
