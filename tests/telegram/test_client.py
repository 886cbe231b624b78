"""What is sent, and what is made of every answer and of every silence."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oncue.errors import ConfigError, InvalidJob, OnCueError
from oncue.telegram import Telegram
from oncue.transport import Address, Choices, Content, Option, Outgoing, Replies, Template, Text, Transport, Verdict
from tests.pgprocess import free_port
from tests.telegram.standin import SECRET, TOKEN, Fault, Standin

ADA = 42


def to(chat: int, content: Content) -> Outgoing:
    return Outgoing(Address(str(chat)), content, "v1:abc:1")


def test_it_is_a_transport() -> None:
    transport: Transport = Telegram(TOKEN, SECRET)
    assert transport.name == "telegram"
    assert transport.throughput == 30
    assert not transport.capabilities.statuses
    assert isinstance(transport, Replies)


async def test_a_text_arrives_and_is_named_by_chat_and_number(standin: Standin, telegram: Telegram) -> None:
    standin.person(ADA)
    standin.person(43)
    first = await telegram.send(to(ADA, Text("<b>Hi</b> & *hello* 🙂")))
    other = await telegram.send(to(43, Text("Hi")))
    assert (first.verdict, first.external_id) == ("sent", "42:1")
    assert other.external_id == "43:1"  # the same number in another chat
    assert [seen.text for seen in standin.seen_by(ADA)] == ["<b>Hi</b> & *hello* 🙂"]


async def test_choices_are_buttons_of_the_message(standin: Standin, telegram: Telegram) -> None:
    standin.person(ADA)
    offered = Choices("How good?", (Option("r:1", "New"), Option("r:2", "Some", "can order coffee")))
    assert (await telegram.send(to(ADA, offered))).verdict == "sent"
    [seen] = standin.ledger
    assert seen.buttons == (("New", "r:1"), ("Some", "r:2"))
    assert seen.text == "How good?\n\nSome: can order coffee"


@pytest.mark.parametrize(
    ("fault", "verdict", "arrived"),
    [
        ("reset", "unknown", 0),
        ("accept_reset", "unknown", 1),
        ("accept_500", "unknown", 1),
        ("accept_502", "unknown", 1),
        ("accept_truncated", "unknown", 1),
        ("accept_nameless", "unknown", 1),
        ("401", "stop_channel", 0),
        ("403", "stop_person", 0),
        ("404_page", "stop_channel", 0),
        ("redirect", "unknown", 0),
        ("429", "wait_channel", 0),
        ("429_page", "wait_channel", 0),
    ],
)
async def test_each_failure_has_its_verdict(
    standin: Standin, telegram: Telegram, fault: Fault, verdict: Verdict, arrived: int
) -> None:
    standin.person(ADA)
    standin.fault(fault)
    answer = await telegram.send(to(ADA, Text("Hi")))
    assert answer.verdict == verdict
    assert answer.reason
    assert answer.external_id is None
    assert len(standin.ledger) == arrived
    # The next one isn't spoilt by it.
    assert (await telegram.send(to(ADA, Text("Hi again")))).verdict == "sent"


async def test_too_fast_tells_how_long_to_wait(standin: Standin, telegram: Telegram) -> None:
    standin.person(ADA)
    standin.retry_after = 17
    standin.fault("429")
    answer = await telegram.send(to(ADA, Text("Hi")))
    assert (answer.code, answer.after) == (429, 17)


async def test_silence_after_the_request_is_unknown(standin: Standin) -> None:
    standin.person(ADA)
    standin.fault("accept_hang")
    telegram = Telegram(TOKEN, SECRET, url=standin.url, timeout=0.2)
    answer = await telegram.send(to(ADA, Text("Hi")))
    assert answer.verdict == "unknown"
    assert "ReadTimeout" in answer.reason
    assert len(standin.ledger) == 1
    await telegram.close()


async def test_an_answer_that_trickles_in_for_ever_is_unknown(standin: Standin) -> None:
    standin.person(ADA)
    standin.fault("accept_trickle")
    telegram = Telegram(TOKEN, SECRET, url=standin.url, timeout=0.2)
    answer = await telegram.send(to(ADA, Text("Hi")))
    assert (answer.verdict, answer.reason) == ("unknown", "TimeoutError")
    assert len(standin.ledger) == 1
    await telegram.close()


def test_each_event_loop_has_connections_of_its_own() -> None:
    telegram = Telegram(TOKEN, SECRET, url=f"http://127.0.0.1:{free_port()}")

    async def once() -> Verdict:
        try:
            return (await telegram.send(to(ADA, Text("Hi")))).verdict
        finally:
            await telegram.close()

    assert [asyncio.run(once()) for _ in range(2)] == ["retry", "retry"]


async def test_nobody_listening_is_certainly_not_sent() -> None:
    telegram = Telegram(TOKEN, SECRET, url=f"http://127.0.0.1:{free_port()}")
    answer = await telegram.send(to(ADA, Text("Hi")))
    assert answer.verdict == "retry"
    assert "ConnectError" in answer.reason
    await telegram.close()


async def test_a_wrong_token_stops_the_channel(standin: Standin) -> None:
    telegram = Telegram("123456:other", SECRET, url=standin.url)
    answer = await telegram.send(to(ADA, Text("Hi")))
    assert (answer.verdict, answer.code) == ("stop_channel", 401)
    await telegram.close()


async def test_who_blocks_the_bot_or_never_started_it_stops_that_person(standin: Standin, telegram: Telegram) -> None:
    standin.person(ADA).blocked = True
    blocked = await telegram.send(to(ADA, Text("Hi")))
    never = await telegram.send(to(99, Text("Hi")))
    assert (blocked.verdict, blocked.code) == ("stop_person", 403)
    assert (never.verdict, never.code) == ("stop_person", 400)


async def test_what_is_just_within_the_limits_is_sent_and_what_is_beyond_never_leaves(
    standin: Standin, telegram: Telegram
) -> None:
    standin.person(ADA)
    longest = 64 * "x"
    good: list[Content] = [
        Text("x" * 4096),
        Text("🙂" * 2048),
        Choices("Which?", (Option(longest, "One"), Option("é" * 32, "Two"))),
        Choices("Which?", tuple(Option(str(n), str(n)) for n in range(100))),
    ]
    for content in good:
        telegram.check(content)
        assert (await telegram.send(to(ADA, content))).verdict == "sent"
    bad: list[Content] = [
        Text("x" * 4097),
        Text("🙂" * 2049),
        Text("half: \ud83d"),
        Template("hello"),
        Choices("Which?", (Option(longest + "x", "One"),)),
        Choices("Which?", (Option("é" * 33, "One"),)),
    ]
    for content in bad:
        answer = await telegram.send(to(ADA, content))
        assert (answer.verdict, answer.code) == ("refused", None), content
    assert len(standin.calls) == len(good)


@pytest.mark.parametrize(
    "content",
    [
        Template("hello"),
        Text(" \n"),
        Text("x" * 4097),
        Text("🙂" * 2049),
        Text("half: \ud83d"),
        Choices("", (Option("1", "One"),)),
        Choices("Which?", (Option("x" * 65, "One"),)),
        Choices("Which?", (Option("é" * 33, "One"),)),
        Choices("Which?", tuple(Option(str(n), str(n)) for n in range(101))),
        Choices("Which?", ()),
        Choices("Which?", (Option("", "One"),)),
        Choices("Which?", (Option("1", " "),)),
        Choices("Which?", (Option("1", "One"), Option("1", "Two"))),
        Choices("x" * 4000, (Option("1", "One", "y" * 100),)),
    ],
)
def test_check_refuses_what_can_never_be_right(content: Content) -> None:
    with pytest.raises(InvalidJob):
        Telegram(TOKEN, SECRET).check(content)


async def test_who_is_known_by_no_chat_cannot_be_written_to(standin: Standin, telegram: Telegram) -> None:
    nowhere = Outgoing(Address(user_id="42"), Text("Hi"), "v1:abc:1")
    assert (await telegram.send(nowhere)).verdict == "refused"
    assert not standin.calls


async def test_typing_is_shown_in_the_chat_of_the_message(standin: Standin, telegram: Telegram) -> None:
    standin.person(ADA)
    await telegram.typing("42:7")
    await telegram.typing("42:tap:9000")
    assert [call.parameters for call in standin.calls] == [{"chat_id": "42", "action": "typing"}] * 2


async def test_typing_that_fails_does_not_matter(standin: Standin, telegram: Telegram) -> None:
    standin.person(ADA).blocked = True
    await telegram.typing("42:7")
    away = Telegram(TOKEN, SECRET, url=f"http://127.0.0.1:{free_port()}")
    await away.typing("42:7")
    await away.close()


async def test_the_webhook_is_set_with_the_secret_and_what_we_understand(standin: Standin, telegram: Telegram) -> None:
    await telegram.set_webhook("https://bot.example/webhooks/telegram")
    assert standin.webhook == {
        "url": "https://bot.example/webhooks/telegram",
        "secret_token": SECRET,
        "allowed_updates": ["message", "edited_message", "callback_query", "my_chat_member"],
    }
    wrong = Telegram("123456:other", SECRET, url=standin.url)
    with pytest.raises(OnCueError, match="401 .*Unauthorized"):
        await wrong.set_webhook("https://bot.example/")
    away = Telegram(TOKEN, SECRET, url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(OnCueError, match="ConnectError"):
        await away.set_webhook("https://bot.example/")
    await wrong.close()
    await away.close()


async def test_only_updates_with_the_secret_are_genuine(standin: Standin, telegram: Telegram) -> None:
    header = "x-telegram-bot-api-secret-token"
    assert telegram.genuine({header: SECRET}, b"{}")
    for headers in ({}, {header: ""}, {header: SECRET + "x"}, {header: "é\udcff"}, {"x-secret": SECRET}):
        assert not telegram.genuine(headers, b"{}")
    assert telegram.handshake({"hub.mode": "subscribe", "hub.challenge": "1"}) is None


async def test_a_tap_is_answered_in_the_reply_to_its_update(standin: Standin, telegram: Telegram) -> None:
    ada = standin.person(ADA)
    await telegram.send(to(ADA, Choices("Which?", (Option("r:1", "One"),))))

    async def take(request: Request) -> Response:
        return Response(telegram.reply(await request.body()), media_type="application/json")

    app = Starlette(routes=[Route("/webhooks/telegram", take, methods=["POST"])])
    standin.app, standin.webhook = app, {"url": "http://app/webhooks/telegram"}
    raw = ada.tap(standin.ledger[0], "One")
    [tap] = ada.waiting
    await standin.deliver(raw)
    assert standin.answered == [tap]
    assert not ada.waiting
    assert telegram.reply(ada.text("Hi")) == b""


async def test_the_token_is_in_no_log_and_no_reason(
    standin: Standin, telegram: Telegram, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    standin.person(ADA)
    standin.fault("accept_reset")
    answers = [await telegram.send(to(ADA, Text(text))) for text in "ab"]
    assert any("<token>" in record.getMessage() for record in caplog.records if record.name == "httpx")
    assert not any(TOKEN in record.getMessage() for record in caplog.records)
    assert not any(TOKEN in answer.reason for answer in answers)
    assert TOKEN not in repr(telegram)
    assert SECRET not in repr(telegram)


async def test_it_can_be_used_again_after_close(standin: Standin, telegram: Telegram) -> None:
    standin.person(ADA)
    await telegram.close()
    assert (await telegram.send(to(ADA, Text("Hi")))).verdict == "sent"
    await telegram.close()
    await telegram.close()
    assert not logging.getLogger("httpx").filters


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
    monkeypatch.setenv("TELEGRAM_SECRET", SECRET)
    monkeypatch.setenv("TELEGRAM_URL", "http://127.0.0.1:8081/")
    assert repr(Telegram(name="bot")) == "Telegram(name='bot', url='http://127.0.0.1:8081')"
    assert Telegram().genuine({"x-telegram-bot-api-secret-token": SECRET}, b"")


@pytest.mark.parametrize(
    ("token", "secret", "url", "names"),
    [
        (None, SECRET, None, "TELEGRAM_TOKEN isn't set"),
        (TOKEN, None, None, "TELEGRAM_SECRET isn't set"),
        ("987654", SECRET, None, "TELEGRAM_TOKEN is no"),
        ("123456:a/../b", SECRET, None, "TELEGRAM_TOKEN is no"),
        (TOKEN, "with space", None, "TELEGRAM_SECRET has"),
        (TOKEN, "x" * 257, None, "TELEGRAM_SECRET has"),
        (TOKEN, SECRET, "api.telegram.org", "TELEGRAM_URL"),
        (TOKEN, SECRET, "ftp://host", "TELEGRAM_URL"),
        (TOKEN, SECRET, "http://host:99999", "TELEGRAM_URL"),
        (TOKEN, SECRET, "http://[", "TELEGRAM_URL"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(
    token: str | None, secret: str | None, url: str | None, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TELEGRAM_TOKEN", "TELEGRAM_SECRET", "TELEGRAM_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=names) as error:
        Telegram(token, secret, url=url)
    assert not (token and token in str(error.value))


@pytest.mark.parametrize("wrong", [{"throughput": 0}, {"timeout": -1.0}])
def test_numbers_that_cannot_be_are_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        Telegram(TOKEN, SECRET, **wrong)


def test_without_httpx_it_says_what_to_install() -> None:
    program = (
        "import asyncio, sys; sys.modules['httpx'] = None\n"
        "from oncue.telegram import Telegram\n"
        "from oncue.transport import *\n"
        f"telegram = Telegram({TOKEN!r}, {SECRET!r})\n"
        "asyncio.run(telegram.send(Outgoing(Address('42'), Text('Hi'), 'v1:a:1')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "ConfigError: Telegram needs one more package" in done.stderr
    assert "pip install 'oncue[telegram]'" in done.stderr
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert any(wanted.startswith("httpx") for wanted in project["optional-dependencies"]["telegram"])


async def test_the_stand_in_refuses_what_is_no_method(standin: Standin) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.post(f"{standin.url}/bot{TOKEN}/sendNothing", json={})
    assert response.status_code == 404
    assert json.loads(response.content)["ok"] is False
