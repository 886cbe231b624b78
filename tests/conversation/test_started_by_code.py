"""Conversations that code starts, and people who answer under another name than the one they were written to."""

from __future__ import annotations

import pytest

from oncue.conversation import Chat
from oncue.transport import Address, Answer, Batch, Inbound
from tests.conversation.engine_stage import ADA, Wire, talk
from tests.databases import Backend


async def test_code_starts_a_conversation(backend: Backend) -> None:
    async def one(chat: Chat) -> None:
        assert chat.person.address == ADA
        await chat.ask("a", f"{chat.person.name}, A?")

    async with talk(backend, one, wire=Wire(window=None)) as t:
        id = await t.app.conversations["trial"].start(ADA, name="Ada", timezone="Europe/Berlin")
        await t.drain()
        assert t.shown == ["Ada, A?"]
        assert (await t.chat()).id == id
        assert (await t.person()).timezone == "Europe/Berlin"
        with pytest.raises(ValueError, match="in a conversation already: 'trial'"):
            await t.app.conversations["trial"].start(ADA)


@pytest.mark.parametrize(
    ("calls", "writes"),
    [
        (Address("525512345678", "MX.1"), Address(None, "MX.1")),
        (Address("5215512345678"), Address("5215512345678", "MX.1")),
        (Address(None, "MX.1"), Address("525512345678", "MX.1")),
        (Address("525512345678"), Address("525512345678")),
    ],
)
async def test_who_answers_under_another_name_is_the_one_who_was_asked(
    backend: Backend, calls: Address, writes: Address
) -> None:
    """The messenger's answer tells what it calls whom it wrote to; an update may have only that."""

    async def one(chat: Chat) -> None:
        await chat.ask("a", "A?")

    async with talk(backend, one, wire=Wire(window=None)) as t:
        await t.app.conversations["trial"].start("525512345678")
        t.wire.answers = [Answer("sent", "w1", to=calls)]
        await t.advance(1)
        assert (await t.person(calls.address or calls.user_id or "")).heard_at is None
        await t.post(Batch([Inbound("in1", writes, t.now, "text", "yes")]))
        await t.drain()
        assert await t.values() == {"a": "yes"}
        assert (await t.state())[0] == "done"


async def test_what_the_messenger_calls_somebody_else_stays_theirs(backend: Backend) -> None:
    async def one(chat: Chat) -> None:
        await chat.ask("a", "A?")

    async with talk(backend, one, wire=Wire(window=None)) as t:
        await t.post(Batch([Inbound("in1", Address(None, "MX.1"), t.now, "text", "hi")]))
        await t.drain()
        await t.app.conversations["trial"].start("525512345678")
        t.wire.answers = [Answer("sent", "w1", to=Address("525512345678", "MX.1"))]
        await t.advance(1)
        known = [await t.person("525512345678"), await t.person("MX.1")]
        assert [(one.address, one.user_id) for one in known] == [("525512345678", None), (None, "MX.1")]


async def test_a_start_in_a_transaction_that_is_rolled_back_did_not_happen(backend: Backend) -> None:
    async def one(chat: Chat) -> None:
        await chat.ask("a", "A?")

    async with talk(backend, one, wire=Wire(window=None)) as t:
        with backend.connect() as conn:
            await t.app.conversations["trial"].start("1", connection=conn)
            conn.rollback()
            await t.app.conversations["trial"].start("2", connection=conn)
            conn.commit()
        await t.drain()
        assert [sent.to.address for sent in t.wire.sent] == ["2"]
