"""What expressions mean, which are refused, and what was missed."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from oncue.cron import Cron, Every, InvalidCron, MissedPolicy, Schedule, jitter_us, missed, parse_schedule
from oncue.errors import ConfigError

SECOND = 1_000_000
DAY = 86_400 * SECOND


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * SECOND)


def shown(moments: list[int]) -> list[str]:
    return [datetime.fromtimestamp(moment // SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S") for moment in moments]


@pytest.mark.parametrize(
    ("expression", "normalised"),
    [
        ("* * * * *", "0 * * * * *"),
        ("*/10 * * * * *", "*/10 * * * * *"),
        ("*/1 */1 * * *", "0 * * * * *"),
        ("5/15 * * * *", "0 5,20,35,50 * * * *"),
        ("1-4,9,11-12 * * * *", "0 1-4,9,11-12 * * * *"),
        ("0 0 ? JAN,mar 1-5", "0 0 0 * 1,3 1-5"),
        ("0 22-2 * * *", "0 0 0-2,22-23 * * *"),
        ("0 22-2/2 * * *", "0 0 0,2,22 * * *"),
        ("50-10/10 * * * * *", "0,10,50 * * * * *"),
        ("0 0 * NOV-FEB FRI-MON", "0 0 0 * 1-2,11-12 0-1,5-6"),
        ("0 0 28-3 * *", "0 0 0 1-3,28-31 * *"),
        ("0 0 * * 7", "0 0 0 * * 0"),
        ("0 0 * * 5-7", "0 0 0 * * 0,5-6"),
        ("0 0 * * 7-2", "0 0 0 * * 0-2"),
        ("0 0 * * FRI-SUN", "0 0 0 * * 0,5-6"),
        ("0 0 * * 0-7", "0 0 0 * * 0-6"),
        ("0 0 1W,LW,L * *", "0 0 0 1W,LW,L * *"),
        ("0 0 * * friL,7#1", "0 0 0 * * 5L,0#1"),
        ("@yearly", "0 0 0 1 1 *"),
        ("@annually", "0 0 0 1 1 *"),
        ("@Monthly", "0 0 0 1 * *"),
        ("@weekly", "0 0 0 * * 0"),
        ("@daily", "0 0 0 * * *"),
        ("@midnight", "0 0 0 * * *"),
        (" @hourly ", "0 0 * * * *"),
    ],
)
def test_normalised(expression: str, normalised: str) -> None:
    cron = Cron(expression)
    assert cron.normalised == normalised
    assert Cron(normalised).normalised == normalised


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        # Leap days: 2100 is no leap year.
        ("0 0 29 2 *", "2096-03-01", ["2104-02-29 00:00:00", "2108-02-29 00:00:00"]),
        ("0 0 31 * *", "2026-01-31", ["2026-03-31 00:00:00", "2026-05-31 00:00:00"]),
        ("0 0 L * *", "2028-01-31", ["2028-02-29 00:00:00", "2028-03-31 00:00:00"]),
        # 31 January 2026 is a Saturday, 28 February too.
        ("0 0 LW * *", "2026-01-01", ["2026-01-30 00:00:00", "2026-02-27 00:00:00", "2026-03-31 00:00:00"]),
        # 15 February, March 2026 are Sundays, 15 August a Saturday.
        ("0 0 15W 2,3,8 *", "2026-01-01", ["2026-02-16 00:00:00", "2026-03-16 00:00:00", "2026-08-14 00:00:00"]),
        # 1 August 2026 is a Saturday: not July, so Monday 3. 1 November is a Sunday: Monday 2.
        ("0 0 1W 8,11 *", "2026-01-01", ["2026-08-03 00:00:00", "2026-11-02 00:00:00"]),
        # 31 May 2026 is the Sunday that ends its month: Friday 29. June has no 31st.
        ("0 0 31W 5,6,7 *", "2026-01-01", ["2026-05-29 00:00:00", "2026-07-31 00:00:00", "2027-05-31 00:00:00"]),
        ("0 0 1,15W * *", "2026-01-31", ["2026-02-01 00:00:00", "2026-02-16 00:00:00"]),
        ("0 9 * * MON#2", "2026-01-01", ["2026-01-12 09:00:00", "2026-02-09 09:00:00"]),
        ("0 9 * * 5#5", "2026-01-01", ["2026-01-30 09:00:00", "2026-05-29 09:00:00"]),
        ("0 9 * * 5L", "2026-01-01", ["2026-01-30 09:00:00", "2026-02-27 09:00:00"]),
        ("0 9 * * 7L", "2026-01-01", ["2026-01-25 09:00:00", "2026-02-22 09:00:00"]),
        # Both day fields: either one; with a star in front, both.
        ("0 0 13 * FRI", "2026-01-01", ["2026-01-02 00:00:00", "2026-01-09 00:00:00", "2026-01-13 00:00:00"]),
        ("0 0 */13 * FRI", "2026-01-01", ["2026-02-27 00:00:00", "2026-03-27 00:00:00", "2026-05-01 00:00:00"]),
        ("0 22-1 * * *", "2026-01-01", ["2026-01-01 01:00:00", "2026-01-01 22:00:00", "2026-01-01 23:00:00"]),
        ("0 0 * * FRI-MON", "2026-01-01", ["2026-01-02 00:00:00", "2026-01-03 00:00:00", "2026-01-04 00:00:00"]),
        ("15,45 30 6 1 NOV-FEB *", "2026-01-01", ["2026-01-01 06:30:15", "2026-01-01 06:30:45", "2026-02-01 06:30:15"]),
        ("0 0 * * 0", "2026-01-01", ["2026-01-04 00:00:00"]),
        ("0 0 * * 7", "2026-01-01", ["2026-01-04 00:00:00"]),
    ],
)
def test_fires(expression: str, start: str, expected: list[str]) -> None:
    assert shown(Cron(expression).upcoming(us(start), len(expected))) == expected


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("61 * * * *", ["minute '61'", "0-59"]),
        ("60 * * * * *", ["second '60'", "0-59"]),
        ("0 24 * * *", ["hour '24'", "0-23"]),
        ("0 0 0 * *", ["day of the month '0'", "1-31"]),
        ("0 0 32W * *", ["day of the month '32W'", "1-31"]),
        ("0 0 * FOO *", ["month 'FOO'", "JAN-DEC"]),
        ("0 0 * * 8", ["weekday '8'", "SUN-SAT"]),
        ("0 0 * * L", ["weekday 'L'", "5L"]),
        ("0 0 * * 5#6", ["weekday '5#6'", "#1 to #5"]),
        ("0 0 *,3 * *", ["'*,3'", "Write the days out"]),
        ("*/90 * * * *", ["'*/90'", "1-60"]),
        ("*/0 * * * *", ["'*/0'", "step"]),
        ("1,,2 * * * *", ["minute ''", "a list"]),
        ("-1 * * * *", ["minute '-1'"]),
        ("5W * * * *", ["minute '5W'", "not understood"]),
        ("* * * *", ["4 fields", "5 (minute"]),
        ("0 0 0 1 1 * 2027", ["7 fields", "no year"]),
        ("", ["0 fields"]),
        ("@reboot", ["@daily", "write the fields out"]),
        ("0 0 30 2 *", ["never fires", "day 30", "month 2"]),
        ("0 0 31W 4,6 *", ["never fires", "31W"]),
        ("0 0 30 2 */7", ["never fires"]),
        ("0 0 */16 * 5L", ["never fires", "weekday 5L"]),
    ],
)
def test_refused_with_field_value_and_remedy(expression: str, parts: list[str]) -> None:
    with pytest.raises(InvalidCron) as refused:
        Cron(expression)
    assert isinstance(refused.value, ValueError)
    assert isinstance(refused.value, ConfigError)
    for part in [repr(expression), *parts]:
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/Berlim", "'Europe/Berlin'"),
        ("new_york", "'America/New_York'"),
        ("Europe", "Did you mean"),
        ("../etc/passwd", "IANA"),
        ("", "IANA"),
    ],
)
def test_unknown_time_zone_names_a_close_one(zone: str, hint: str) -> None:
    with pytest.raises(InvalidCron) as refused:
        Cron("* * * * *", zone)
    assert repr(zone) in str(refused.value)
    assert hint in str(refused.value)


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [
        (Cron("* * * * * *"), 1),
        (Cron("*/10 * * * * *"), 10),
        (Cron("0,59 * * * * *"), 1),
        (Cron("* * * * *"), 60),
        (Cron("*/25 * * * *"), 600),
        (Cron("0 */5 * * *"), 4 * 3600),
        (Cron("0,45 9-17 * * *"), 900),
        (Cron("0 0,23 * * *"), 3600),
        (Cron("0 0 * * *"), 86_400),
        (Cron("59 23 * * MON,WED"), 2 * 86_400),
        (Cron("0 0 1 * *"), 28 * 86_400),
        (Cron("0 0 1 1 *"), 365 * 86_400),
        (Cron("0 0 29 2 *"), 1461 * 86_400),
        (Cron("0,30 0 29 2 *"), 1800),
        (Every(2.5), 2.5),
    ],
)
def test_finest_interval(schedule: Schedule, seconds: float) -> None:
    assert schedule.finest_interval_seconds() == seconds


def test_the_calendar_ends() -> None:
    last = us("9999-12-31 23:59:00")
    cron = Cron("0 0 * * *")
    assert cron.next_after(last) is None
    assert shown(cron.upcoming(last - DAY, 5)) == ["9999-12-31 00:00:00"]


def test_describe() -> None:
    assert (
        Cron("0 9 * * MON-FRI", "Europe/Berlin").describe() == "At 09:00 on Monday through Friday, Europe/Berlin time"
    )
    assert "weekday nearest to day 15 of every month" in Cron("0 9 15W * *").describe()
    assert "1W,15W" in Cron("0 9 1W,15W * *").describe()
    assert Every(300).describe() == "Every 300 seconds"


def test_every_is_aligned_on_its_anchor() -> None:
    every = Every(10, anchor_us=3 * SECOND)
    assert every.upcoming(0, 3) == [3 * SECOND, 13 * SECOND, 23 * SECOND]
    assert every.next_after(3 * SECOND) == 13 * SECOND
    assert every.next_after(-8 * SECOND) == -7 * SECOND
    assert every.count(3 * SECOND, 23 * SECOND) == 2
    assert every.count(23 * SECOND, 3 * SECOND) == 0


@pytest.mark.parametrize("seconds", [0, -1, 0.001, float("nan"), float("inf")])
def test_every_refuses_what_cannot_be_kept(seconds: float) -> None:
    with pytest.raises(InvalidCron, match=r"at least 0\.01"):
        Every(seconds)


@pytest.mark.parametrize(
    "schedule",
    [Cron("0 9 * * MON", "Europe/Berlin"), Cron("@daily"), Every(300), Every(0.1), Every(90, anchor_us=-1_234_567)],
)
def test_text_round_trip(schedule: Schedule) -> None:
    zone = schedule.timezone if isinstance(schedule, Cron) else "UTC"
    assert parse_schedule(schedule.text, zone) == schedule


def test_parse_schedule_reads_what_people_write() -> None:
    assert parse_schedule("@every 5m") == Every(300)
    assert parse_schedule(" @EVERY 1.5 h ") == Every(5400)
    for text in ("@every", "@every five minutes", "@every 1.2.3s", "@every 5w"):
        with pytest.raises(InvalidCron, match="@every 5m"):
            parse_schedule(text)
    with pytest.raises(InvalidCron, match="Did you mean"):
        parse_schedule("0 0 * * *", "Europe/Berlim")


NOON = us("2026-06-01 12:00:00")


@pytest.mark.parametrize(
    ("policy", "fires", "dropped"),
    [("skip", [], 10), ("once", ["11:59:30"], 9), ("all", ["11:59:10", "11:59:20", "11:59:30"], 7)],
)
def test_missed_policies(policy: MissedPolicy, fires: list[str], dropped: int) -> None:
    """Ten fires from 11:58:00 to 11:59:30 were missed; it is 11:59:35."""
    now = NOON - 25 * SECOND
    got, following, lost = missed(Cron("*/10 * * * * *"), NOON - 120 * SECOND, now, policy, 3)
    assert [text[-8:] for text in shown(got)] == fires
    assert (following, lost) == (NOON - 20 * SECOND, dropped)


@pytest.mark.parametrize(("policy", "extra"), [("skip", 0), ("once", 0), ("all", 3)])
def test_what_is_within_the_grace_always_fires(policy: MissedPolicy, extra: int) -> None:
    """The fire of this second is on time, whatever was missed before it, and counts as the one run of `once`."""
    nominal = NOON - 100 * SECOND
    got, following, dropped = missed(Cron("*/10 * * * * *"), nominal, NOON + SECOND, policy, 3)
    assert got[-1] == NOON
    assert len(got) == 1 + extra
    assert (following, dropped) == (NOON + 10 * SECOND, 10 - extra)


def test_grace_ends_exactly() -> None:
    cron = Cron("0 12 * * *")
    assert missed(cron, NOON, NOON + 5 * SECOND, "skip", 10, 5 * SECOND) == ([NOON], NOON + DAY, 0)
    assert missed(cron, NOON, NOON + 5 * SECOND + 1, "skip", 10, 5 * SECOND) == ([], NOON + DAY, 1)


def test_nothing_is_due_yet_or_after_the_clock_was_set_back() -> None:
    assert missed(Cron("0 12 * * *"), NOON, NOON - 1, "all", 10) == ([], NOON, 0)


def test_a_nominal_time_counts_even_where_the_schedule_changed_since() -> None:
    odd = NOON - DAY + 7 * SECOND
    assert missed(Cron("0 12 * * *"), odd, NOON - SECOND, "all", 10) == ([odd], NOON, 0)
    assert missed(Cron("0 12 * * *"), odd, NOON, "all", 10) == ([odd, NOON], NOON + DAY, 0)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_a_year_of_missed_seconds_is_not_walked_through(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    real = Cron.next_after

    def counted(self: Cron, now_us: int) -> int | None:
        nonlocal asked
        asked += 1
        return real(self, now_us)

    monkeypatch.setattr(Cron, "next_after", counted)
    nominal = NOON - 365 * DAY
    fires, following, dropped = missed(Cron("* * * * * *", zone), nominal, NOON + 1, "all", 10)
    assert fires == [NOON - second * SECOND for second in range(10, -1, -1)]
    assert following == NOON + SECOND
    assert dropped == 365 * 86_400 + 1 - 11
    assert asked < 20


def test_missed_by_an_interval() -> None:
    fires, following, dropped = missed(Every(0.01), NOON - 365 * DAY, NOON + 1, "all", 2, 0)
    assert fires == [NOON - 10_000, NOON]
    assert (following, dropped) == (NOON + 10_000, 365 * 86_400 * 100 - 1)


def test_missed_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="'skip', 'once' or 'all'"):
        missed(Every(1), 0, 0, "maybe", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        missed(Every(1), 0, 0, "all", -1)


def test_jitter_is_the_same_everywhere_and_within_its_bound() -> None:
    drawn = [jitter_us("report", nominal * SECOND, 2.5) for nominal in range(500)]
    assert all(0 <= each < 2_500_000 for each in drawn)
    # Spread, not bunched: every fifth of the range is used.
    assert {each // 500_000 for each in drawn} == {0, 1, 2, 3, 4}
    assert jitter_us("report", 7, 2.5) != jitter_us("other", 7, 2.5)
    assert jitter_us("report", 7, 0) == 0
    code = "from oncue.cron import jitter_us; print(jitter_us('report', 1000000, 2.5))"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(elsewhere.stdout) == drawn[1]
