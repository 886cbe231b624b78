"""Properties that hold for every expression, and an oracle that looks at every second."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from oncue.cron import Cron, Every, InvalidCron, Schedule, missed

SECOND = 1_000_000
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]
# Around changes of the clock, and anywhere from 1970 to 2100.
STARTS = st.one_of(
    st.sampled_from([1774746000, 1792890000, 1772953200, 1793512800, 1775314800]).flatmap(
        lambda change: st.integers(change - 7200, change + 7200)
    ),
    st.integers(0, 4_102_444_800),
)


def part(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        st.integers(1, high - low + 1).map("*/{}".format),
        st.lists(number, min_size=1, max_size=4).map(lambda numbers: ",".join(map(str, numbers))),
        st.tuples(number, number).map("{0[0]}-{0[1]}".format),
        st.tuples(number, number, st.integers(1, 5)).map("{0[0]}-{0[1]}/{0[2]}".format),
    )


DAY_PART = st.one_of(part(1, 28), st.sampled_from(["L", "LW", "15W", "1W,28W"]))
WEEKDAY_PART = st.one_of(part(0, 6), st.sampled_from(["5L", "MON#1", "0#2,7#3"]))
EXPRESSIONS = st.tuples(
    st.sampled_from(["", "0 ", "*/10 ", "0,59 ", "* "]), part(0, 59), part(0, 23), DAY_PART, part(1, 12), WEEKDAY_PART
).map("{0[0]}{0[1]} {0[2]} {0[3]} {0[4]} {0[5]}".format)


def cron_or_none(expression: str, zone: str) -> Cron | None:
    """None for a generated expression that can't ever fire, such as the last Friday among days 1 and 17."""
    try:
        return Cron(expression, zone)
    except InvalidCron as refused:
        if "never fires" not in str(refused):
            raise
        return None


CRONS = st.builds(cron_or_none, EXPRESSIONS, st.sampled_from(ZONES)).filter(lambda cron: cron is not None)
SCHEDULES = st.one_of(CRONS, st.builds(Every, st.floats(0.01, 1e6), st.integers(-(10**16), 10**16)))


@given(SCHEDULES, STARTS.map(lambda start: start * SECOND), st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_fires_increase_compose_and_are_counted(schedule: Schedule, start: int, n: int) -> None:
    fires = schedule.upcoming(start, n)
    at = start
    for fire in fires:
        assert fire > at
        assert schedule.next_after(at) == fire
        # Nothing lies between: asked from just before, the same answer.
        assert schedule.next_after(fire - 1) == fire
        at = fire
    assert schedule.count(start, at) == len(fires)
    assert schedule.count(start, at - 1) == len(fires) - 1


@given(CRONS)
@settings(max_examples=80, deadline=None)
def test_the_normalised_text_means_the_same(cron: Cron) -> None:
    start = 1_774_700_000 * SECOND
    assert Cron(cron.normalised, cron.timezone).upcoming(start, 5) == cron.upcoming(start, 5)


@given(CRONS, STARTS.map(lambda start: start * SECOND))
@settings(max_examples=80, deadline=None)
def test_no_two_fires_are_closer_than_the_finest_interval(cron: Cron, start: int) -> None:
    # In UTC, since a change of the clock moves times of the day together.
    plain = Cron(cron.expression)
    fires = plain.upcoming(start, 8)
    assert all(b - a >= plain.finest_interval_seconds() * SECOND for a, b in pairwise(fires))


@dataclass(frozen=True)
class Plain:
    """A cron as sets, for the oracle, and as text, for us: the oracle parses nothing."""

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]

    def text(self) -> str:
        return (
            " ".join(",".join(map(str, sorted(each))) for each in (self.seconds, self.minutes, self.hours)) + " * * *"
        )

    def shows(self, wall: datetime) -> bool:
        return wall.second in self.seconds and wall.minute in self.minutes and wall.hour in self.hours


def subset(high: int, most: int) -> st.SearchStrategy[frozenset[int]]:
    return st.one_of(
        st.frozensets(st.integers(0, high), min_size=1, max_size=most), st.just(frozenset(range(high + 1)))
    )


PLAIN = st.builds(Plain, subset(59, 3), subset(59, 4), st.one_of(subset(23, 12), subset(4, 3)))


def oracle(plain: Plain, zone: ZoneInfo, start: int, until: int) -> list[int]:
    """Every second in (start, until]: does the wall show it for the first time, or was it left out just before?"""
    fires = []
    every_hour = len(plain.hours) == 24
    before = datetime.fromtimestamp(start, zone)
    for second in range(start + 1, until + 1):
        now = datetime.fromtimestamp(second, zone)
        fire = plain.shows(now) and (every_hour or not now.fold)
        wall, previous = now.replace(tzinfo=None, fold=0), before.replace(tzinfo=None, fold=0)
        if not every_hour and wall - previous > timedelta(seconds=1):
            left_out = range(1, round((wall - previous).total_seconds()))
            fire = fire or any(plain.shows(previous + timedelta(seconds=each)) for each in left_out)
        if fire:
            fires.append(second * SECOND)
        before = now
    return fires


@given(PLAIN, st.sampled_from(ZONES), STARTS)
@settings(max_examples=60, deadline=None)
def test_matches_the_oracle_of_every_second(plain: Plain, zone: str, start: int) -> None:
    until = start + 3 * 3600
    cron = Cron(plain.text(), zone)
    expected = oracle(plain, ZoneInfo(zone), start, until)
    *within, beyond = cron.upcoming(start * SECOND, len(expected) + 1)
    assert within == expected
    assert beyond > until * SECOND
    assert cron.count(start * SECOND, until * SECOND) == len(expected)


def named_days(day: str, weekday: str, year: int) -> list[date]:
    """All dates of a year that one special day field names, found by looking at each month as a calendar sheet."""
    found: set[date] = set()
    for month in range(1, 13):
        dates = [date(year, month, each) for each in range(1, calendar.monthrange(year, month)[1] + 1)]
        working = [each for each in dates if each.weekday() < 5]
        if day == "L":
            found.add(dates[-1])
        elif day == "LW":
            found.add(working[-1])
        elif day.endswith("W") and int(day[:-1]) <= len(dates):
            wanted = dates[int(day[:-1]) - 1]
            # A weekday is never equally near on both sides: Saturday is one day from Friday, Sunday from Monday.
            found.add(min(working, key=lambda each: abs((each - wanted).days)))
        elif weekday != "*":
            number = (int(weekday[0]) + 6) % 7
            same = [each for each in dates if each.weekday() == number]
            index = -1 if weekday[1] == "L" else int(weekday[2]) - 1
            found.update(same[index:][:1])
    return sorted(found)


SPECIAL_DAYS = st.one_of(
    st.sampled_from([("L", "*"), ("LW", "*")]),
    st.integers(1, 31).map(lambda day: (f"{day}W", "*")),
    st.integers(0, 7).map(lambda day: ("*", f"{day}L")),
    st.tuples(st.integers(0, 7), st.integers(1, 5)).map(lambda pair: ("*", f"{pair[0]}#{pair[1]}")),
)


@given(SPECIAL_DAYS, st.integers(1971, 2099))
@settings(max_examples=100, deadline=None)
def test_special_days_match_the_calendar(days: tuple[str, str], year: int) -> None:
    expected = named_days(*days, year)
    start = round(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * SECOND
    fires = Cron(f"0 12 {days[0]} * {days[1]}").upcoming(start, len(expected) + 1)
    got = [datetime.fromtimestamp(fire // SECOND, UTC).date() for fire in fires]
    assert got[:-1] == expected
    assert got[-1].year > year


@given(
    SCHEDULES,
    STARTS.map(lambda start: start * SECOND),
    st.integers(0, 40),
    st.integers(0, 10**8),
    st.sampled_from(["skip", "once", "all"]),
    st.integers(0, 6),
    st.sampled_from([0, SECOND, 60 * SECOND]),
)
@settings(max_examples=150, deadline=None)
def test_missed_matches_walking_through(
    schedule: Schedule, start: int, due: int, later: int, policy: str, most: int, grace: int
) -> None:
    nominal, *rest = schedule.upcoming(start, due + 1)
    now = (rest or [nominal])[-1] + later % round(schedule.finest_interval_seconds() * SECOND)
    walked, at = [nominal], nominal
    while (following := schedule.next_after(at)) is not None and following <= now:
        walked.append(at := following)
    late = [each for each in walked if each < now - grace]
    on_time = walked[len(late) :]
    kept = {"skip": [], "once": [] if on_time else late[-1:], "all": late[max(0, len(late) - most) :]}[policy]
    got = missed(schedule, nominal, now, policy, most, grace)  # type: ignore[arg-type]
    assert got == (kept + on_time, following, len(late) - len(kept))
