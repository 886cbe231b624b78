"""People of the simulator: scripts, taps, fragments, and thousands at once."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest

from oncue.errors import ConfigError
from oncue.whatsapp.simulator import Limits, Message, Person
from tests.whatsapp.simulated import ANA, BILAL, Stage, stage

BUTTONS = {
    "type": "interactive",
    "interactive": {"type": "button", "body": {"text": "Again"}, "action": {"buttons": [
        {"type": "reply", "reply": {"id": "y", "title": "Yes"}},
        {"type": "reply", "reply": {"id": "n", "title": "No"}},
    ]}},
}  # fmt: skip


def said(s: Stage) -> list[str]:
    return [line.get("text", "") for line in s.simulator.ledger.of("said")]


async def ask(s: Stage, *questions: str) -> list[str]:
    for question in questions:
        await s.text(question)
        for _ in range(10):
            await s.advance(1)
    return said(s)


async def test_answers_come_one_for_each_question_after_the_pace() -> None:
    async with stage(people=[Person(ANA, answers=["one", "two"], pace=(3, 4))]) as s:
        await s.text("First?")
        await s.advance(2.9)
        assert said(s) == []
        await s.advance(1.1)
        assert said(s) == ["one"]
        assert await ask(s, "That is all.", "Second?", "Third?") == ["one", "two", "two"]
        assert s.application.messages[0]["text"] == {"body": "one"}


async def test_a_function_answers_by_what_it_reads_and_may_be_silent() -> None:
    def answers(message: Message, dice: Random) -> str | None:
        return None if "secret" in message.text else message.text.upper()

    async with stage(people=[Person(ANA, answers=answers)]) as s:
        assert await ask(s, "Why?", "A secret?", "How?") == ["WHY?", "HOW?"]


async def test_an_ignored_question_is_answered_after_the_reminder() -> None:
    async with stage(people=[Person(ANA, answers=["one", "two"], ignores=[1])]) as s:
        assert await ask(s, "First?") == []
        assert await ask(s, "Still there.") == ["one"]
        assert await ask(s, "Second?") == ["one", "two"]
    async with stage(people=[Person(ANA, answers=["one"], ignores=[1])]) as s:
        assert await ask(s, "First?", "First?") == ["one"], "a reminder may be the question again"


async def test_the_same_question_twice_in_a_row_is_answered_once_unless_asked_for() -> None:
    async with stage(people=[Person(ANA, answers=["one", "two"])]) as s:
        assert await ask(s, "First?", "First?", "Second?") == ["one", "two"]
    async with stage(people=[Person(ANA, answers=["one", "two"], repeats=True)]) as s:
        assert await ask(s, "First?", "First?") == ["one", "two"]


async def test_fragments() -> None:
    async with stage(people=[Person(ANA, answers=["my name is Ana"], fragments=3, fragment_gap=2)]) as s:
        parts = await ask(s, "Who?")
        assert len(parts) == 3
        assert " ".join(parts) == "my name is Ana"
        times = [line["at_us"] for line in s.simulator.ledger.of("said")]
        assert [b - a for a, b in itertools.pairwise(times)] == [2_000_000] * 2


async def test_options_are_tapped() -> None:
    async with stage(people=[Person(ANA, answers=["No"]), Person(BILAL, answers=[])]) as s:
        for person in (ANA, BILAL):
            await s.post({"to": person} | BUTTONS)
        await s.advance(10)
        ana = next(item for item in s.application.messages if item["from"] == ANA)
        assert ana["interactive"] == {"type": "button_reply", "button_reply": {"id": "n", "title": "No"}}
        wamid = s.simulator.ledger.of("accepted", person=ANA)[0]["wamid"]
        assert ana["context"] == {"from": "15550100000", "id": wamid}
        assert next(line["choice"] for line in s.simulator.ledger.of("said", person=BILAL)) in ("y", "n")


async def test_rows_are_tapped_by_hand() -> None:
    rows = [{"id": "r1", "title": "One", "description": "the first"}, {"id": "r2", "title": "Two"}]
    listing = {"type": "list", "body": {"text": "Which"}, "action": {"button": "Open", "sections": [{"rows": rows}]}}
    async with stage() as s:
        await s.post({"to": ANA, "type": "interactive", "interactive": listing})
        await s.advance(1)
        reply = await s.client.post("/_sim/taps", json={"person": ANA, "option": "One"})
        assert reply.status_code == 200
        await s.rest()
        assert s.application.messages[-1]["interactive"] == {"type": "list_reply", "list_reply": rows[0]}
        missing = await s.client.post("/_sim/taps", json={"person": ANA, "option": "Three"})
        assert (missing.status_code, "Three" in missing.json()["error"]) == (400, True)


async def test_anything_else_is_sent_by_hand_as_it_stands() -> None:
    image: dict[str, Any] = {"type": "image", "image": {"id": "1", "caption": "look"}}
    async with stage() as s:
        reply = await s.client.post("/_sim/messages", json={"person": BILAL, "message": image})
        await s.rest()
        (message,) = s.application.messages
        assert message["image"] == image["image"]
        assert (message["id"], message["from_user_id"]) == (reply.json()["id"], "DE.22")


async def test_people_are_added_by_the_control_plane() -> None:
    async with stage() as s:
        new = [{"user_id": "IT.1", "name": "Chiara"}, {"wa_id": "4915700000009", "answers": ["ok"], "ignores": [2]}]
        people = (await s.client.post("/_sim/people", json=new)).json()
        assert [each["person"] for each in people] == [ANA, BILAL, "IT.1", "4915700000009"]
        assert [each["scripted"] for each in people] == [False, False, False, True]
        for bad in ({"wa_id": ANA}, {"name": "Nobody"}, {"wa_id": "+49 157"}, {"wa_id": "1", "fragments": 0}):
            assert (await s.client.post("/_sim/people", json=bad)).status_code == 400
        for path in ("messages", "block", "read"):
            unknown = await s.client.post(f"/_sim/{path}", json={"person": "77"})
            assert (unknown.status_code, "'77'" in unknown.json()["error"]) == (400, True)


def test_a_person_needs_a_name_for_the_business() -> None:
    with pytest.raises(ConfigError, match="wa_id"):
        Person(None)


async def test_a_thousand_people_answer() -> None:
    people = [Person(f"49157{i:07d}", answers=["yes"], pace=(1, 60)) for i in range(1_000)]
    limits = Limits(throughput=None)
    async with stage(people=people, limits=limits) as s:
        for person in people:
            body = {"to": person.key, "type": "text", "text": {"body": "Are you there?"}}
            _, sent = s.simulator.accept(body)
            await s.simulator.begin(sent)
        for _ in range(70):
            await s.advance(1)
        while len(s.application.messages) < len(people):
            await s.rest()
        assert {item["from"] for item in s.application.messages} == {person.key for person in people}
        assert len(s.simulator.ledger.of("said")) == len(people)
