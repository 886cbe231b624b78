"""The count at the stand-in finds what it is there to find."""

from __future__ import annotations

from typing import Any

import pytest
from report import count, percentile


def question(number: int, at: int, due: int = 0, who: str = "ana") -> dict[str, Any]:
    body = f"Question {number} of 4: well?"
    return {"event": "accepted", "at_us": at, "to": who, "body": body, "echo": f"v1:{who}/question-{number}:1:{due}"}


def reminder(at: int, who: str = "ana") -> dict[str, Any]:
    return {"event": "accepted", "at_us": at, "to": who, "body": "Are you still there?", "echo": f"v1:{who}/r:1:0"}


def answer(at: int, who: str = "ana") -> dict[str, Any]:
    return {"event": "answered", "at_us": at, "sender": who, "body": "Yes"}


def test_a_clean_conversation_is_good() -> None:
    report = count([question(1, 1), answer(2), question(2, 3), reminder(4), answer(5)], expected=2)
    assert report.good
    assert (report.questions, report.answers, report.reminders, report.reminders_called_off) == (2, 2, 1, 1)


def test_a_missing_question_is_lost() -> None:
    report = count([question(1, 1), answer(2)], expected=2)
    assert report.lost == 1
    assert not report.good


def test_the_same_text_twice_is_doubled_for_one_person_only() -> None:
    report = count([question(1, 1), question(1, 2), question(1, 3, who="bilal"), reminder(4), reminder(5)], expected=2)
    assert report.doubled == 2
    assert not report.good


@pytest.mark.parametrize(
    "events",
    [
        [question(2, 1), question(1, 2)],
        [question(1, 1), question(2, 2)],
        [question(1, 1), answer(2), question(3, 3)],
    ],
    ids=["swapped", "before the answer", "one left out"],
)
def test_a_question_before_its_turn_is_out_of_order(events: list[dict[str, Any]]) -> None:
    report = count(events, expected=2)
    assert report.out_of_order
    assert not report.good


def test_a_question_before_its_due_time_is_too_early() -> None:
    report = count([question(1, at=999, due=1000)], expected=1)
    assert report.too_early == 1
    assert not report.good


def test_what_was_due_or_under_way_in_the_outage_is_kept_apart() -> None:
    events = [
        question(1, at=1_000, due=0, who="before"),
        question(1, at=11_000, due=9_000, who="under way"),
        question(1, at=25_000, due=15_000, who="due in it"),
        question(1, at=30_000, due=29_000, who="after"),
    ]
    report = count(events, expected=4, outage_us=(10_000, 20_000))
    assert report.lateness == [1.0, 1.0]
    assert report.lateness_outage == [2.0, 10.0]


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([7.0], 0.5) == 7.0
