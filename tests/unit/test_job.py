"""The state machine: from a claimed attempt and its outcome to the one statement that records it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncue.job import (
    FINAL,
    Ack,
    Claimed,
    Completed,
    Failed,
    OnRetry,
    Outcome,
    Rescued,
    Skipped,
    Snoozed,
    decide,
    lateness_verdict,
)

S = 1_000_000
NOW = 1_800_000_000 * S


def claimed(**changes: Any) -> Claimed:
    base: dict[str, Any] = {
        "id": 1, "task": "t", "args": "{}", "queue": "q", "priority": 0, "scheduled_at": NOW - S, "attempt": 1,
        "snoozes": 0, "max_attempts": 3, "key": "k", "group": "g", "holds": 1, "blocked_by": None,
        "when_blocked": "wait", "cancel": 0, "max_late": None, "when_late": "run", "metadata": None, "origin": None,
        "origin_ref": None, "created_at": NOW - 9 * S, "eligible_at": NOW - S, "claimed_at": NOW - S,
    }  # fmt: skip
    return Claimed(**{**base, **changes})


def ack(job: Claimed, outcome: Outcome, on_retry: OnRetry = "hold", **more: Any) -> Ack:
    return decide(job, outcome, NOW, NOW - S // 2, on_retry, **more)


@pytest.mark.parametrize(
    ("outcome", "changes", "state", "said"),
    [
        (Completed("1"), {}, "completed", "completed"),
        (Failed("E", delay=5 * S), {}, "scheduled", "retried"),
        (Failed("E", delay=5 * S), {"attempt": 2}, "scheduled", "retried"),
        (Failed("E", delay=5 * S), {"attempt": 3}, "discarded", "discarded"),
        (Failed("E", delay=5 * S), {"attempt": 5, "snoozes": 3}, "scheduled", "retried"),
        (Failed("E", delay=None), {}, "discarded", "discarded"),
        (Snoozed(5 * S, "later"), {"attempt": 99}, "scheduled", "snoozed"),
        (Snoozed(0, "back", released=True), {"attempt": 99}, "scheduled", "released"),
        (Skipped("late"), {}, "cancelled", "skipped"),
        (Skipped("asked to", "cancelled"), {}, "cancelled", "cancelled"),
        (Rescued("died"), {}, "scheduled", "rescued"),
        (Rescued("died"), {"attempt": 3}, "discarded", "discarded"),
        (Rescued("died"), {"attempt": 3, "snoozes": 1}, "scheduled", "rescued"),
        (Rescued("died"), {"cancel": 1}, "cancelled", "cancelled"),
    ],
)
def test_each_outcome_leads_to_its_state(outcome: Outcome, changes: dict[str, Any], state: str, said: str) -> None:
    got = ack(claimed(**changes), outcome, retention=60 * S)
    assert (got.state, got.outcome, got.finished_at) == (state, said, NOW)
    assert got.expires_at == (None if state == "scheduled" else NOW + 60 * S)


@pytest.mark.parametrize(
    ("outcome", "due", "eligible"),
    [
        (Failed("E", delay=5 * S), NOW + 5 * S, NOW + 5 * S),
        (Snoozed(5 * S, "later"), NOW + 5 * S, NOW + 5 * S),
        (Snoozed(5 * S, "back", released=True), NOW - S, NOW + 5 * S),
        (Rescued("died"), NOW - S, NOW),
    ],
)
def test_only_a_job_that_asked_for_it_gets_another_due_time(outcome: Outcome, due: int, eligible: int) -> None:
    got = ack(claimed(), outcome)
    assert (got.scheduled_at, got.eligible_at) == (due, eligible)


def test_what_is_given_back_ahead_of_its_time_stays_due_then() -> None:
    got = ack(claimed(scheduled_at=NOW + 20_000), Snoozed(0, "back", released=True))
    assert (got.scheduled_at, got.eligible_at) == (NOW + 20_000, NOW + 20_000)


@pytest.mark.parametrize(
    ("outcome", "on_retry", "holds"),
    [
        (Failed("E", delay=S), "hold", 1),
        (Failed("E", delay=S), "yield", 0),
        (Rescued("died"), "hold", 1),
        (Snoozed(S, "later"), "hold", 0),
        (Snoozed(0, "back", released=True), "hold", 0),
    ],
)
def test_who_holds_the_lane_between_attempts(outcome: Outcome, on_retry: OnRetry, holds: int) -> None:
    got = ack(claimed(), outcome, on_retry)
    assert got.holds == holds
    assert ("group:g" in got.release) is not bool(holds)
    assert "key:k" not in got.release
    assert ack(claimed(group=None), outcome, on_retry).holds == 0


def test_a_final_job_frees_its_key_its_lane_and_its_caps() -> None:
    assert set(ack(claimed(), Completed(), caps=("cap:task:t",)).release) == {"key:k", "group:g", "cap:task:t"}
    assert ack(claimed(key=None, group=None), Completed()).release == ()


outcomes: Any = st.one_of(
    st.builds(Completed),
    st.builds(Failed, st.just("E"), delay=st.none() | st.integers(0, 10**12)),
    st.builds(Snoozed, st.integers(0, 10**12), st.just("x"), st.booleans()),
    st.builds(Skipped, st.just("x")),
    st.builds(Rescued, st.just("x")),
)


@given(outcomes, st.integers(1, 9), st.integers(0, 8), st.integers(1, 5), st.booleans(), st.integers(-(10**9), 10**9))
def test_laws_of_every_decision(
    outcome: Outcome, attempt: int, snoozes: int, most: int, cancel: bool, early: int
) -> None:
    job = claimed(attempt=attempt, snoozes=min(snoozes, attempt - 1), max_attempts=most, cancel=int(cancel))
    job.scheduled_at = NOW + early
    got = ack(job, outcome)
    assert (got.id, got.attempt) == (job.id, job.attempt), "the fence is the claim's own"
    if got.state == "scheduled":
        assert got.eligible_at >= max(NOW, got.scheduled_at), "never early"
    else:
        assert got.state in FINAL
        assert {"key:k", "group:g"} <= set(got.release), "nothing waits for a job that is over"
        assert got.state == "completed" or got.reason, "nothing ends silently"


@pytest.mark.parametrize("late", [-S, 0, 5 * S])
def test_a_job_within_its_deadline_runs(late: int) -> None:
    assert lateness_verdict(claimed(max_late=5 * S, when_late="skip"), NOW - S + late) is None


def test_a_job_beyond_its_deadline_ends_as_it_was_asked_to() -> None:
    now = NOW + 5 * S
    assert lateness_verdict(claimed(max_late=None, when_late="skip"), now) is None
    assert lateness_verdict(claimed(max_late=5 * S, when_late="run"), now) is None
    skipped = lateness_verdict(claimed(max_late=5 * S, when_late="skip"), now)
    assert isinstance(skipped, Skipped)
    assert skipped.reason == "skipped: 6.000 s late, more than max_late=5 s"
    failed = lateness_verdict(claimed(max_late=5 * S, when_late="fail"), now)
    assert isinstance(failed, Failed)
    assert failed.delay is None
