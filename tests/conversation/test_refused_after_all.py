"""A message is taken, and then a status says that it was refused: what becomes of whole conversations."""

from __future__ import annotations

from typing import Any

import pytest

from oncue.conversation import Chat, Remind, hours
from oncue.transport import Batch, Status, Template
from tests.conversation.engine_stage import Talk, talk
from tests.databases import Backend

PAIR: dict[str, Any] = {"code": 131056, "reason": "pair limit", "verdict": "wait_person"}
SHUT: dict[str, Any] = {"code": 131047, "reason": "window", "verdict": "use_template"}
LATER = Template("later")


async def says(chat: Chat) -> None:
    await chat.say("last", "Good-bye", template=LATER)


async def says_and_asks(chat: Chat) -> None:
    await chat.say("first", "Hello", template=LATER)
    await chat.ask("name", "Who are you?", delay=60)


async def asks(chat: Chat) -> None:
    await chat.ask("name", "Who are you?", remind=[Remind(after=hours(2))])


async def fails(t: Talk, number: int, **failure: Any) -> None:
    await t.post(Batch([], [Status(f"w{number}", "failed", t.now, t.wire.sent[number - 1].echo, **failure)]))
    await t.drain()


@pytest.mark.parametrize(("failure", "again"), [(PAIR, "Good-bye"), (SHUT, "later")], ids=["pair", "window"])
async def test_the_last_word_goes_out_after_all(backend: Backend, failure: dict[str, Any], again: str) -> None:
    async with talk(backend, says) as t:
        await t.write("start")
        assert await t.state() == ("done", None)
        await fails(t, 1, **failure)
        await t.advance(30)
        assert t.shown == ["Good-bye", again]
        assert [one.state for one in await t.messages("say")] == ["accepted"]


async def test_what_comes_after_it_waits_for_it(backend: Backend) -> None:
    async with talk(backend, says_and_asks) as t:
        await t.write("start")
        await t.advance(59)
        await fails(t, 1, **PAIR)
        await t.advance(120)
        assert t.shown == ["Hello", "Hello", "Who are you?"]


async def test_where_the_next_has_gone_out_it_failed(backend: Backend) -> None:
    async with talk(backend, says_and_asks) as t:
        await t.write("start")
        await t.advance(61)
        await fails(t, 1, **PAIR)
        await t.advance(600)
        assert t.shown == ["Hello", "Who are you?"]
        assert [one.state for one in await t.messages("say")] == ["rejected"]
        assert await t.state() == ("active", "name")


async def test_who_left_meanwhile_gets_nothing(backend: Backend) -> None:
    async with talk(backend, says) as t:
        await t.write("start")
        await t.write("stop")
        await fails(t, 1, **PAIR)
        await t.advance(600)
        assert t.shown == ["Good-bye"]


async def test_reminders_count_from_when_the_question_was_really_sent(backend: Backend) -> None:
    async with talk(backend, asks) as t:
        await t.write("start")
        await t.advance(3600)
        await fails(t, 1, code=131042, reason="unpaid", verdict="stop_channel")
        await t.advance(3600 * 3)
        assert t.shown == ["Who are you?"]
        await t.app.store.change(lambda: t.channel.outbox.resume(t.now), t.now)
        await t.advance(3600)
        assert t.shown == ["Who are you?"] * 2
        await t.advance(3601)
        assert t.shown == ["Who are you?"] * 3
        await t.advance(3600 * 5)
        assert t.shown == ["Who are you?"] * 3
