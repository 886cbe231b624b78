"""A deploy changes the function while people are in the middle of it: it goes on where it fits, else it is parked."""

from __future__ import annotations

import pytest

from oncue.conversation import Chat
from tests.conversation.engine_stage import Function, Talk, talk
from tests.databases import Backend


async def first(chat: Chat) -> None:
    level = await chat.ask("level", "Level?", choices=["new", "some"])
    await chat.ask("why", f"{level}, why?")
    await chat.ask("when", "When?")


async def other_texts(chat: Chat) -> None:
    await chat.ask("level", "Which level?", choices=["new", "some", "good"])
    await chat.ask("why", "But why?")
    await chat.ask("when", "When, then?")


async def answered_step_is_gone(chat: Chat) -> None:
    await chat.ask("why", "Why?")
    await chat.ask("when", "When, then?")


async def other_order(chat: Chat) -> None:
    why = await chat.ask("why", "Why?")
    level = await chat.ask("level", "Level?", choices=["new", "some"])
    await chat.ask("where", f"{level}, {why}, where?")


async def later_steps_are_others(chat: Chat) -> None:
    await chat.ask("level", "Level?", choices=["new", "some"])
    await chat.ask("why", "Why?")
    await chat.say("bye", "Bye")


async def open_step_is_renamed(chat: Chat) -> None:
    await chat.ask("level", "Level?", choices=["new", "some"])
    await chat.ask("reason", "Why?")


async def new_step_before_it(chat: Chat) -> None:
    await chat.ask("city", "Where?")
    await first(chat)


async def open_step_is_gone(chat: Chat) -> None:
    await chat.ask("level", "Level?", choices=["new", "some"])


async def choice_is_gone(chat: Chat) -> None:
    await chat.ask("level", "Level?", choices=["beginner", "some"])
    await chat.ask("why", "Why?")


async def choice_is_a_text(chat: Chat) -> None:
    await chat.ask("level", "Level?")
    await chat.ask("why", "Why?")


async def open_step_is_a_say(chat: Chat) -> None:
    await chat.ask("level", "Level?", choices=["new", "some"])
    await chat.say("why", "Why!")


async def _at_why(t: Talk) -> None:
    await t.write("start")
    await t.tap("new")
    assert t.shown == ["Level?", "new, why?"]


@pytest.mark.parametrize(
    ("changed", "then"),
    [
        (other_texts, "When, then?"),
        (answered_step_is_gone, "When, then?"),
        (other_order, "new, for work, where?"),
        (later_steps_are_others, "Bye"),
    ],
)
async def test_where_the_record_fits_it_goes_on(backend: Backend, changed: Function, then: str) -> None:
    async with talk(backend, first) as t:
        await _at_why(t)
        t.define(changed)
        await t.advance(60)
        assert len(t.shown) == 2, "the open question is not asked again"
        await t.write("for work")
        assert t.shown[2:] == [then]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            open_step_is_renamed,
            "The function comes to 'reason' now, but it waits at 'why', opened on 2030-01-01",
        ),
        (new_step_before_it, "The function comes to 'city' now, but it waits at 'why'"),
        (open_step_is_gone, "The function ends, but it waits at 'why'"),
        (choice_is_gone, "The answer to 'level' is none of its choices any more."),
        (choice_is_a_text, "The answer to 'level' was a choice; the function asks for a text now."),
        (open_step_is_a_say, "The step 'why' was recorded as 'ask'; the function has it as 'say' now."),
    ],
)
async def test_where_it_does_not_it_is_parked_with_what_to_do_and_goes_on_once_that_is_done(
    backend: Backend, changed: Function, why: str
) -> None:
    async with talk(backend, first) as t:
        await _at_why(t)
        t.define(changed)
        await t.write("for work")
        chat = await t.chat()
        assert (chat.state, chat.step) == ("parked", "why")
        assert chat.reason is not None
        assert chat.reason.startswith(why)
        assert "Deploy a function that fits the record, then resume it; or restart it" in chat.reason
        await t.write("and for fun")
        assert len(t.shown) == 2
        t.define(first)
        await t.conversations.resume(chat.id)
        await t.drain()
        assert t.shown[2:] == ["When?"]
        assert (await t.values())["why"] == "for work\nand for fun"


async def test_one_that_is_not_declared_any_more_is_parked(backend: Backend) -> None:
    async with talk(backend, first) as t:
        await _at_why(t)
        t.app.conversations.pop("trial")
        await t.write("for work")
        for _ in range(8):
            await t.advance(600)
        chat = await t.chat()
        assert chat.state == "parked"
        assert chat.reason is not None
        assert "No conversation 'trial' is declared here" in chat.reason
        t.define(first)
        assert await t.conversations.restart(chat.id) == chat.id + 1
        await t.drain()
        assert t.shown[2:] == ["Level?"]
