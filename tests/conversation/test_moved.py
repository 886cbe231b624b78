"""Somebody has another number from now on: their conversation goes with them, and the old number gets nothing more."""

from __future__ import annotations

import pytest

from oncue.clock import SECOND
from oncue.conversation import Chat
from oncue.store.chats import PersonRow
from oncue.store.steps import files
from oncue.transport import Address, Batch
from tests.conversation.engine_stage import ADA, Talk, talk
from tests.databases import Backend

NEW = "16505550199"


async def trial(chat: Chat) -> None:
    name = await chat.ask("name", "What shall I call you?")
    await chat.ask("age", f"How old are you, {name}?")


async def moves(t: Talk, to: Address, *, times: int = 1, ago: float = 0) -> None:
    """The messenger tells that Ada is somewhere else."""
    sent_at = t.now - round(ago * SECOND)
    told = t.inbound("", kind="system", moved_to=to, sent_at=sent_at)
    for _ in range(times):
        await t.post(Batch([told]))
        await t.drain()


async def known(t: Talk, name: str) -> list[PersonRow]:
    return await t.app.store.look(lambda: files.people(name, None))


@pytest.mark.parametrize("to", [Address(NEW), Address(NEW, "US.2"), Address(None, "US.2")], ids=str)
async def test_their_conversation_goes_on_under_the_new_names(backend: Backend, to: Address) -> None:
    async with talk(backend, trial) as t:
        await t.write("start")
        await moves(t, to, times=2)
        assert await known(t, ADA) == []
        answer = t.inbound("Ada", sender=to)
        await t.post(Batch([answer]))
        await t.drain()
        assert t.shown == ["What shall I call you?", "How old are you, Ada?"]
        assert t.wire.sent[-1].to == to
        assert len(await t.conversations.list()) == 1


async def test_who_wrote_from_the_new_number_before_is_one_person_with_one_conversation(backend: Backend) -> None:
    async with talk(backend, trial) as t:
        await t.write("start")
        await t.advance(10)
        await t.write("hello from my new phone", address=NEW)
        await moves(t, Address(NEW, "US.2"), ago=5)
        (one,) = await known(t, NEW)
        assert (await known(t, ADA), one.user_id) == ([], "US.2")
        await t.write("Ada", address=NEW)
        assert t.shown[-1] == "How old are you, Ada?"


async def test_that_opens_no_window_and_answers_nothing(backend: Backend) -> None:
    async with talk(backend, trial) as t:
        await t.write("start")
        heard_at = (await t.person()).heard_at
        await t.advance(3600)
        await moves(t, Address(NEW))
        (one,) = await known(t, NEW)
        assert one.heard_at == heard_at
        assert await t.state() == ("active", "name")


async def test_who_wrote_under_the_old_name_since_then_keeps_it(backend: Backend) -> None:
    async with talk(backend, trial) as t:
        await t.advance(60)
        await t.write("start")
        await moves(t, Address(NEW), ago=30)
        assert await known(t, NEW) == []
        assert [one.address for one in await known(t, ADA)] == [ADA]


async def test_new_names_of_two_other_people_move_nobody(backend: Backend) -> None:
    async with talk(backend, trial) as t:
        await t.write("start")
        await t.write("hi", address=NEW)
        await t.post(Batch([t.inbound("hi", sender=Address("16505550177", "US.2"))]))
        await t.drain()
        await moves(t, Address(NEW, "US.2"))
        assert [one.address for one in await known(t, ADA)] == [ADA]
        assert len(await known(t, NEW)) == len(await known(t, "US.2")) == 1
