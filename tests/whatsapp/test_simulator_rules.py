"""The simulator refuses what the Cloud API refuses, with its codes."""

from __future__ import annotations

from typing import Any

import pytest

from oncue.errors import ConfigError
from oncue.whatsapp.simulator import Config, Limits, Person, Template
from tests.whatsapp.simulated import ANA, BILAL, PATH, stage


def buttons(*titles: str) -> dict[str, Any]:
    replies = [{"type": "reply", "reply": {"id": f"b{i}", "title": title}} for i, title in enumerate(titles)]
    return {
        "type": "interactive",
        "interactive": {"type": "button", "body": {"text": "Which?"}, "action": {"buttons": replies}},
    }


def rows(*rows: dict[str, Any], button: str = "Choose") -> dict[str, Any]:
    action = {"button": button, "sections": [{"rows": list(rows)}]}
    return {"type": "interactive", "interactive": {"type": "list", "body": {"text": "Which?"}, "action": action}}


def template(name: str = "follow_up", *parameters: str, language: str = "en") -> dict[str, Any]:
    texts = [{"type": "text", "text": text} for text in parameters]
    components = [{"type": "body", "parameters": texts}] if texts else []
    return {"type": "template", "template": {"name": name, "language": {"code": language}, "components": components}}


ROW = {"id": "r1", "title": "One"}

GOOD = {
    "text": {"type": "text", "text": {"body": "x" * 4096}},
    "buttons": buttons("a", "b", "c" * 20),
    "list": rows(*({"id": f"r{i}", "title": "t" * 24, "description": "d" * 72} for i in range(10))),
    "template": template("hello_world"),
}

BAD: dict[str, tuple[dict[str, Any], int]] = {
    "no type": ({}, 131008),
    "unknown type": ({"type": "pigeon", "pigeon": {}}, 100),
    "no content": ({"type": "text"}, 131008),
    "content no object": ({"type": "text", "text": "Hi"}, 100),
    "no body": ({"type": "text", "text": {}}, 131008),
    "empty body": ({"type": "text", "text": {"body": ""}}, 131008),
    "blank body": ({"type": "text", "text": {"body": " "}}, 131009),
    "body no string": ({"type": "text", "text": {"body": 5}}, 100),
    "body too long": ({"type": "text", "text": {"body": "x" * 4097}}, 100),
    "no buttons": (buttons(), 131009),
    "four buttons": (buttons(*"abcd"), 131009),
    "button too long": (buttons("x" * 21), 100),
    "same titles": (buttons("a", "a"), 131009),
    "no rows": (rows(), 131009),
    "eleven rows": (rows(*({"id": f"r{i}", "title": "t"} for i in range(11))), 131009),
    "row without title": (rows({"id": "r"}), 131008),
    "row too long": (rows({"id": "r", "title": "t" * 25}), 100),
    "row id too long": (rows({"id": "r" * 201, "title": "t"}), 100),
    "description too long": (rows(ROW | {"description": "d" * 73}), 100),
    "same row ids": (rows(ROW, ROW), 131009),
    "opens with too much": (rows(ROW, button="x" * 21), 100),
    "interactive of another type": ({"type": "interactive", "interactive": {"type": "flow"}}, 100),
    "interactive without body": ({"type": "interactive", "interactive": {"type": "button"}}, 131008),
    "group": (GOOD["text"] | {"recipient_type": "group"}, 100),
    "echo too long": (GOOD["text"] | {"biz_opaque_callback_data": "e" * 513}, 131009),
    "reply to nothing": (GOOD["text"] | {"context": {"message_id": "wamid.X"}}, 131009),
    "reaction to nothing": ({"type": "reaction", "reaction": {"message_id": "wamid.X", "emoji": "x"}}, 131009),
    "reaction without emoji": ({"type": "reaction", "reaction": {"message_id": "wamid.X"}}, 131008),
    "no template of that name": (template("nothing"), 132001),
    "no template in that language": (template("hello_world", language="de"), 132001),
    "too many parameters": (template("hello_world", "a"), 132000),
    "line break in a parameter": (template("hello_world", "a\nb"), 132018),
    "template without language": ({"type": "template", "template": {"name": "hello_world"}}, 131008),
    "no phone number": (GOOD["text"] | {"to": "Ana"}, 131009),
    "no recipient": (GOOD["text"] | {"to": ""}, 131008),
    "itself": (GOOD["text"] | {"to": "15550100000"}, 131021),
    "number no string": (GOOD["text"] | {"to": 49}, 100),
    "another product": (GOOD["text"] | {"messaging_product": "telegram"}, 100),
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
async def test_good_content_is_accepted(content: dict[str, Any]) -> None:
    async with stage() as s:
        response = await s.post({"to": ANA} | content)
        assert response.status_code == 200
        (accepted,) = s.simulator.ledger.of("accepted")
        assert response.json()["messages"][0]["id"] == accepted["wamid"]
        assert response.json()["contacts"] == [{"input": ANA, "wa_id": ANA}]


@pytest.mark.parametrize(("content", "code"), BAD.values(), ids=BAD)
async def test_bad_content_is_refused_and_nobody_sees_it(content: dict[str, Any], code: int) -> None:
    async with stage() as s:
        response = await s.post({"to": ANA} | content)
        assert response.status_code in (400, 404)
        assert s.code(response) == code
        assert not s.simulator.ledger.of("accepted")
        assert [line["code"] for line in s.simulator.ledger.of("refused")] == [code]


@pytest.mark.parametrize("raw", [b"", b"no json", b"[]", b"\xff"])
async def test_a_body_that_is_no_json_object_is_refused(raw: bytes) -> None:
    async with stage() as s:
        response = await s.client.post(PATH, content=raw, headers={"authorization": "Bearer local-token"})
        assert s.code(response) == 100


async def test_tokens() -> None:
    async with stage() as s:
        for token in ("", "Bearer other", "Bearer EAAB"):
            response = await s.post({"to": ANA, "type": "text", "text": {"body": "Hi"}}, authorization=token)
            assert (response.status_code, s.code(response)) == (401, 190)
            assert ("renew" in response.json()["error"]["error_data"]["details"]) == ("EAA" in token)
    with pytest.raises(ConfigError, match="EAA"):
        Config(token="EAAB")


async def test_another_number_and_another_method_are_refused() -> None:
    async with stage() as s:
        headers = {"authorization": "Bearer local-token"}
        response = await s.client.post("/v26.0/7/messages", json={}, headers=headers)
        assert s.code(response) == 33
        assert (await s.client.get(PATH, headers=headers)).status_code == 405


async def test_there_is_no_idempotency() -> None:
    async with stage() as s:
        ids = {(await s.text(echo="v1:m:1")).json()["messages"][0]["id"] for _ in range(3)}
        assert len(ids) == 3
        assert [line["echo"] for line in s.simulator.ledger.of("accepted")] == ["v1:m:1"] * 3


async def test_the_pair_limit_lends_a_burst_and_then_one_each_six_seconds() -> None:
    async with stage() as s:
        codes = [(await s.text()).status_code for _ in range(46)]
        assert codes == [200] * 45 + [429]
        assert (await s.text(to=BILAL)).status_code == 200, "others go on"
        await s.advance(5.9)
        assert s.code(await s.text()) == 131056
        await s.advance(0.1)
        assert (await s.text()).status_code == 200
        assert s.code(await s.text()) == 131056


async def test_strict_payback_wants_the_whole_burst_back() -> None:
    async with stage(limits=Limits(strict_payback=True)) as s:
        assert [(await s.text()).status_code for _ in range(20)] == [200] * 20
        await s.advance(6)
        assert s.code(await s.text()) == 131056
        await s.advance(20 * 6 - 6 - 0.001)
        assert s.code(await s.text()) == 131056
        await s.advance(0.001)
        assert (await s.text()).status_code == 200


async def test_throughput_counts_what_people_write() -> None:
    limits = Limits(throughput=5, pair_every=None)
    async with stage(limits=limits) as s:
        await s.advance(10)
        for _ in range(3):
            s.simulator.say(ANA, "hello")
        assert [(await s.text()).status_code for _ in range(3)] == [200, 200, 429]
        await s.advance(0.2)
        assert (await s.text()).status_code == 200
        assert s.code(await s.text()) == 130429
    async with stage(limits=Limits(throughput=5, pair_every=None, inbound_counts=False)) as s:
        await s.advance(10)
        s.simulator.say(ANA, "hello")
        assert [(await s.text()).status_code for _ in range(6)] == [200] * 5 + [429]


async def test_the_window_shuts_after_a_day_and_templates_still_go() -> None:
    async with stage() as s:
        await s.advance(86_400 - 1)
        assert (await s.text()).status_code == 200
        await s.advance(1)
        assert s.code(await s.text()) == 131047
        assert (await s.post({"to": ANA} | template("hello_world"))).status_code == 200
        assert s.code(await s.text()) == 131047, "a template opens no window"
        s.simulator.say(ANA, "here again")
        assert (await s.text()).status_code == 200


async def test_templates_reach_so_many_people_a_day_outside_their_windows() -> None:
    people = [Person(f"491570000000{i}") for i in range(4)]
    async with stage(open_window=False, people=people, limits=Limits(people_a_day=2)) as s:
        hello = template("hello_world")
        codes = [(await s.post({"to": person.key} | hello)).status_code for person in people[:3]]
        assert codes == [200, 200, 400]
        assert (await s.post({"to": people[0].key} | hello)).status_code == 200, "counted already"
        s.simulator.say(people[3].key, "hi")
        assert (await s.post({"to": people[3].key} | hello)).status_code == 200, "within the window"
        await s.advance(86_400)
        assert (await s.post({"to": people[2].key} | hello)).status_code == 200


async def test_templates_have_states_and_parameters() -> None:
    known = Template("follow_up", "en", 2, body="Hi {{1}}, {{2}} waits.")
    async with stage(templates=[known]) as s:
        response = await s.post({"to": ANA} | template("follow_up", "Ana", "Bilal"))
        assert response.json()["messages"][0]["message_status"] == "accepted"
        assert s.simulator.ledger.of("accepted")[0]["text"] == "Hi Ana, Bilal waits."
        assert s.code(await s.post({"to": ANA} | template("follow_up", "Ana"))) == 132000
        for state, code in (("paused", 132015), ("disabled", 132016)):
            reply = await s.client.post("/_sim/templates", json={"name": "follow_up", "parameters": 2, "state": state})
            assert reply.status_code == 200
            assert s.code(await s.post({"to": ANA} | template("follow_up", "Ana", "Bilal"))) == code


async def test_who_wants_no_marketing_gets_none() -> None:
    async with stage(templates=[Template("offer", category="marketing"), Template("bill")]) as s:
        assert (await s.post({"to": ANA} | template("offer"))).status_code == 200
        s.simulator.prefer(ANA, False)
        await s.rest()
        (told,) = [value for value in s.application.values if "user_preferences" in value]
        assert told["user_preferences"][0]["value"] == "stop"
        assert s.code(await s.post({"to": ANA} | template("offer"))) == 131050
        assert (await s.post({"to": ANA} | template("bill"))).status_code == 200
        s.simulator.prefer(ANA, True)
        assert (await s.post({"to": ANA} | template("offer"))).status_code == 200


async def test_read_and_typing_want_a_message_that_was_received() -> None:
    async with stage() as s:
        wamid = s.simulator.say(ANA, "hello")
        typing = {"status": "read", "message_id": wamid, "typing_indicator": {"type": "text"}}
        assert (await s.post(typing)).json() == {"success": True}
        assert [line["person"] for line in s.simulator.ledger.of("typing")] == [ANA]
        assert s.code(await s.post({"status": "read"})) == 131008
        assert s.code(await s.post({"status": "read", "message_id": "wamid.X"})) == 131009
        assert s.code(await s.post({"status": "seen", "message_id": wamid})) == 131009
        assert s.code(await s.post(typing | {"typing_indicator": {"type": "audio"}})) == 131009
        sent = (await s.text()).json()["messages"][0]["id"]
        assert s.code(await s.post({"status": "read", "message_id": sent})) == 131009


async def test_a_person_without_a_number_is_reached_by_user_id() -> None:
    async with stage(people=[Person(None, "Chiara", user_id="IT.33")]) as s:
        response = await s.post({"recipient": "IT.33", "type": "text", "text": {"body": "Hi"}})
        assert response.json()["contacts"] == [{"input": "IT.33", "user_id": "IT.33"}]
        await s.advance(0)
        (status, *_) = [value["statuses"][0] for value in s.application.values]
        assert status["recipient_user_id"] == "IT.33"
        assert "recipient_id" not in status
        s.simulator.say("IT.33", "hello")
        await s.rest()
        assert s.application.messages[-1]["from_user_id"] == "IT.33"
        assert "from" not in s.application.messages[-1]
        assert s.code(await s.post({"recipient": "IT.99", "type": "text", "text": {"body": "Hi"}})) == 131026
