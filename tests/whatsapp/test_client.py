"""Settings, and what each answer is taken for. The network's faults: tests/transport."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from oncue.errors import ConfigError
from oncue.transport import Address, Choices, Option, Outgoing, Template, Text, Transport, Verdict
from oncue.whatsapp import WhatsApp, signature
from tests.pgprocess import free_port

NUMBER = "100000000000001"
TOKEN, SECRET, VERIFY = "a-token", "an-app-secret", "a-verify-token"
MESSAGE = Outgoing(Address("16505550100"), Text("Hi"), "v1:abc:1")
VARIABLES = ("TOKEN", "PHONE_NUMBER_ID", "APP_SECRET", "VERIFY_TOKEN", "PROVIDER", "URL", "VERSION")


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"WHATSAPP_{name}", raising=False)


def number(**options: Any) -> WhatsApp:
    return WhatsApp(TOKEN, NUMBER, SECRET, VERIFY, **options)


@dataclass
class Api:
    """A server that answers every request alike, and keeps what it was asked."""

    status: int = 200
    body: bytes = b'{"messages": [{"id": "wamid.1"}]}'
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    connections: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                pairs = (line.partition(":") for line in head[1:] if line)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                self.asked.append((head[0], headers, await reader.readexactly(int(headers["content-length"]))))
                more = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
                writer.write(f"HTTP/1.1 {self.status} -\r\nContent-Length: {len(self.body)}\r\n{more}\r\n".encode())
                writer.write(self.body)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def running(api: Api) -> AsyncIterator[Api]:
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    api.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield api
    finally:
        server.close()


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with running(Api()) as made:
        yield made


@asynccontextmanager
async def client(api: Api, **options: Any) -> AsyncIterator[WhatsApp]:
    made = number(url=api.url, **options)
    try:
        yield made
    finally:
        await made.close()


def error(code: object, **more: object) -> bytes:
    return json.dumps({"error": {"code": code, "message": "It says", **more}}).encode()


# Settings


def test_it_is_a_transport() -> None:
    transport: Transport = number()
    assert transport.name == "whatsapp"
    assert (transport.throughput, transport.pair, transport.inbound_counts) == (80, (1, 6, 45), True)
    assert transport.capabilities.window == 86_400
    assert (transport.capabilities.echo, transport.capabilities.statuses) == (True, True)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (TOKEN, NUMBER, f"{SECRET}, older", VERIFY, "meta", "https://proxy.example/graph/", "v30.1")
    for name, value in zip(VARIABLES, settings, strict=True):
        monkeypatch.setenv(f"WHATSAPP_{name}", value)
    whatsapp = WhatsApp()
    assert f"https://proxy.example/graph/v30.1/{NUMBER}/messages" in repr(whatsapp)
    for secret in (SECRET, "older"):
        assert whatsapp.genuine({signature.HEADER: signature.sign(secret.encode(), b"{}")}, b"{}")
    assert whatsapp.handshake({"hub.mode": "subscribe", "hub.verify_token": VERIFY, "hub.challenge": "1"}) == "1"
    assert "v31.0" in repr(WhatsApp(version="v31.0"))


def test_meta_is_the_default() -> None:
    assert repr(number()) == (f"WhatsApp(name='whatsapp', url='https://graph.facebook.com/v26.0/{NUMBER}/messages')")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"token": None}, "WHATSAPP_TOKEN is not set"),
        ({"phone_number_id": None}, "WHATSAPP_PHONE_NUMBER_ID is not set"),
        ({"phone_number_id": "+1 650 555"}, r"WHATSAPP_PHONE_NUMBER_ID .* not '\+1 650 555'"),
        ({"token": "two words"}, "WHATSAPP_TOKEN has a space"),
        ({"token": "line\n"}, "WHATSAPP_TOKEN has a space"),
        ({"url": "graph.facebook.com"}, "WHATSAPP_URL .* not 'graph.facebook.com'"),
        ({"url": "ftp://graph.facebook.com"}, "WHATSAPP_URL .* not 'ftp:"),
        ({"url": "http://:80"}, "WHATSAPP_URL"),
        ({"url": "http://a:b"}, "WHATSAPP_URL"),
        ({"url": "https://user:word@host"}, "WHATSAPP_URL .* has a user"),
        ({"url": "https://host/?a=b"}, "WHATSAPP_URL .* a query"),
        ({"url": "http://host", "token": "EAAreal"}, "in the clear"),
        ({"version": "26"}, "WHATSAPP_VERSION .* not '26'"),
        ({"provider": "twilio"}, "WHATSAPP_PROVIDER .* not 'twilio'"),
        ({"provider": "360dialog", "token": None}, "WHATSAPP_TOKEN is not set: the number's API key"),
        ({"timeout": 0}, "timeout is"),
        ({"timeout": float("inf")}, "timeout is"),
        ({"connections": 0}, "connections is"),
        ({"throughput": 0}, "throughput is"),
    ],
)
def test_what_is_missing_or_wrong_is_said_by_its_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        WhatsApp(**{"token": TOKEN, "phone_number_id": NUMBER, "app_secret": SECRET, **options})
    assert not [secret for secret in ("EAAreal", "user:word", "two words") if secret in str(refusal.value)]


def test_without_httpx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ConfigError, match=r"pip install 'oncue\[whatsapp\]'"):
        number()


def test_importing_it_loads_no_httpx() -> None:
    code = "import sys, oncue.whatsapp, oncue.whatsapp.client; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_there_is_nothing_else_in_the_package() -> None:
    import oncue.whatsapp

    with pytest.raises(AttributeError, match="Telegram"):
        _ = oncue.whatsapp.Telegram


# Answers


async def test_a_message_is_posted_once_with_the_token(api: Api) -> None:
    async with client(api, version="v27.0") as whatsapp:
        answer = await whatsapp.send(MESSAGE)
    assert (answer.verdict, answer.external_id, answer.reason) == ("sent", "wamid.1", "")
    [(line, headers, body)] = api.asked
    assert line == f"POST /v27.0/{NUMBER}/messages HTTP/1.1"
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["biz_opaque_callback_data"] == "v1:abc:1"


async def test_360dialog_has_a_key_and_no_number_in_its_path(api: Api) -> None:
    whatsapp = WhatsApp(TOKEN, url=api.url, provider="360dialog")
    assert (await whatsapp.send(MESSAGE)).verdict == "sent"
    await whatsapp.close()
    [(line, headers, _)] = api.asked
    assert line == "POST /messages HTTP/1.1"
    assert headers["d360-api-key"] == TOKEN
    assert "authorization" not in headers
    assert "waba-v2.360dialog.io/messages" in repr(WhatsApp(TOKEN, provider="360dialog"))


@pytest.mark.parametrize(
    ("status", "body", "verdict", "code"),
    [
        (200, b'{"messages": [{"id": "wamid.1", "message_status": "accepted"}]}', "sent", None),
        (201, b'{"messages": [{"id": "wamid.1"}], "contacts": []}', "sent", None),
        # The code decides, whatever the status.
        (200, error(131047), "use_template", 131047),
        (500, error(131056), "wait_person", 131056),
        (400, error("130429"), "wait_channel", 130429),
        (401, error(190), "stop_channel", 190),
        (400, error(100, error_subcode=33), "stop_channel", 100),
        (400, error(100), "refused", 100),
        (500, error(131000), "unknown", 131000),
        (500, error(424242), "unknown", 424242),
        # Neither a code nor a name.
        (429, b"", "unknown", None),
        (401, b"Unauthorized", "unknown", None),
        (404, b"<html></html>", "unknown", None),
        (503, b"", "unknown", None),
        (302, b"", "unknown", None),
        (200, b"", "unknown", None),
        (200, b"{}", "unknown", None),
        (200, b"[]", "unknown", None),
        (200, b'{"messages": []}', "unknown", None),
        (200, b'{"messages": ["wamid.1"]}', "unknown", None),
        (200, b'{"messages": [{"id": 7}]}', "unknown", None),
        (200, b'{"messages": [{"id": ""}]}', "unknown", None),
        (200, b'{"messages": {"id": "wamid.1"}}', "unknown", None),
        (400, error(None), "unknown", None),
        (400, b'{"error": "no such key"}', "unknown", None),
        (200, b'{"error": {}, "messages": [{"id": "wamid.1"}]}', "unknown", None),
        (200, b"[" * 100_000, "unknown", None),
        (200, b" " * 2_000_000, "unknown", None),
    ],
    ids=range(28),
)
async def test_an_answer_is_judged_by_what_it_says(
    api: Api, status: int, body: bytes, verdict: Verdict, code: int | None
) -> None:
    api.status, api.body = status, body
    async with client(api) as whatsapp:
        answer = await whatsapp.send(MESSAGE)
    assert (answer.verdict, answer.code) == (verdict, code)
    assert (answer.external_id is not None) == (verdict == "sent")
    assert answer.reason or verdict == "sent"


async def test_a_message_that_is_held_back_is_sent_and_says_so(api: Api) -> None:
    api.body = b'{"messages": [{"id": "wamid.1", "message_status": "held_for_quality_assessment"}]}'
    async with client(api) as whatsapp:
        answer = await whatsapp.send(MESSAGE)
    assert (answer.verdict, answer.reason) == ("sent", "held_for_quality_assessment")


@pytest.mark.parametrize(
    ("given", "after"),
    [("7", 7.0), (" 120 ", 120.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None), ("", None)],
)
async def test_how_long_to_wait_is_told_where_the_answer_says_it(api: Api, given: str, after: float | None) -> None:
    api.status, api.body, api.headers = 429, error(130429), {"Retry-After": given}
    async with client(api) as whatsapp:
        answer = await whatsapp.send(MESSAGE)
    assert (answer.verdict, answer.after) == ("wait_channel", after)


async def test_enough_marketing_waits_for_a_day_and_an_opt_out_for_ever(api: Api) -> None:
    async with client(api) as whatsapp:
        api.body = error(131049)
        enough = await whatsapp.send(MESSAGE)
        api.body = error(131050)
        never = await whatsapp.send(MESSAGE)
    assert (enough.verdict, enough.after) == ("no_marketing", 86_400)
    assert (never.verdict, never.after) == ("no_marketing", None)


async def test_a_token_that_comes_back_is_not_kept(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    api.status, api.body = 401, error(190, error_data={"details": f"Malformed access token {TOKEN}"})
    async with client(api) as whatsapp:
        answer = await whatsapp.send(MESSAGE)
        await whatsapp.typing("wamid.IN1")
    assert answer.reason == "It says: Malformed access token ***"
    assert any("typing was not shown" in record.getMessage() for record in caplog.records)
    assert TOKEN not in caplog.text


async def test_what_can_t_be_right_never_leaves(api: Api) -> None:
    contents = (Choices("Which?", (Option("a", "x" * 30),)), Template("hello", parameters=("a\nb",)), Text("\ud800"))
    async with client(api) as whatsapp:
        for content in contents:
            answer = await whatsapp.send(Outgoing(Address("16505550100"), content, "v1:abc:1"))
            assert answer.verdict == "refused"
            assert answer.reason
    assert api.asked == []


async def test_typing_marks_as_read(api: Api) -> None:
    api.body = b'{"success": true}'
    async with client(api) as whatsapp:
        await whatsapp.typing("wamid.IN1")
    [(_, _, body)] = api.asked
    assert json.loads(body) == {
        "messaging_product": "whatsapp",
        "status": "read",
        "message_id": "wamid.IN1",
        "typing_indicator": {"type": "text"},
    }


async def test_one_connection_serves_many_messages(api: Api) -> None:
    async with client(api) as whatsapp:
        for _ in range(5):
            await whatsapp.send(MESSAGE)
    assert (len(api.asked), api.connections) == (5, 1)


async def test_there_are_at_most_so_many_connections_at_once(api: Api) -> None:
    async with client(api, connections=2) as whatsapp:
        answers = await asyncio.gather(*(whatsapp.send(MESSAGE) for _ in range(10)))
    assert {answer.verdict for answer in answers} == {"sent"}
    assert api.connections <= 2


async def test_a_proxy_that_refuses_has_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    whatsapp = number(url="https://graph.invalid")
    assert (await whatsapp.send(MESSAGE)).verdict == "retry"
    await whatsapp.close()


def test_every_event_loop_has_its_own_connections() -> None:
    answered = threading.Barrier(2)

    async def both(whatsapp: WhatsApp) -> list[str]:
        first = await whatsapp.send(MESSAGE)
        # Both loops have a connection now, and use it once more.
        await asyncio.to_thread(answered.wait, 20)
        second = await whatsapp.send(MESSAGE)
        await whatsapp.close()
        return [first.verdict, second.verdict]

    with served_by_a_thread() as url, ThreadPoolExecutor(2) as threads:
        whatsapp = number(url=url)
        found = [threads.submit(asyncio.run, both(whatsapp)) for _ in range(2)]
        assert [each.result() for each in found] == [["sent", "sent"]] * 2
        # A loop that ended is no obstacle to the next.
        assert asyncio.run(sends(whatsapp)) == "sent"


async def sends(whatsapp: WhatsApp) -> str:
    verdict = (await whatsapp.send(MESSAGE)).verdict
    await whatsapp.close()
    return verdict


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(Api.body)))
        self.end_headers()
        self.wfile.write(Api.body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def served_by_a_thread() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
