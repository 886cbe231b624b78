"""The arithmetic of rates, retries and times, apart from any store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncue import Exponential, Limit
from oncue.clock import SECOND, from_us, seconds_to_us, to_us
from oncue.limits import Bucket, Policy, Rules

NOW = 1_800_000_000 * SECOND


@given(
    st.floats(0.1, 1000),
    st.integers(1, 20),
    st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=60),
)
def test_no_window_ever_has_more_starts_than_burst_and_rate_allow(rate: float, burst: int, gaps: list[int]) -> None:
    limit, bucket, now, starts = Limit(rate, burst=burst), Bucket(), NOW, []
    for gap in gaps:
        now += gap
        at = bucket.slot(limit, now, has_slot=False)
        assert at >= now
        bucket.spend(limit, at)
        starts.append(at)
        now = max(now, at)
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            span = starts[last] - starts[first]
            assert last - first + 1 <= burst + span // limit.interval_us, "more than GCRA lets through"


@given(st.floats(0.1, 1000), st.integers(1, 20))
def test_a_rate_is_used_up_in_full(rate: float, burst: int) -> None:
    limit, bucket, now = Limit(rate, burst=burst), Bucket(), NOW
    for n in range(50):
        now = bucket.slot(limit, now, has_slot=False)
        assert now == NOW + max(0, n - burst + 1) * limit.interval_us
        bucket.spend(limit, now)


def test_a_policy_names_all_that_binds_a_job() -> None:
    policy = Policy({"t": Rules(Limit(1), Limit(2), 3)}, {"q": Rules(concurrency=9), "r": Rules()})
    assert policy.rates("t", "q", "g") == [("task:t", Limit(1)), ("task:t:group:g", Limit(2))]
    assert policy.rates("t", "q", None) == [("task:t", Limit(1))]
    assert policy.caps("t", "q") == [("cap:task:t", 3), ("cap:queue:q", 9)]
    assert policy.rates("u", "r", "g") == []
    assert policy.caps("u", "r") == []


@given(st.integers(1, 10_000))
def test_exponential_delays_stay_below_their_ceiling(failures: int) -> None:
    policy = Exponential(base=0.5, factor=3, maximum=60)
    assert 0 <= policy.seconds(failures) <= min(60, 0.5 * 3 ** min(failures - 1, 64))


@pytest.mark.parametrize(
    ("delay", "us"), [(0, 0), (2, 2_000_000), (0.1, 100_000), (1e-9, 1), (timedelta(days=1), 86_400_000_000)]
)
def test_a_delay_is_rounded_up_so_that_nothing_gets_early(delay: float | timedelta, us: int) -> None:
    assert seconds_to_us(delay) == us


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_times_keep_their_microseconds_in_every_zone(moment: datetime) -> None:
    assert from_us(to_us(moment)) == moment
    assert to_us(moment.astimezone(timezone(timedelta(hours=-9, minutes=-30)))) == to_us(moment)
