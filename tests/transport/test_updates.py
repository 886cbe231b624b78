"""What a messenger tells is understood, proved genuine, and never more than it is."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from oncue.transport import Batch, Choices, Option, Outgoing, Transport
from tests.transport.kinds import Kind, Update

EARLIEST = 1_600_000_000_000_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


async def test_a_text(kind: Kind, transport: Transport) -> None:
    written = 'Größe 👍\n"two" lines'
    update = await kind.write(written)
    assert transport.genuine(update.headers, update.raw)
    batch = transport.read(update.raw)
    [inbound] = batch.inbound
    assert (inbound.kind, inbound.text, inbound.choice) == ("text", written, None)
    assert inbound.sender.address == kind.person.address
    assert inbound.external_id
    assert inbound.sent_at > EARLIEST
    assert inbound.raw
    assert (batch.statuses, batch.unread) == ([], [])
    assert transport.read(update.raw) == batch


async def test_what_was_tapped_names_the_option_and_its_message(kind: Kind, transport: Transport) -> None:
    choices = Choices("Which one?", (Option("ref:1", "One"), Option("ref:2", "Two")))
    answer = await transport.send(Outgoing(kind.person, choices, "v1:abc:1"))
    [inbound] = transport.read((await kind.tap("Two")).raw).inbound
    assert (inbound.kind, inbound.text, inbound.choice) == ("choice", "Two", "ref:2")
    assert inbound.replies_to == answer.external_id


async def test_what_is_neither_text_nor_tapped_is_kept_and_is_no_text(kind: Kind, transport: Transport) -> None:
    updates = await kind.others()
    found = [inbound for update in updates for inbound in transport.read(update.raw).inbound]
    assert len(found) == len(updates)
    assert all(inbound.kind not in ("text", "choice") and not inbound.text for inbound in found)
    assert {inbound.sender.address for inbound in found} == {kind.person.address}


async def test_only_the_messengers_updates_are_genuine(kind: Kind, transport: Transport) -> None:
    update = await kind.write("Hello")
    assert transport.genuine(update.headers, update.raw)
    odd = dict.fromkeys(kind.forged, "sha256=é�")
    empty = dict.fromkeys(kind.forged, "")
    for headers in ({}, {**update.headers, **kind.forged}, odd, empty):
        assert not transport.genuine(headers, update.raw)
    assert transport.genuine(update.headers, update.raw + b" ") is not kind.signs


async def test_the_handshake_is_answered_to_who_knows_the_word(kind: Kind, transport: Transport) -> None:
    assert transport.handshake({}) is None
    if kind.question is None:
        return
    assert transport.handshake(kind.question) == kind.answer
    for name in kind.question:
        without = {other: value for other, value in kind.question.items() if other != name}
        assert transport.handshake(without) is None
        if kind.question[name] != kind.answer:
            assert transport.handshake({**without, name: "é wrong"}) is None


async def test_no_bytes_make_reading_fail(kind: Kind, transport: Transport) -> None:
    @given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
    def check(raw: bytes) -> None:
        batch = transport.read(raw)
        assert isinstance(batch, Batch)
        assert isinstance(transport.genuine({}, raw), bool)

    check()


async def test_no_spoilt_update_makes_reading_fail(kind: Kind, transport: Transport) -> None:
    updates = [await kind.write("Hello"), *await kind.others()]

    @given(st.data())
    def check(data: st.DataObject) -> None:
        update = data.draw(st.sampled_from(updates))
        batch = transport.read(spoilt(data, update))
        assert not [why for why in batch.unread if "not understood" in why]
        for inbound in batch.inbound:
            # What databases keep and other programs read.
            json.dumps(inbound.text + inbound.external_id, ensure_ascii=False).encode()
            assert "\0" not in inbound.text + inbound.external_id + (inbound.sender.address or "")

    check()


def spoilt(data: st.DataObject, update: Update) -> bytes:
    """The update with something else in place of one of its parts."""
    tree: Any = json.loads(update.raw)
    part = tree
    while True:
        names = list(part) if isinstance(part, dict) else list(range(len(part)))
        name = data.draw(st.sampled_from(names))
        inner = part[name]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 9)) == 0:
            part[name] = data.draw(JSON | st.just("\ud800") | st.just("a\0b"))
            return json.dumps(tree).encode()
        part = inner
