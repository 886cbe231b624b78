"""What comes in: every shape of update, and that no bytes break the reader or cost a good item."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncue.telegram import payload
from oncue.transport import Address, Batch, Inbound
from tests.telegram.standin import Seen, Standin

ADA = 42
AT = 1_790_000_000


@pytest.fixture
def standin() -> Standin:
    """One that isn't started: it makes updates all the same."""
    made = Standin()
    made.person(ADA)
    return made


def only(raw: bytes) -> Inbound:
    batch = payload.read(raw)
    assert batch.unread == []
    assert not batch.statuses
    assert not batch.preferences
    [inbound] = batch.inbound
    return inbound


def seen(standin: Standin, *buttons: tuple[str, str]) -> Seen:
    return Seen(ADA, standin.next_message_id(ADA), "Which?", buttons, AT)


def test_a_text(standin: Standin) -> None:
    raw = standin.people[ADA].text("Hello 🙂", at=AT)
    inbound = only(raw)
    assert inbound.external_id == "42:1"
    assert inbound.sender == Address("42")
    assert inbound.sent_at == AT * 1_000_000
    assert (inbound.kind, inbound.text, inbound.name) == ("text", "Hello 🙂", "Ada")
    assert inbound.choice is inbound.replies_to is None
    assert inbound.raw == json.loads(raw)["message"]


def test_the_same_update_twice_reads_as_the_same_message(standin: Standin) -> None:
    raw = standin.people[ADA].text("Hello")
    assert payload.read(raw) == payload.read(raw)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("/start", "/start"),
        ("/start spring26", "/start"),
        ("/start@the_bot spring26", "/start"),
        ("/stop", "/stop"),
        ("/started", "/started"),
        ("I /start now", "I /start now"),
    ],
)
def test_the_start_button_says_the_same_from_every_link(standin: Standin, text: str, read: str) -> None:
    inbound = only(standin.people[ADA].text(text))
    assert inbound.text == read
    assert inbound.raw["text"] == text


def test_an_answer_to_our_message_names_it(standin: Standin) -> None:
    ours = seen(standin)
    assert only(standin.people[ADA].text("Yes", reply_to=ours)).replies_to == ours.external_id


@pytest.mark.parametrize(
    ("content", "kind", "text"),
    [
        ({"photo": [{"file_id": "x"}], "caption": "My cat"}, "photo", "My cat"),
        ({"voice": {"file_id": "x"}}, "voice", ""),
        ({"animation": {"file_id": "x"}, "document": {"file_id": "x"}}, "animation", ""),
        ({"venue": {"title": "Here"}, "location": {"latitude": 1.5}}, "venue", ""),
        ({"pinned_message": {}}, "unsupported", ""),
        ({"something_of_2031": {"a": 1}}, "unsupported", ""),
    ],
)
def test_other_content_is_kept_by_the_messengers_word(
    standin: Standin, content: dict[str, Any], kind: str, text: str
) -> None:
    inbound = only(standin.people[ADA].message(**content))
    assert (inbound.kind, inbound.text) == (kind, text)
    assert inbound.raw.items() >= content.items()


def test_a_tap_has_its_option_the_title_and_the_message_it_stood_under(standin: Standin) -> None:
    ours = seen(standin, ("New", "r:1"), ("Some", "r:2"))
    before = time.time_ns() // 1000
    inbound = only(standin.people[ADA].tap(ours, "Some"))
    assert (inbound.kind, inbound.choice, inbound.text) == ("choice", "r:2", "Some")
    assert inbound.replies_to == ours.external_id
    assert inbound.external_id == f"42:tap:{inbound.raw['id']}"
    # A tap has no time of its own, and its message's would make it look old.
    assert before <= inbound.sent_at <= time.time_ns() // 1000


def test_a_tap_under_a_message_that_is_gone_still_counts(standin: Standin) -> None:
    ours = seen(standin, ("New", "r:1"))
    inbound = only(standin.people[ADA].tap(ours, "New", gone=True))
    assert (inbound.choice, inbound.text, inbound.replies_to) == ("r:1", "", ours.external_id)


def test_two_taps_of_one_button_are_two_messages(standin: Standin) -> None:
    ours = seen(standin, ("New", "r:1"))
    taps = [only(standin.people[ADA].tap(ours, "New")) for _ in range(2)]
    assert taps[0].external_id != taps[1].external_id


def test_an_edit_is_no_new_text(standin: Standin) -> None:
    ada = standin.people[ADA]
    first = only(ada.text("Ada"))
    edits = [only(ada.edit(1, text)) for text in ("Eda", "Ida")]
    assert [edit.kind for edit in edits] == ["edited", "edited"]
    assert [edit.text for edit in edits] == ["Eda", "Ida"]
    assert len({first.external_id, *(edit.external_id for edit in edits)}) == 3


def test_blocking_and_unblocking_are_told(standin: Standin) -> None:
    ada = standin.people[ADA]
    told = [only(ada.block()), only(ada.block(False)), only(ada.block())]
    assert [inbound.kind for inbound in told] == ["blocked", "unblocked", "blocked"]
    assert len({inbound.external_id for inbound in told}) == 3
    assert {inbound.sender for inbound in told} == {Address("42")}


@pytest.mark.parametrize("kind", ["group", "supergroup", "channel"])
def test_only_private_chats_hold_conversations(standin: Standin, kind: str) -> None:
    chat = {"id": -100, "type": kind, "title": "All"}
    batch = payload.read(standin.people[ADA].message(text="Hi", chat=chat))
    assert batch == Batch(unread=[f"message: a {kind}; conversations are held in private chats only"])


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"update_id":1,"message":' + b"[" * 99 + b"]" * 99 + b"}", "message: nested more than"),
        (b"[1]", "no update, but list"),
        (b'{"update_id":1,"poll":{"id":"7"}}', "poll: not a kind of update"),
        (b'{"update_id":1,"message":null}', "message: "),
        (b'{"update_id":1,"message":{"message_id":1}}', "message: "),
        (b'{"update_id":1,"callback_query":{"id":"7","from":{"id":42}}}', "callback_query: a button that is none"),
        (b'{"update_id":1,"my_chat_member":{"chat":{"id":42,"type":"private"}}}', "my_chat_member: "),
    ],
)
def test_what_cannot_be_read_is_told(raw: bytes, why: str) -> None:
    batch = payload.read(raw)
    assert batch.inbound == []
    [told] = batch.unread
    assert told.startswith(why)


def test_an_edit_without_its_updates_number_has_no_name(standin: Standin) -> None:
    update = json.loads(standin.people[ADA].edit(1, "Ada"))
    for number in (None, "1", True):
        assert payload.read(json.dumps({**update, "update_id": number}).encode()).unread == [
            "edited_message: no update_id"
        ]


def test_numbers_that_no_database_takes_are_none_of_telegrams(standin: Standin) -> None:
    message = json.loads(standin.people[ADA].text("Hi"))["message"]
    for wrong in (
        {"date": 10**30},
        {"date": -1},
        {"message_id": 1 << 60},
        {"date": True},
        {"date": 1.5},
        {"chat": {"id": 1 << 70, "type": "private"}},
    ):
        batch = payload.read(standin.update(message={**message, **wrong}))
        assert batch.inbound == []
        assert len(batch.unread) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800") | st.just("a\0b"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _paths(inner, (*path, key))
    return found


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    target = copy
    for key in path[:-1]:
        target = target[key]
    if new is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = new
    return copy


def _examples() -> dict[str, Any]:
    standin = Standin()
    ada = standin.person(ADA)
    ours = seen(standin, ("New", "r:1"), ("Some", "r:2"))
    raws = [
        ada.text("Hi", reply_to=ours),
        ada.message(photo=[{"file_id": "x"}], caption="My cat"),
        ada.tap(ours, "New"),
        ada.edit(1, "Ho"),
        ada.block(),
    ]
    return {str(number): json.loads(raw) for number, raw in enumerate(raws)}


EXAMPLES = _examples()


def whole(batch: Batch) -> None:
    """What came out can be stored."""
    for inbound in batch.inbound:
        assert isinstance(inbound.external_id, str)
        assert isinstance(inbound.text, str)
        assert 0 <= inbound.sent_at < 1 << 63
        assert inbound.sender.address == str(int(inbound.sender.address or ""))
        for text in (inbound.external_id, inbound.text, inbound.choice or "", inbound.name or ""):
            assert b"\0" not in text.encode()
        json.dumps(inbound.raw, ensure_ascii=False, allow_nan=False).encode()
    for told in batch.unread:
        told.encode()


@given(st.binary())
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    whole(payload.read(raw))
    payload.tapped(raw)


@given(json_values)
def test_no_json_breaks_the_reader(value: Any) -> None:
    raw = json.dumps(value).encode()
    whole(payload.read(raw))
    payload.tapped(raw)


@given(st.data())
def test_no_change_of_an_update_breaks_the_reader(data: st.DataObject) -> None:
    update = EXAMPLES[data.draw(st.sampled_from(sorted(EXAMPLES)))]
    path = data.draw(st.sampled_from(_paths(update)))
    raw = json.dumps(_with(update, path, data.draw(st.just(...) | json_values))).encode()
    batch = payload.read(raw)
    whole(batch)
    payload.tapped(raw)
    assert len(batch.inbound) + len(batch.unread) <= len(update)


@given(st.data())
def test_cut_updates_are_unread(data: st.DataObject) -> None:
    raw = json.dumps(EXAMPLES[data.draw(st.sampled_from(sorted(EXAMPLES)))]).encode()
    batch = payload.read(raw[: data.draw(st.integers(0, len(raw) - 1))])
    assert batch.inbound == []
    assert len(batch.unread) == 1


@given(st.dictionaries(st.text(min_size=1, max_size=12), json_values, max_size=4), st.data())
def test_bad_items_never_lose_a_good_one(bad: dict[str, Any], data: st.DataObject) -> None:
    good = EXAMPLES[data.draw(st.sampled_from(sorted(EXAMPLES)))]
    broken = {kind: data.draw(json_values) for kind in payload.UPDATES if kind not in good}
    items = [*good.items(), *({**bad, **broken}).items()]
    mixed = dict(data.draw(st.permutations(items)) + list(good.items()))
    alone, beside = payload.read(json.dumps(good).encode()), payload.read(json.dumps(mixed).encode())
    wanted = [(inbound.external_id, inbound.kind, inbound.text) for inbound in alone.inbound]
    assert [(inbound.external_id, inbound.kind, inbound.text) for inbound in beside.inbound] == wanted
    assert len(beside.unread) == len(mixed) - len(good)


@pytest.mark.parametrize(
    ("code", "description", "verdict"),
    [
        (400, "Bad Request: message text is empty", "refused"),
        (400, "Bad Request: chat not found", "stop_person"),
        (401, "Unauthorized", "stop_channel"),
        (403, "Forbidden: bot was blocked by the user", "stop_person"),
        (403, "Forbidden: bot can't initiate conversation with a user", "stop_person"),
        (404, "Not Found", "stop_channel"),
        (413, "Request Entity Too Large", "refused"),
        (421, "Misdirected Request: unallowed token specified", "stop_channel"),
        (429, "Too Many Requests: retry after 7", "wait_channel"),
        (409, "Conflict", "unknown"),
        (500, "Internal Server Error: restart", "unknown"),
        (504, "Gateway Timeout", "unknown"),
    ],
)
def test_each_error_has_its_verdict_whatever_the_http_status(code: int, description: str, verdict: str) -> None:
    more = {"parameters": {"retry_after": 7}} if code == 429 else {}
    body = json.dumps({"ok": False, "error_code": code, "description": description, **more}).encode()
    for status in (200, code):
        answer = payload.answer(status, body)
        assert (answer.verdict, answer.code) == (verdict, code)
        assert description in answer.reason
        assert answer.after == (7 if code == 429 else None)


@given(st.integers(100, 599), st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_answer_breaks_the_client_and_only_a_message_counts_as_sent(status: int, raw: bytes) -> None:
    answer = payload.answer(status, raw)
    assert (answer.verdict == "sent") == (answer.external_id is not None)
