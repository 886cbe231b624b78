"""``oncue whatsapp simulate``, as a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path

import httpx
import pytest

from oncue.transport import Address, Outgoing, Text
from oncue.whatsapp import WhatsApp
from tests.whatsapp.simulated import PATH

PERSON = "4915700000000"


async def line_with(process: asyncio.subprocess.Process, text: str) -> str:
    assert process.stderr is not None
    seen = []
    async with asyncio.timeout(30):
        while line := (await process.stderr.readline()).decode():
            seen.append(line)
            if text in line:
                return line
    raise AssertionError("".join(seen))


async def start(*options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "oncue", "whatsapp", "simulate", *options, stderr=asyncio.subprocess.PIPE
    )


async def test_the_command_serves_says_where_and_stops_at_a_signal(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    process = await start("--port", "0", "--people", "3", "--ledger", str(ledger), "--fault",
                          '{"action": "accept-500", "nth": 2}')  # fmt: skip
    try:
        line = await line_with(process, "phone page")
        url = line.split("phone page ")[1].strip().rstrip("/")
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            assert "WhatsApp simulator" in (await client.get("/")).text
            assert len((await client.get("/_sim/people")).json()) == 3
            await client.post("/_sim/messages", json={"person": PERSON, "text": "start"})
            body = {"messaging_product": "whatsapp", "to": PERSON, "type": "text", "text": {"body": "Hi?"}}
            headers = {"authorization": "Bearer local-token"}
            codes = [(await client.post(PATH, json=body, headers=headers)).status_code for _ in range(2)]
            assert codes == [200, 500]
            with contextlib.suppress(httpx.HTTPError):
                async with client.stream("GET", "/_sim/events") as events:
                    async for _ in events.aiter_lines():
                        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0, "a page that looks on doesn't hold it up"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    lines = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    assert len([line for line in lines if line["event"] == "accepted"]) == 2


async def first_id(*options: str) -> str:
    """The id of what somebody writes first in a run of its own."""
    process = await start("--port", "0", "--people", "1", *options)
    try:
        url = (await line_with(process, "phone page")).split("phone page ")[1].strip().rstrip("/")
        async with httpx.AsyncClient(base_url=url, trust_env=False) as control:
            await control.post("/_sim/messages", json={"person": PERSON, "text": "start"})
            (said,) = (one for one in (await control.get("/_sim/ledger")).json() if one["event"] == "said")
            return str(said["wamid"])
    finally:
        process.terminate()
        await process.wait()


async def test_a_run_after_another_has_new_ids_so_that_a_bot_takes_nothing_for_a_repetition() -> None:
    unseeded = await asyncio.gather(first_id(), first_id())
    assert len({*unseeded}) == 2
    seeded = await asyncio.gather(first_id("--seed", "7"), first_id("--seed", "7"))
    assert len({*seeded}) == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--token", "EAAB"], "EAA"),
        (["--fault", '{"action": "explode"}'], "There is no fault 'explode'; there is: "),
        (["--template", '{"name": "x", "state": "gone"}'], "one of approved, paused, disabled"),
        (["--template", '{"nam": "x"}'], "nam"),
        (["--webhook", "http://example.com/"], "this machine only"),
        (["--ledger", "/nowhere/ledger"], "can't be written"),
    ],
)
async def test_what_can_not_be_is_said_in_a_line(options: list[str], text: str) -> None:
    process = await start("--port", "0", *options)
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode in (1, 2)
    assert text in errors.decode().splitlines()[-1]


async def test_oncues_own_client_can_not_tell_it_from_the_real_one() -> None:
    process = await start("--port", "0", "--people", "1")
    try:
        url = (await line_with(process, "phone page")).split("phone page ")[1].strip().rstrip("/")
        client = WhatsApp(
            token="local-token", phone_number_id="100000000000001", app_secret="local-secret",
            verify_token="local-verify-token", url=url,
        )  # fmt: skip
        async with httpx.AsyncClient(base_url=url, trust_env=False) as control:
            shut = await client.send(Outgoing(Address(PERSON), Text("Hi"), "v1:1:1"))
            assert (shut.verdict, shut.code) == ("use_template", 131047)
            await control.post("/_sim/messages", json={"person": PERSON, "text": "start"})
            sent = await client.send(Outgoing(Address(PERSON), Text("Hi"), "v1:1:1"))
            assert sent.verdict == "sent"
            await control.post("/_sim/faults", json={"action": "accept-reset"})
            assert (await client.send(Outgoing(Address(PERSON), Text("Hi"), "v1:1:2"))).verdict == "unknown"
            ledger = (await control.get("/_sim/ledger")).json()
            assert [line["echo"] for line in ledger if line["event"] == "accepted"] == ["v1:1:1", "v1:1:2"]
        await client.close()
    finally:
        process.terminate()
        await process.wait()
