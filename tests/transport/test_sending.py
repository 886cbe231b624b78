"""What is sent arrives as it was meant, and what can't be sent is told beforehand."""

from __future__ import annotations

import logging

import pytest

from oncue.errors import InvalidJob
from oncue.transport import Address, Addresses, Choices, Content, Option, Outgoing, Text, Transport
from oncue.whatsapp import WhatsApp
from tests.transport.front import Front
from tests.transport.kinds import Kind


def options(count: int) -> tuple[Option, ...]:
    return tuple(Option(f"ref:{number}", f"Answer {number}") for number in range(count))


async def sent(kind: Kind, transport: Transport, content: Content, echo: str = "v1:abc:1") -> str:
    """Send to the person; the messenger must take it."""
    transport.check(content)
    answer = await transport.send(Outgoing(kind.person, content, echo))
    assert answer.verdict == "sent", answer
    assert answer.external_id
    assert answer.to is None or answer.to.address == kind.person.address, "what it calls the person"
    assert (answer.to is not None) == isinstance(transport, WhatsApp)
    return answer.external_id


async def test_texts_arrive_as_they_are_and_in_order(kind: Kind, transport: Transport) -> None:
    longest = "ä" * transport.capabilities.text_length
    texts = ['Hi! 👋 <b>not bold</b> *nor* "this" \\n', "Two\nlines", longest]
    names = [await sent(kind, transport, Text(text)) for text in texts]
    assert [seen.text for seen in kind.seen()] == texts
    assert [seen.external_id for seen in kind.seen()] == names
    assert len(set(names)) == len(names)


def test_an_address_of_its_own_is_one_however_it_is_written(kind: Kind, transport: Transport) -> None:
    assert isinstance(transport, Addresses)
    assert kind.person.address is not None
    for written in (kind.person.address, f" {kind.person.address}\n"):
        assert transport.address(written) == Address(kind.person.address)
    for wrong in ("", "nobody", "+", "1" * 40, "1\0"):
        with pytest.raises(InvalidJob):
            transport.address(wrong)


async def test_choices_can_be_tapped_by_their_ids(kind: Kind, transport: Transport) -> None:
    most = transport.capabilities.buttons + transport.capabilities.rows
    for count in sorted({1, min(transport.capabilities.buttons, 10), min(most, 10)}):
        await sent(kind, transport, Choices("Which one?", options(count)))
        seen = kind.seen()[-1]
        assert seen.text == "Which one?"
        assert seen.options == tuple((option.id, option.title) for option in options(count))


async def test_templates_arrive_filled(kind: Kind, transport: Transport) -> None:
    if not transport.capabilities.templates:
        assert kind.template is None
        return
    assert kind.template is not None
    await sent(kind, transport, kind.template)
    assert all(parameter in kind.seen()[-1].text for parameter in kind.template.parameters)


async def test_what_is_beyond_the_limits_is_refused_and_never_sent(
    kind: Kind, transport: Transport, front: Front
) -> None:
    most = max(transport.capabilities.buttons, transport.capabilities.rows)
    contents: list[Content] = [
        Text("x" * (transport.capabilities.text_length + 1)),
        Text(""),
        Text(" \n"),
        Choices("Which?", ()),
        Choices("Which?", options(most + 1)),
        Choices("", options(1)),
        *kind.refused,
    ]
    for content in contents:
        with pytest.raises(InvalidJob):
            transport.check(content)
        answer = await transport.send(Outgoing(kind.person, content, "v1:abc:1"))
        assert (answer.verdict, answer.external_id) == ("refused", None)
        assert answer.reason
    assert kind.seen() == []
    assert front.requests == 0


async def test_nobody_is_no_recipient(transport: Transport, front: Front) -> None:
    answer = await transport.send(Outgoing(Address(), Text("Hi"), "v1:abc:1"))
    assert answer.verdict == "refused"
    assert front.requests == 0


async def test_statuses_tell_of_a_message_and_carry_its_echo(kind: Kind, transport: Transport) -> None:
    if not transport.capabilities.statuses:
        return
    name = await sent(kind, transport, Text("Hi"), "v1:0123456789abcdef:3")
    told = [status for update in await kind.statuses(name) for status in transport.read(update.raw).statuses]
    assert {status.external_id for status in told} == {name}
    assert "delivered" in {status.status for status in told}
    if transport.capabilities.echo:
        assert {status.echo for status in told} == {"v1:0123456789abcdef:3"}


async def test_closing_ends_every_connection_and_sending_opens_them_again(
    kind: Kind, transport: Transport, front: Front
) -> None:
    await transport.close()
    await sent(kind, transport, Text("one"))
    await transport.close()
    await front.quiet()
    await transport.close()
    await sent(kind, transport, Text("two"))
    assert [seen.text for seen in kind.seen()] == ["one", "two"]


async def test_nothing_secret_is_shown_or_logged(
    kind: Kind, transport: Transport, front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await sent(kind, transport, Text("Hi"))
    said = [repr(transport), str(transport)]
    for fault in ("bare_500", "reset_after", "refused"):
        await front.meet(fault)
        said.append(repr(await transport.send(Outgoing(kind.person, Text("Hi"), "v1:abc:1"))))
        await transport.typing("any:1")
    said += [record.getMessage() for record in caplog.records]
    assert said
    assert not [text for text in said for secret in kind.secrets if secret in text]
