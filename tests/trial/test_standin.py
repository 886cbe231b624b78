"""The stand-in behaves as the facts about the Cloud API say, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from people import Person
from report import read_ledger
from stage import Stage
from standin import Config, sign
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

ANA = Person("491570000001", "Ana", pace=(0.0, 0.0))
MESSAGES = "/v26.0/1/messages"


def text(to: str, body: str, echo: str = "v1:m:1:0") -> dict[str, Any]:
    return {
        "messaging_product": "whatsapp",
        "to": to,
        "type": "text",
        "text": {"body": body},
        "biz_opaque_callback_data": echo,
    }


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path, STANDIN_FAST="1") as stage:
        yield stage


@pytest.fixture
def client(stage: Stage) -> Iterator[httpx.Client]:
    url = stage.serve("stand-in", "standin:from_env", "--factory")
    headers = {"authorization": "Bearer local-token"}
    with httpx.Client(base_url=url, headers=headers, timeout=20, trust_env=False) as client:
        client.post("/_sim/people", json=[asdict(ANA)]).raise_for_status()
        yield client


class Receiver:
    """A webhook that answers with the given HTTP statuses, then with 200."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.calls: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue()

    async def receive(self, request: Request) -> Response:
        if request.method == "GET":
            return PlainTextResponse(request.query_params["hub.challenge"])
        self.calls.put_nowait((await request.body(), request.headers["x-hub-signature-256"]))
        return Response(status_code=self.answers.pop(0) if self.answers else 200)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        site = Starlette(routes=[Route("/hook", self.receive, methods=["GET", "POST"])])
        server = uvicorn.Server(uvicorn.Config(site, log_level="warning", lifespan="off"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
            server.should_exit = True
            await serving

    async def values(self, number: int) -> list[dict[str, Any]]:
        """The next so many different webhooks."""
        seen: dict[bytes, dict[str, Any]] = {}
        while len(seen) < number:
            raw, signature = await asyncio.wait_for(self.calls.get(), 20)
            assert signature == sign(raw, "local-secret")
            seen[raw] = json.loads(raw)["entry"][0]["changes"][0]["value"]
        return list(seen.values())


def test_an_accepted_message_is_in_the_ledger_before_it_is_answered(client: httpx.Client, stage: Stage) -> None:
    answer = client.post(MESSAGES, json=text(ANA.wa_id, "Hello"))
    assert answer.status_code == 200
    assert answer.json()["contacts"] == [{"input": ANA.wa_id, "wa_id": ANA.wa_id}]
    (event,) = read_ledger(stage.ledger)
    assert (event["event"], event["to"], event["body"], event["echo"]) == ("accepted", ANA.wa_id, "Hello", "v1:m:1:0")
    assert event["wamid"] == answer.json()["messages"][0]["id"]


def test_there_is_no_idempotency(client: httpx.Client, stage: Stage) -> None:
    ids = {client.post(MESSAGES, json=text(ANA.wa_id, "Hello")).json()["messages"][0]["id"] for _ in range(2)}
    assert len(ids) == 2
    assert [event["body"] for event in read_ledger(stage.ledger)] == ["Hello", "Hello"]


@pytest.mark.parametrize("token", ["wrong", "EAAGm0PX4ZCpsBA"])
def test_a_bad_token_and_one_that_looks_real_are_refused(client: httpx.Client, stage: Stage, token: str) -> None:
    answer = client.post(MESSAGES, json=text(ANA.wa_id, "Hello"), headers={"authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, 190)
    assert [event["event"] for event in read_ledger(stage.ledger)] == ["refused"]
    assert token not in stage.ledger.read_text()


def test_a_real_looking_token_can_not_be_configured() -> None:
    with pytest.raises(ValueError, match="EAA"):
        Config(token="EAAGm0PX4ZCpsBA")


@pytest.mark.parametrize(
    ("change", "code"),
    [({"to": "1"}, 131026), ({"messaging_product": "sms"}, 100), ({"text": {"body": ""}}, 100), ({"type": None}, 100)],
)
def test_a_message_that_can_not_be_delivered_is_refused(
    client: httpx.Client, change: dict[str, Any], code: int
) -> None:
    answer = client.post(MESSAGES, json=text(ANA.wa_id, "Hello") | change)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_a_message_without_a_receiver_is_refused(client: httpx.Client) -> None:
    answer = client.post(MESSAGES, json={"messaging_product": "whatsapp"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 131008)


async def test_statuses_and_the_answer_come_signed_and_again_until_they_are_taken(client: httpx.Client) -> None:
    receiver = Receiver(500, 503, 404)
    async with receiver.serve() as hook, httpx.AsyncClient(base_url=client.base_url, trust_env=False) as other:
        wish = {"url": hook, "verify_token": "any"}
        (await other.post("/_sim/webhook", json=wish)).raise_for_status()
        headers = {"authorization": "Bearer local-token"}
        sent = await other.post(MESSAGES, json=text(ANA.wa_id, "Are you well?"), headers=headers)
        wamid = sent.json()["messages"][0]["id"]
        values = await receiver.values(3)
    statuses = [value["statuses"][0] for value in values if "statuses" in value]
    assert sorted((s["status"], s["id"], s["biz_opaque_callback_data"]) for s in statuses) == [
        ("delivered", wamid, "v1:m:1:0"),
        ("sent", wamid, "v1:m:1:0"),
    ]
    (message,) = [value["messages"][0] for value in values if "messages" in value]
    assert message["from"] == ANA.wa_id


def test_a_webhook_that_does_not_shake_hands_is_not_subscribed(client: httpx.Client) -> None:
    wish = {"url": f"{str(client.base_url).rstrip('/')}/_sim/ledger", "verify_token": "any"}
    answer = client.post("/_sim/webhook", json=wish)
    assert (answer.status_code, answer.json()) == (400, {"error": "the handshake failed with 200"})


def test_a_person_leaves_one_message_unanswered() -> None:
    person = Person("1", "Ana", ignores=2)
    dice = random.Random(1)
    assert person.reads("One?", dice)
    assert person.reads("Two?", dice) is None
    assert person.reads("Still there?", dice)
    assert person.reads("Thank you.", dice) is None
