"""``oncue conversations``: what is looked up and put right when somebody asks why a person hears nothing."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from typing import Any

import pytest

from tests.cli.stage import ANA, STOPPED, TALK, Stage


@pytest.fixture
def talking(stage: Stage) -> Stage:
    """Ana's conversation, which waits to send its first question."""
    (stage.folder / "trial.py").write_text(TALK)
    names = stage.load()

    async def begin() -> None:
        async with names["app"] as app:
            await names["trial"].start(ANA, name="Ana")
            # The function runs; nothing is sent, since nobody does what is due from here on.
            await app.drain(limit=1)

    asyncio.run(begin())
    return stage


def chat(stage: Stage) -> Any:
    (found,) = stage.json("conversations", "list", "--state", state_of(stage))
    return found


def state_of(stage: Stage) -> str:
    return str(stage.json("conversations", "show", "1")["conversation"]["state"])


def test_conversations_are_listed_with_where_they_stand(talking: Stage) -> None:
    ((id, name, channel, person, state, step, *_),) = talking.lines("conversations", "list")
    assert (id, name, channel, person, state, step) == ("1", "trial", "whatsapp", "p1", "active", "name")
    assert talking.lines("conversations", "list", "--state", "parked") == []
    assert talking.lines("conversations", "list", "--conversation", "other") == []


def test_one_is_shown_with_its_steps_and_what_it_waits_for(talking: Stage) -> None:
    shown = talking.here("conversations", "show", "1").output
    assert "its message\tqueued" in shown
    assert "name\task\topen\twaits for an answer\t" in shown
    assert "why\tat name, its question, due " in shown
    assert [step["name"] for step in talking.json("conversations", "show", "1")["steps"]] == ["name"]
    missing = talking.here("conversations", "show", "7")
    assert missing.exit_code == 1
    assert "no conversation 7" in missing.output


def test_the_next_page_begins_below_a_number(talking: Stage) -> None:
    talking.lines("conversations", "restart", "trial:app", "1")
    assert [row[0] for row in talking.lines("conversations", "list", "--limit", "1")] == ["2"]
    assert [row[0] for row in talking.lines("conversations", "list", "--before", "2")] == ["1"]
    assert [row[0] for row in talking.lines("conversations", "list", "--state", "ended")] == ["1"]


def test_it_is_paused_resumed_restarted_and_stopped(talking: Stage) -> None:
    assert talking.lines("conversations", "pause", "trial:app", "1", "--reason", "typo") == [["1", "paused"]]
    assert chat(talking)["reason"] == "typo"
    again = talking.here("conversations", "pause", "trial:app", "1")
    assert again.exit_code == 1
    assert "is paused" in again.output
    assert talking.lines("conversations", "resume", "trial:app", "1") == [["1", "resumed"]]
    assert talking.lines("conversations", "restart", "trial:app", "1") == [["1", "restarted as 2"]]
    assert state_of(talking) == "stopped"
    assert talking.lines("conversations", "stop", "trial:app", "2") == [["2", "stopped"]]
    assert talking.lines("conversations", "list", "--state", "active") == []
    assert audit(talking) == [
        ("pause", "conversation:1"), ("resume", "conversation:1"), ("restart", "conversation:1"),
        ("stop", "conversation:2"),
    ]  # fmt: skip


def audit(stage: Stage) -> list[tuple[str, str]]:
    """What was done by this command line, the first thing first."""
    lines = stage.json("audit")[::-1]
    assert all(line["who"].startswith("cli:") for line in lines)
    return [(line["action"], line["target"]) for line in lines]


def test_a_human_takes_over_and_gives_back(talking: Stage) -> None:
    talking.lines("conversations", "takeover", "trial:app", f"+{ANA}")
    assert chat(talking)["reason"] == "a human has taken over"
    shut = talking.here("conversations", "say", "trial:app", ANA, "Jo here.")
    assert "they have never written" in shut.output
    execute(talking, f"UPDATE oncue_person SET heard_at = {time.time_ns() // 1000}")
    ((person, told),) = talking.lines("conversations", "say", "trial:app", ANA, "Jo here.")
    assert (person, told.partition(";")[0]) == ("p1", "it goes out")
    assert '"Jo here."' in talking.here("conversations", "timeline", ANA).output
    talking.lines("conversations", "release", "trial:app", "p1")
    assert chat(talking)["state"] == "active"
    kinds = [line[2] for line in talking.lines("conversations", "timeline", ANA)]
    assert [kind for kind in kinds if kind in ("takeover", "release")] == ["takeover", "release"]
    assert audit(talking) == [("takeover", "person:1"), ("say", "person:1"), ("release", "person:1")]


def test_the_timeline_can_leave_out_what_was_said(talking: Stage) -> None:
    assert "Who are you?" in talking.here("conversations", "timeline", "p1").output
    assert "Who are you?" not in talking.here("conversations", "timeline", "p1", "--redact").output


def test_what_was_answered_is_hidden_where_the_application_hides_texts(talking: Stage) -> None:
    execute(talking, """UPDATE oncue_chat_step SET state = 'done', value = '"Rumpel\\u001b[2J"' WHERE kind = 'ask'""")
    assert "Rumpel\\x1b[2J" in talking.here("conversations", "show", "1").output
    (talking.folder / "trial.py").write_text(TALK + 'app.redact("text")\n')
    for more in ([], ["--json"]):
        shown = talking.here("conversations", "show", "1", "--app", "trial:app", *more).output
        assert "Rumpel" not in shown
        assert "\u2022\u2022\u2022" in shown
        told = talking.here("conversations", "timeline", "p1", "--app", "trial:app", *more).output
        assert not [part for part in ("Who are you?", "Ana", ANA) if part in told]
        assert "(12 characters)" in told


def test_all_of_a_person_is_handed_over_and_erased(talking: Stage) -> None:
    assert talking.json("conversations", "timeline", ANA)
    told = talking.here("conversations", "export", ANA)
    assert '"name": "Ana"' in told.output
    asked = talking.here("conversations", "erase", ANA)
    assert asked.exit_code == 1, "nobody said yes"
    gone = talking.json("conversations", "erase", ANA, "--yes")
    assert (gone["person"], gone["chats"], gone["messages"]) == (1, 1, 1)
    missing = talking.here("conversations", "timeline", ANA)
    assert missing.exit_code == 1
    assert f"Nobody is known as '{ANA}'" in missing.output
    assert talking.lines("jobs", "list", "--state", "scheduled") == []
    assert audit(talking) == [("erase", "person:1")]


def execute(stage: Stage, sql: str) -> None:
    with closing(sqlite3.connect(stage.folder / "trial.db")) as conn, conn:
        conn.executescript(sql)


def test_a_channel_says_whether_it_sends_why_not_and_what_to_do(talking: Stage) -> None:
    execute(talking, STOPPED)
    shown = talking.here("conversations", "channels")
    rows = {line.split("\t")[0]: line.split("\t") for line in shown.stdout.splitlines()}
    assert rows["telegram"][1] == "yes"
    assert (rows["whatsapp"][1], rows["whatsapp"][3]) == ("stopped", "the token has expired")
    assert "then: oncue queues resume whatsapp.send" in shown.stderr
    assert "telegram" not in shown.stderr
    told = {one["channel"]: one for one in talking.json("conversations", "channels")}
    assert [one["template"] for one in told["whatsapp"]["disabled"]] == ["bye", "hello"]
    assert rows["whatsapp"][5] == '["bye de","hello en_US"]'
    assert (told["telegram"]["duplicates"], told["telegram"]["since"]) == (0, None)
    talking.lines("queues", "resume", "whatsapp.send")
    assert [line[1] for line in talking.lines("conversations", "channels")] == ["yes", "yes"]
    assert talking.here("queues", "pause", "telegram.send").stderr == "", "known, though nothing is in it"


def test_a_disabled_template_is_seen_and_used_again(talking: Stage) -> None:
    execute(talking, STOPPED)
    assert talking.lines("conversations", "templates") == [
        ["whatsapp", "bye", "de", "it is gone"],
        ["whatsapp", "hello", "en_US", "paused for its quality"],
    ]
    wrong = talking.here("conversations", "templates", "--enable", "hello", "--language", "de")
    assert wrong.exit_code == 1
    assert "No template 'hello' is disabled here" in wrong.output
    enabled = talking.lines("conversations", "templates", "--enable", "hello")
    assert enabled == [["whatsapp", "hello", "en_US", "enabled; it was: paused for its quality"]]
    assert talking.lines("conversations", "templates") == [["whatsapp", "bye", "de", "it is gone"]]
    assert audit(talking) == [("enable", "channel:whatsapp")]


def test_messages_that_went_out_twice_are_shown(talking: Stage) -> None:
    assert talking.json("conversations", "show", "1")["duplicates"] == 0
    assert "duplicates" not in talking.here("conversations", "show", "1").output
    execute(
        talking,
        "INSERT INTO oncue_channel (name) VALUES ('whatsapp');"
        "INSERT INTO oncue_sent SELECT 'whatsapp', 'w1', id, 1, 1 FROM oncue_message;"
        "INSERT INTO oncue_sent SELECT 'whatsapp', 'w2', id, 2, 2 FROM oncue_message;",
    )
    assert talking.json("conversations", "show", "1")["duplicates"] == 1
    assert "duplicates\t1" in talking.here("conversations", "show", "1").output
    assert [one["duplicates"] for one in talking.json("conversations", "channels")] == [1]
    assert "duplicate" in [line[2] for line in talking.lines("conversations", "timeline", ANA)]
