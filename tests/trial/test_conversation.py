"""A conversation from its first question to its last answer: real processes, real HTTP, and a real SIGKILL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from people import Person
from report import Report, count, read_ledger
from stage import Stage
from standin import sign

QUICK = {
    "STANDIN_FAST": "1",
    "TRIAL_PAUSE": "0.05 0.2",
    "TRIAL_REMINDER_AFTER": "1",
    "TRIAL_RECONCILE_FOR": "5",
}
ANA = Person("491570000001", "Ana", ignores=1)


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with Stage(tmp_path, **QUICK | getattr(request, "param", {})) as stage:
        yield stage


def report(stage: Stage, people: int) -> Report:
    return count(read_ledger(stage.ledger), expected=people * 4)


def bodies(stage: Stage) -> list[str]:
    return [event["body"] for event in read_ledger(stage.ledger) if event["event"] == "accepted"]


def mark_sending(stage: Stage, message_id: str) -> None:
    """Leave behind what a worker does that dies between its mark and WhatsApp's response."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    columns = "INSERT INTO messages (id, state, attempt, sending_since) VALUES (?, 'sending', 1, ?)"
    stage.write(columns, message_id, now)


def tell_status(stage: Stage, echo: str) -> None:
    item: dict[str, Any] = {"id": "wamid.1", "status": "sent", "biz_opaque_callback_data": echo}
    raw = json.dumps({"entry": [{"changes": [{"value": {"statuses": [item]}}]}]}).encode()
    headers = {"x-hub-signature-256": sign(raw, "local-secret")}
    httpx.post(f"{stage.web}/webhook", content=raw, headers=headers, trust_env=False).raise_for_status()


def assert_everything_arrived_once(stage: Stage, people: int) -> None:
    stage.until(lambda: report(stage, people).answers == people * 4, "the last answer", 60)
    stage.until(lambda: stage.ask("SELECT count(*) FROM oncue_job") == [(0,)], "the jobs to end", 30)
    found = report(stage, people)
    assert (found.lost, found.doubled, found.out_of_order, found.too_early) == (0, 0, 0, 0)
    assert found.questions == people * 4
    assert stage.ask("SELECT DISTINCT status FROM free_trials") == [("finished",)]


def test_conversations_survive_the_deaths_of_their_worker(stage: Stage) -> None:
    people = [Person(f"49157000000{n}", f"p{n}", pace=(0.01, 0.1), ignores=2 if n == 0 else None) for n in range(5)]
    stage.open(people)
    stage.start_worker()
    for person in people:
        stage.begin(person.name, person)
    for sent in (5, 10, 15):
        stage.until(
            lambda sent=sent: report(stage, 5).questions >= sent and stage.in_flight() > 0,  # type: ignore[misc]
            "messages under way",
            30,
        )
        stage.kill("worker")
        stage.start_worker()
    assert_everything_arrived_once(stage, 5)
    assert report(stage, 5).reminders >= 1


def test_conversations_survive_the_death_of_their_web_side(stage: Stage) -> None:
    people = [Person(f"49157000000{n}", f"p{n}", pace=(0.01, 0.1)) for n in range(3)]
    stage.open(people)
    stage.start_worker()
    for person in people:
        stage.begin(person.name, person)
    stage.until(lambda: report(stage, 3).questions >= 5, "some questions", 30)
    stage.kill("web")
    answers = report(stage, 3).answers
    stage.until(lambda: report(stage, 3).answers > answers, "an answer that nobody hears", 30)
    stage.start_web()
    assert_everything_arrived_once(stage, 3)


def test_a_trial_that_is_only_a_row_is_found_by_the_source(stage: Stage) -> None:
    stage.open([ANA])
    stage.start_worker()
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    stage.write(
        "INSERT INTO free_trials (id, wa_id, name, next_question_scheduled_for) VALUES ('t', ?, 'Ana', ?)",
        ANA.wa_id,
        now,
    )
    stage.until(lambda: report(stage, 1).questions == 1, "the first question", 30)


@pytest.mark.parametrize("stage", [{"TRIAL_RECONCILE_FOR": "0.5", "TRIAL_REMINDER_AFTER": "7200"}], indirect=True)
def test_a_question_in_doubt_without_evidence_is_sent_once_more(stage: Stage) -> None:
    stage.open([ANA])
    stage.begin("t", ANA)
    mark_sending(stage, "t/question-0")
    stage.start_worker()
    stage.until(lambda: len(bodies(stage)) == 1, "the question", 30)
    stage.until(lambda: stage.ask("SELECT key FROM oncue_job") == [("reminder-t",)], "the question's job to end")
    assert [event["echo"].split(":")[:3] for event in read_ledger(stage.ledger)] == [["v1", "t/question-0", "2"]]


@pytest.mark.parametrize("stage", [{"TRIAL_RECONCILE_FOR": "0.5", "TRIAL_REMINDER_AFTER": "7200"}], indirect=True)
def test_a_question_in_doubt_of_which_a_status_came_is_not_sent_again(stage: Stage) -> None:
    stage.open([ANA])
    stage.begin("t", ANA)
    mark_sending(stage, "t/question-0")
    tell_status(stage, "v1:t/question-0:1:0")
    stage.start_worker()
    stage.until(lambda: stage.ask("SELECT key FROM oncue_job") == [("reminder-t",)], "the question's job to end")
    assert bodies(stage) == []


def test_a_reminder_in_doubt_is_given_up_with_the_reason(stage: Stage) -> None:
    stage.open([ANA])
    stage.begin("t", ANA)
    mark_sending(stage, "t/reminder-0")
    stage.start_worker()
    given_up = "SELECT reason FROM oncue_finished WHERE state = 'discarded' AND key = 'reminder-t'"
    stage.until(lambda: bool(stage.ask(given_up)), "the reminder's job to end", 30)
    ((reason,),) = stage.ask(given_up)
    assert "may have gone out already" in reason
    assert [body[:10] for body in bodies(stage)] == ["Question 1"]


@pytest.mark.parametrize("stage", [{"STANDIN_TOKEN": "another-token"}], indirect=True)
def test_a_refused_token_keeps_the_question(stage: Stage) -> None:
    stage.open([ANA])
    stage.begin("t", ANA)
    stage.start_worker()
    stage.until(lambda: report(stage, 1).refused >= 1, "the refusal", 30)
    waiting = "SELECT key, state FROM oncue_job WHERE snoozes > 0"
    stage.until(lambda: stage.ask(waiting) == [("question-t", "scheduled")], "the job to be put back")
    assert stage.ask("SELECT count(*) FROM messages") == [(0,)]
