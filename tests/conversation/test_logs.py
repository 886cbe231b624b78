"""What is logged names nobody, quotes nobody, and gives no secret away."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from oncue import OnCue
from oncue.conversation import ChannelOptions, Chat, Keyword
from oncue.transport import Address, Answer, Batch, Inbound, Outgoing, Status
from oncue.web import webhook_app
from oncue.whatsapp import WhatsApp
from oncue.whatsapp import simulator as sim
from tests.conversation.engine_stage import ADA, Talk, talk
from tests.databases import Backend

ANA = "4915700000001"
SECRETS = ("token-of-the-test", "secret-of-the-test", "verify-of-the-test")
SAID = ("my name is Zebulon", "I am from Ouagadougou", "how old are you, Zebulon")


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All that a handler would write, tracebacks too."""
    shown = logging.Formatter("%(name)s %(levelname)s %(message)s")
    return "\n".join(shown.format(record) for record in caplog.records)


def silent_of(text: str, *words: str) -> None:
    for word in words:
        hidden = base64.b64encode(word.encode()).decode().rstrip("=")[:-1]
        for form in (word, word.lower(), hidden):
            lines = [line for line in text.splitlines() if form in line]
            assert not lines, (form, lines[:3])


async def test_a_conversation_by_http_tells_no_number_no_word_and_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token, secret, verify = SECRETS
    ana = sim.Person(ANA, "Ana Zebulon")
    config = sim.Config(token=token, app_secret=secret, delays=sim.Delays.none(), people=(ana,))
    phones, number = sim.create(config), config.number
    ended = asyncio.Event()
    app = OnCue(f"sqlite:///{tmp_path}/jobs.db")
    async with sim.serving(phones) as url:
        whatsapp = WhatsApp(token, number, secret, verify, url=url)

        @app.conversation("trial", channel=whatsapp, start=Keyword("start"))
        async def trial(chat: Chat) -> None:
            await chat.ask("name", "Hi! What shall I call you?", delay=0.6)
            await chat.ask("age", SAID[2], choices=["ten", "twenty"])
            await chat.do("end", ended.set)

        async def shown(count: int) -> None:
            messages = phones.simulator.phone(ANA).messages
            for _ in range(2000):
                if sum(one.kind != "received" for one in messages.values()) >= count:
                    return
                await asyncio.sleep(0.01)

        async with app.worker():
            hook = webhook_app(app)
            await phones.simulator.webhooks.subscribe("http://bot/webhooks/whatsapp", verify, hook)
            # What the simulator asks in the handshake is its own.
            caplog.set_level(logging.DEBUG)
            phones.simulator.say(ANA, "start")
            await shown(1)
            phones.simulator.say(ANA, SAID[0])
            await shown(2)
            phones.simulator.tap(ANA, "ten")
            await ended.wait()
        await whatsapp.close()
    text = logged(caplog)
    assert "HTTP Request: POST" in text
    silent_of(text, ANA, *SECRETS, *SAID, "Zebulon")


async def breaks(chat: Chat) -> None:
    name = await chat.ask("name", SAID[2])
    raise KeyError(name)


async def changes(chat: Chat) -> None:
    name = await chat.ask("name", "Hi! What shall I call you?")
    await chat.ask("place", f"Hi {name}", choices=Choosing.of(), check=None)
    await chat.ask("age", SAID[2])


class Choosing:
    now: tuple[str, ...] = (SAID[1], "elsewhere")

    @classmethod
    def of(cls) -> Sequence[str]:
        return cls.now


async def _unread(t: Talk) -> None:
    await t.post(Batch(unread=[f"message: {ADA} wrote {SAID[0]!r}"]))


async def _status(t: Talk) -> None:
    def status(_status: Status, _now: int) -> None:
        raise LookupError(f"no {_status.external_id}")

    t.channel.outbox.settle.status = status  # type: ignore[assignment,method-assign]
    await t.post(Batch(statuses=[Status(f"{ADA}:17", "read", t.now)]))
    await t.drain()


async def _transport(t: Talk) -> None:
    async def raises(message: Outgoing) -> Answer:
        raise OSError(f"{message.content} could not be sent to {message.to}")

    t.define(breaks)
    t.wire.answers = [raises]
    await t.write("start")
    await t.drain()


async def _function(t: Talk) -> None:
    t.define(breaks)
    await t.write("start")
    await t.write(SAID[0])
    for _ in range(8):
        await t.advance(600)
    assert (await t.chat()).state == "parked"


async def _choice(t: Talk) -> None:
    t.define(changes)
    await t.write("start")
    await t.write(SAID[0])
    await t.tap(SAID[1])
    Choosing.now = ("here", "there")
    try:
        await t.write("I am old")
    finally:
        Choosing.now = (SAID[1], "elsewhere")
    for _ in range(8):
        await t.advance(600)
    assert (await t.chat()).state == "parked"


async def _refused(t: Talk) -> None:
    t.wire.genuine = lambda headers, raw: False  # type: ignore[method-assign]
    one = Inbound("in9", Address(ADA), t.now, "text", SAID[0])
    with pytest.raises(AssertionError):
        await t.post(Batch([one]))


@pytest.mark.parametrize("trouble", [_unread, _status, _transport, _function, _choice, _refused])
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_trouble_is_told_without_anybodys_words_or_number(
    backend: Backend, caplog: pytest.LogCaptureFixture, trouble: Callable[[Talk], object]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with talk(backend) as t:
        found = trouble(t)
        assert asyncio.iscoroutine(found)
        await found
    text = logged(caplog)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING], text
    silent_of(text, ADA, *SAID, "Zebulon", "Ouagadougou")


def test_options_name_no_secret() -> None:
    whatsapp = WhatsApp(SECRETS[0], "1", SECRETS[1], SECRETS[2], url="http://127.0.0.1:9")
    silent_of(f"{whatsapp!r} {whatsapp._options!r} {ChannelOptions()!r}", *SECRETS)
