"""Quiet hours where the person is, through changes of clocks; and the plan of a question's reminders."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncue.clock import SECOND, from_us, to_us
from oncue.conversation.polite import BEFORE_SHUT, Nudge, Planned, Quiet, checked_zone, plan, zone_of
from oncue.errors import ConfigError

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = Quiet("21:00", "08:00")
HOUR = 3600 * SECOND
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kathmandu", "UTC",
         "Pacific/Apia", "America/St_Johns", "Africa/Cairo"]  # fmt: skip
times = st.times().map(lambda t: f"{t.hour:02}:{t.minute:02}")
quiets = st.tuples(times, times).filter(lambda t: t[0] != t[1]).map(lambda t: Quiet(*t))
instants = st.integers(to_us(datetime(2005, 1, 1, tzinfo=UTC)), to_us(datetime(2035, 1, 1, tzinfo=UTC)))


def at(zone: ZoneInfo, *when: int, fold: int = 0) -> int:
    return to_us(datetime(*when, tzinfo=zone, fold=fold))  # type: ignore[misc, arg-type]


def shows(instant: int, zone: ZoneInfo) -> time:
    return from_us(instant).astimezone(zone).time()


def is_within(shown: time, quiet: Quiet) -> bool:
    start, end = time.fromisoformat(quiet.start), time.fromisoformat(quiet.end)
    return start <= shown < end if start < end else shown >= start or shown < end


@given(quiets, instants, st.sampled_from(ZONES))
def test_a_time_is_quiet_where_the_clock_there_says_so(quiet: Quiet, instant: int, name: str) -> None:
    zone = ZoneInfo(name)
    span = quiet.span(instant, zone)
    offsets = {from_us(instant + h * HOUR).astimezone(zone).utcoffset() for h in range(-50, 51)}
    if len(offsets) == 1:
        # No change of clocks is near.
        assert (span is not None) == is_within(shows(instant, zone), quiet)
    elif is_within(shows(instant, zone), quiet):
        # The hours only get longer where a clock is put back.
        assert span is not None
    if span is not None:
        begin, over = span
        assert begin <= instant < over
        assert quiet.span(begin, zone) is not None
        assert quiet.span(over - 1, zone) is not None
        assert quiet.span(over, zone) is None
        assert not is_within(shows(over, zone), quiet)


def test_a_night_is_an_hour_shorter_or_longer_where_the_clocks_change() -> None:
    spring = NIGHT.span(at(BERLIN, 2026, 3, 29, 1), BERLIN)
    autumn = NIGHT.span(at(BERLIN, 2026, 10, 25, 1), BERLIN)
    usual = NIGHT.span(at(BERLIN, 2026, 6, 1, 1), BERLIN)
    assert [span is not None and (span[1] - span[0]) / HOUR for span in (spring, autumn, usual)] == [10, 12, 11]


def test_a_time_in_a_gap_is_the_gaps_end() -> None:
    gap_end = at(BERLIN, 2026, 3, 29, 3)
    assert Quiet("01:00", "02:30").span(gap_end - 1, BERLIN) == (at(BERLIN, 2026, 3, 29, 1), gap_end)
    assert Quiet("02:30", "05:00").span(gap_end, BERLIN) == (gap_end, at(BERLIN, 2026, 3, 29, 5))
    # Both in the gap: nothing is left of them.
    assert Quiet("02:10", "02:50").span(gap_end, BERLIN) is None


def test_a_time_that_comes_twice_makes_the_hours_longer() -> None:
    first, second = at(BERLIN, 2026, 10, 25, 2, 30), at(BERLIN, 2026, 10, 25, 2, 30, fold=1)
    assert second - first == HOUR
    assert Quiet("01:00", "02:30").span(first, BERLIN) == (at(BERLIN, 2026, 10, 25, 1), second)
    assert Quiet("02:30", "05:00").span(first, BERLIN) == (first, at(BERLIN, 2026, 10, 25, 5))


@pytest.mark.parametrize("wrong", [("21:00", "21:00"), ("9", "8"), ("25:00", "08:00"), ("", "08:00"), (None, "08:00")])
def test_hours_that_are_none_are_refused(wrong: tuple[str, str]) -> None:
    with pytest.raises(ConfigError):
        Quiet(*wrong)


@pytest.mark.parametrize("wrong", ["Nowhere/Atall", "", "../etc/passwd", "/etc/passwd", "Europe", "\0"])
def test_an_unknown_zone_is_the_channels(wrong: str) -> None:
    assert zone_of(wrong, "Europe/Berlin") == BERLIN
    with pytest.raises(ConfigError):
        checked_zone(wrong)


def test_no_zone_is_the_channels_and_a_zone_is_the_persons() -> None:
    assert zone_of(None, "Europe/Berlin") == BERLIN
    assert zone_of("Asia/Kathmandu", "Europe/Berlin") == ZoneInfo("Asia/Kathmandu")


NOON = at(BERLIN, 2026, 6, 1, 12)


def test_the_last_free_form_reminder_goes_before_the_window_shuts_and_later_ones_need_a_template() -> None:
    shuts = NOON + 24 * HOUR
    wanted = [Nudge(NOON + h * HOUR, t) for h, t in [(2, False), (25, False), (26, False), (47, True)]]
    assert plan(wanted, NOON, shuts, None, BERLIN) == [
        Planned(NOON + 2 * HOUR),
        Planned(shuts - BEFORE_SHUT),
        Planned(None, "the window is shut by then, and it has no template"),
        Planned(NOON + 47 * HOUR, as_template=True),
    ]


def test_without_a_window_all_go_when_asked_for() -> None:
    wanted = [Nudge(NOON + h * HOUR, False) for h in (2, 25, 50)]
    assert plan(wanted, NOON, None, None, BERLIN) == [Planned(one.due) for one in wanted]


def test_a_reminder_in_the_night_goes_in_the_morning_and_a_second_one_not_beside_it() -> None:
    morning = at(BERLIN, 2026, 6, 2, 8)
    wanted = [Nudge(NOON + h * HOUR, False) for h in (10, 12)]
    assert plan(wanted, NOON, NOON + 24 * HOUR, NIGHT, BERLIN) == [
        Planned(morning), Planned(None, "another one goes out at that time"),
    ]  # fmt: skip


def test_where_the_window_shuts_in_the_night_it_goes_before_that() -> None:
    evening = at(BERLIN, 2026, 6, 1, 21)
    assert plan([Nudge(NOON + 12 * HOUR, False)], NOON, NOON + 14 * HOUR, NIGHT, BERLIN) == [Planned(evening - SECOND)]
    assert plan([Nudge(NOON + 12 * HOUR, True)], NOON, NOON + 14 * HOUR, NIGHT, BERLIN) == [
        Planned(at(BERLIN, 2026, 6, 2, 8), as_template=True)
    ]


def test_what_has_no_time_left_is_left_out() -> None:
    soon = NOON + 300 * SECOND
    assert plan([Nudge(NOON + HOUR, False)], NOON, soon, None, BERLIN) == [Planned(None, "no time is left before then")]


nudges = st.lists(st.tuples(st.integers(1, 72 * HOUR), st.booleans()), max_size=6)


@given(nudges, instants, st.integers(0, 24 * HOUR), st.one_of(st.none(), quiets), st.sampled_from(ZONES))
def test_no_plan_breaks_a_rule(
    wanted: list[tuple[int, bool]], now: int, left: int, quiet: Quiet | None, name: str
) -> None:
    zone, shuts = ZoneInfo(name), now + left
    asked = [Nudge(now + after, template) for after, template in sorted(wanted)]
    planned = plan(asked, now, shuts, quiet, zone)
    assert len(planned) == len(asked)
    for nudge, one in zip(asked, planned, strict=True):
        if one.due is None:
            assert one.reason
            continue
        assert one.due > now
        assert quiet is None or quiet.span(one.due, zone) is None
        assert one.as_template == (one.due >= shuts)
        assert nudge.template or one.due < shuts


def test_a_day_has_a_beginning() -> None:
    """The night that began the day before, seen from just after midnight."""
    midnight = at(BERLIN, 2026, 6, 2, 0)
    begun = at(BERLIN, 2026, 6, 1, 21)
    assert NIGHT.span(midnight, BERLIN) == (begun, begun + int(timedelta(hours=11) / timedelta(microseconds=1)))
