"""Updates of every shape: the files in webhooks/, and what each is read as (webhooks/expected.txt)."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncue.transport import Batch, Inbound, Status
from oncue.whatsapp.reading import read

FOLDER = Path(__file__).parent / "webhooks"
FILES = sorted(FOLDER.glob("*.json"))
NUMBER = "100000000000001"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ODD = JSON | st.sampled_from(["\ud800", "a\0b", "x" * 3000, 10**40, -1, [[[[]]]], {"id": 1}])
PARTS = ("messages", "statuses", "user_preferences")


def lines(batch: Batch) -> Iterator[str]:
    """A batch, for people to compare."""
    for said in batch.inbound:
        more = [f"option {said.choice}"] if said.choice else []
        more += [f"replies to {said.replies_to}"] if said.replies_to else []
        more += [f"moves to {said.moved_to.address}/{said.moved_to.user_id}"] if said.moved_to else []
        who = f"{said.sender.address}/{said.sender.user_id} {said.name}"
        yield " | ".join([said.external_id, who, str(said.sent_at), f"{said.kind} {said.text!r}", *more])
    for told in batch.statuses:
        more = [f"{told.code} {told.reason!r}: {told.verdict}"] if told.verdict else []
        yield " | ".join([told.external_id, str(told.at), told.status, f"echo {told.echo}", *more])
    for wish in batch.preferences:
        who = f"{wish.person.address}/{wish.person.user_id}"
        yield f"{who} | {wish.at} | {'wants' if wish.marketing else 'wants no'} marketing"
    yield from (f"unread: {why}" for why in batch.unread)


def expected() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (FOLDER / "expected.txt").read_text("utf-8").splitlines():
        if line.startswith("    "):
            found[next(reversed(found))].append(line.strip())
        else:
            found[line] = []
    return found


def test_every_file_has_its_expectation() -> None:
    assert [file.stem for file in FILES] == sorted(expected())
    assert len(FILES) > 60


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_is_read_as_expected(file: Path) -> None:
    assert list(lines(read(file.read_bytes(), NUMBER))) == expected()[file.stem]


def test_a_message_is_kept_as_received() -> None:
    [inbound] = read((FOLDER / "location.json").read_bytes()).inbound
    assert inbound.raw["location"]["latitude"] == 52.5
    assert inbound.raw["id"] == inbound.external_id


def test_without_a_number_the_updates_of_every_number_are_ours() -> None:
    batch = read((FOLDER / "for_another_number.json").read_bytes())
    assert [inbound.external_id for inbound in batch.inbound] == ["wamid.IN037", "wamid.IN038"]


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe", b"null", b"[]", b'"text"', b"7", b"{}", b'{"entry": "x"}', b"[" * 100_000,
     b'{"entry":' * 50_000, b"NaN", b'{"a": ' + b"9" * 10_000 + b"}"],
    ids=range(13),
)  # fmt: skip
def test_what_is_no_update_is_noted(raw: bytes) -> None:
    batch = read(raw)
    assert (batch.inbound, batch.statuses, batch.preferences) == ([], [], [])
    assert batch.unread


def test_what_is_nested_beyond_reason_loses_only_itself() -> None:
    deep: Any = "end"
    for _ in range(200):
        deep = [deep]
    tree = json.loads((FOLDER / "many_on_every_level.json").read_bytes())
    tree["entry"][0]["changes"][0]["value"]["messages"][0]["context"] = deep
    batch = read(json.dumps(tree).encode())
    assert [inbound.text for inbound in batch.inbound] == ["two", "three", "four"]
    assert any("levels deep" in why for why in batch.unread)


@pytest.mark.parametrize("depth", [140, 900, 5_000, 400_000])
@pytest.mark.parametrize("marks", ["[]", "{}"])
def test_what_is_nested_deeper_than_any_reader_goes_loses_only_itself(depth: int, marks: str) -> None:
    inner = ('{"]\\"[":' if marks == "{}" else "[") * depth + "1" + marks[1] * depth
    tree = json.loads((FOLDER / "many_on_every_level.json").read_bytes())
    tree["entry"][0]["changes"][0]["value"]["messages"][0]["context"] = "HERE"
    batch = read(json.dumps(tree).replace('"HERE"', inner).encode())
    assert [inbound.text for inbound in batch.inbound] == ["two", "three", "four"]
    assert len(batch.statuses) == 3
    assert any("levels deep" in why for why in batch.unread)


def test_a_code_that_is_no_code_is_none() -> None:
    tree = json.loads((FOLDER / "status_failed.json").read_bytes())
    for code, meant in ((131026, 131026), ("131026", 131026), (True, None), (-1, None), (10**30, None), ("x", None)):
        tree["entry"][0]["changes"][0]["value"]["statuses"][0]["errors"][0]["code"] = code
        [status] = read(json.dumps(tree).encode()).statuses
        assert status.code == meant


@given(st.binary(max_size=300) | ODD.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_make_it_fail(raw: bytes) -> None:
    well_formed(read(raw, NUMBER))


@given(st.sampled_from(FILES), st.data())
def test_no_bytes_within_an_update_make_it_fail(file: Path, data: st.DataObject) -> None:
    raw = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        raw = raw or bytearray(b" ")
    well_formed(read(bytes(raw), NUMBER))


@given(st.sampled_from(FILES), st.data())
def test_nothing_in_an_updates_parts_makes_it_fail(file: Path, data: st.DataObject) -> None:
    tree = json.loads(file.read_bytes())
    part = tree
    while True:
        name = data.draw(st.sampled_from(list(part) if isinstance(part, dict) else range(len(part))))
        if not isinstance(part[name], dict | list) or not part[name] or data.draw(st.integers(0, 9)) == 0:
            break
        part = part[name]
    part[name] = data.draw(ODD)
    well_formed(read(json.dumps(tree).encode(), NUMBER))


@given(st.data())
def test_no_good_item_is_lost_beside_a_bad_one(data: st.DataObject) -> None:
    good = json.loads((FOLDER / "many_on_every_level.json").read_bytes())
    whole = named(read(json.dumps(good).encode(), NUMBER))
    tree = copy.deepcopy(good)
    spoilt: set[str] = set()
    for entry in tree["entry"]:
        for change in entry["changes"]:
            for part in PARTS:
                spoilt |= spoil(data, change["value"].get(part, []))
        insert(data, entry["changes"])
    insert(data, tree["entry"])
    found = read(json.dumps(tree).encode(), NUMBER)
    well_formed(found)
    left = {name: item for name, item in whole.items() if name not in spoilt}
    assert {name: item for name, item in named(found).items() if name in left} == left


def spoil(data: st.DataObject, items: list[Any]) -> set[str]:
    """Spoil some of the items in place, and put odd ones between them. Returns the names of those that were spoilt."""
    names = set()
    for item in items:
        if data.draw(st.booleans()):
            names.add(name_of(item))
            key = data.draw(st.sampled_from(sorted(item)))
            if data.draw(st.booleans()):
                del item[key]
            else:
                item[key] = data.draw(ODD)
    if items:
        insert(data, items)
    return names


def insert(data: st.DataObject, items: list[Any]) -> None:
    for odd in data.draw(st.lists(ODD, max_size=2)):
        items.insert(data.draw(st.integers(0, len(items))), odd)


def name_of(item: dict[str, Any]) -> str:
    return str(item.get("id") or f"preference {item['timestamp']}")


def named(batch: Batch) -> dict[str, Any]:
    wishes = {f"preference {wish.at // 1_000_000}": wish for wish in batch.preferences}
    items: list[Inbound | Status] = [*batch.inbound, *batch.statuses]
    return {item.external_id: item for item in items} | wishes


def well_formed(batch: Batch) -> None:
    """What every database keeps, and what the parser foresaw."""
    assert not [why for why in batch.unread if "not understood" in why]
    assert b"\\u0000" not in msgspec.json.encode(batch)
    for inbound in batch.inbound:
        assert inbound.external_id
        assert inbound.kind
        assert inbound.sender.address or inbound.sender.user_id
        assert len(inbound.external_id) <= 512
    for status in batch.statuses:
        assert status.external_id
        assert len(status.external_id) <= 512
