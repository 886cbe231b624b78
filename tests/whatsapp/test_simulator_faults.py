"""Faults on real sockets and in process, as httpx sees them; and who may use the simulator at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from oncue.errors import ConfigError
from oncue.whatsapp.simulator import App, Config, Delays, Fault, Person, create, serving
from tests.whatsapp.simulated import ANA, BILAL, PATH, stage

HEADERS = {"authorization": "Bearer local-token"}


def text(to: str = ANA, body: str = "Hi") -> dict[str, Any]:
    return {"messaging_product": "whatsapp", "to": to, "type": "text", "text": {"body": body}}


def make(*faults: Fault) -> App:
    app = create(Config(people=[Person(ANA), Person(BILAL)], delays=Delays.none(), faults=faults))
    for person in (ANA, BILAL):
        app.simulator.say(person, "start")
    return app


@asynccontextmanager
async def client_of(kind: str, *faults: Fault) -> AsyncIterator[tuple[App, httpx.AsyncClient]]:
    """A client of a simulator in this process, or of one behind a real socket."""
    app = make(*faults)
    if kind == "inside":
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://simulator") as client:
            yield app, client
        await app.simulator.close()
    else:
        async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=2, trust_env=False) as client:
            yield app, client


KINDS = pytest.mark.parametrize("kind", ["inside", "socket"])


@KINDS
@pytest.mark.parametrize(("action", "accepted"), [("reset", 0), ("accept-reset", 1)])
async def test_a_reset_is_a_read_error(kind: str, action: Any, accepted: int) -> None:
    async with client_of(kind, Fault(action, times=1)) as (app, client):
        with pytest.raises(httpx.ReadError):
            await client.post(PATH, json=text(), headers=HEADERS)
        assert len(app.simulator.ledger.of("accepted")) == accepted
        assert (await client.post(PATH, json=text(), headers=HEADERS)).status_code == 200, "it happened once"


@KINDS
@pytest.mark.parametrize(("action", "accepted"), [("hang", 0), ("accept-hang", 1)])
async def test_a_hang_is_a_read_timeout(kind: str, action: Any, accepted: int) -> None:
    seconds = 0.01 if kind == "inside" else 60
    async with client_of(kind, Fault(action, seconds=seconds)) as (app, client):
        with pytest.raises(httpx.ReadTimeout):
            await client.post(PATH, json=text(), headers=HEADERS, timeout=httpx.Timeout(5, read=0.2))
        assert len(app.simulator.ledger.of("accepted")) == accepted


async def test_a_hang_that_ends_before_the_clients_patience_is_a_reset() -> None:
    async with client_of("socket", Fault("accept-hang", seconds=0.05)) as (_, client):
        with pytest.raises(httpx.ReadError):
            await client.post(PATH, json=text(), headers=HEADERS, timeout=20)


@KINDS
async def test_a_slow_body_arrives_whole(kind: str) -> None:
    async with client_of(kind, Fault("slow-body", seconds=0.05)) as (app, client):
        response = await client.post(PATH, json=text(), headers=HEADERS, timeout=20)
        assert response.json()["messages"][0]["id"] == app.simulator.ledger.of("accepted")[0]["wamid"]


async def test_a_slow_body_goes_by_the_moved_clock() -> None:
    async with stage(faults=[Fault("slow-body", seconds=30)]) as s:
        waiting = asyncio.create_task(s.text())
        for _ in range(29):
            await s.advance(1)
        assert not waiting.done()
        for _ in range(3):
            await s.advance(1)
        assert (await waiting).status_code == 200


@KINDS
async def test_answers_that_say_little_of_what_became_of_the_message(kind: str) -> None:
    for action, accepted in (("html-502", 0), ("accept-html-502", 1), ("accept-500", 1), ("accept-truncated", 1)):
        async with client_of(kind, Fault(action)) as (app, client):  # type: ignore[arg-type]
            response = await client.post(PATH, json=text(), headers=HEADERS)
            assert len(app.simulator.ledger.of("accepted")) == accepted
            if action == "accept-500":
                assert (response.status_code, response.json()["error"]["code"]) == (500, 131000)
                continue
            assert response.status_code == (200 if action == "accept-truncated" else 502)
            with pytest.raises(json.JSONDecodeError):
                response.json()


async def test_error_codes_with_their_status() -> None:
    for code, status in ((130429, 429), (131056, 429), (4, 429), (80007, 429), (131053, 400)):
        async with stage(faults=[Fault("error", code=code, retry_after=3)]) as s:
            response = await s.text()
            assert (response.status_code, s.code(response)) == (status, code)
            assert response.headers["retry-after"] == "3"
            assert not s.simulator.ledger.of("accepted")


async def test_a_lost_status_and_a_late_failure() -> None:
    async with stage(faults=[Fault("lose-status", nth=1), Fault("fail", nth=1, code=131049)]) as s:
        await s.text()
        await s.advance(60)
        assert s.application.statuses == []
        await s.text()
        await s.advance(60)
        assert [name for name, _ in s.application.statuses] == ["sent", "delivered"], "each counts what matches it"


async def happened(fault: Fault, count: int = 8) -> list[int]:
    async with stage(faults=[fault]) as s:
        return [i for i in range(1, count + 1) if (await s.text(f"text {i}", (ANA, BILAL)[i % 2])).status_code != 200]


async def test_faults_are_for_some_messages_some_times() -> None:
    assert await happened(Fault("error", to=BILAL)) == [1, 3, 5, 7]
    assert await happened(Fault("error", text="text 4")) == [4]
    assert await happened(Fault("error", type="template")) == []
    assert await happened(Fault("error", nth=3)) == [3]
    assert await happened(Fault("error", to=BILAL, nth=[1, 4])) == [1, 7]
    assert await happened(Fault("error", times=2)) == [1, 2]
    half = await happened(Fault("error", probability=0.5, seed=3), 40)
    assert 8 < len(half) < 32
    assert half == await happened(Fault("error", probability=0.5, seed=3), 40)
    assert half != await happened(Fault("error", probability=0.5, seed=4), 40)


async def test_faults_are_switched_by_the_control_plane() -> None:
    async with stage() as s:
        await s.client.post("/_sim/faults", json=[{"action": "error", "times": 1}, {"action": "html-502", "nth": [2]}])
        assert [(await s.text()).status_code for _ in range(3)] == [429, 502, 200]
        listing = (await s.client.get("/_sim/faults")).json()
        assert [(each["action"], each["matched"], each["happened"]) for each in listing] == [
            ("error", 3, 1), ("html-502", 3, 1),
        ]  # fmt: skip
        assert (await s.client.delete("/_sim/faults")).json() == []
        for bad in ({"action": "explode"}, {"action": "reset", "probability": 2}, {"action": "reset", "what": 1}, {}):
            response = await s.client.post("/_sim/faults", json=bad)
            assert response.status_code == 400
            assert response.json()["error"]


def test_faults_that_can_not_be() -> None:
    for wrong in ({"action": "explode"}, {"action": "reset", "nth": 0}, {"action": "reset", "probability": -1}):
        with pytest.raises(ConfigError):
            Fault(**wrong)


async def test_nobody_but_this_machine_is_served() -> None:
    for address in ("10.0.0.1", "203.0.113.5", "2001:db8::1"):
        transport = httpx.ASGITransport(make(), client=(address, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://simulator") as client:
            for path in (PATH, "/", "/_sim/ledger"):
                response = await client.get(path)
                assert (response.status_code, address in response.text) == (403, True)


async def test_pages_of_other_sites_are_not_served() -> None:
    async with client_of("socket") as (_, client):
        assert (await client.get("/")).status_code == 200
        own = str(client.base_url).rstrip("/")
        wish = {"person": ANA, "text": "hello"}
        assert (await client.post("/_sim/messages", json=wish, headers={"origin": own})).status_code == 200
        other = await client.post("/_sim/messages", json=wish, headers={"origin": "https://example.com"})
        assert (other.status_code, "example.com" in other.text) == (403, True)
        rebound = await client.get("/_sim/ledger", headers={"host": "example.com"})
        assert rebound.status_code == 403


async def test_a_taken_port_is_said() -> None:
    async with serving(make()) as url:
        with pytest.raises(ConfigError, match="Is another process there"):
            async with serving(make(), int(url.rpartition(":")[2])):
                pass
