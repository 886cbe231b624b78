"""Reads updates (webhooks) of the Cloud API: every level of them, and each item for itself.

See developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages. What can't be read
is noted; it never takes with it what stands beside it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from oncue.transport import Address, Batch, Inbound, Preference, Status
from oncue.whatsapp.codes import Problem, status_verdict

ID = 512
"""No id of WhatsApp's is nearly as long; a longer one would burst the databases' indexes."""
_LATEST = 253_402_300_800  # The year 10,000, beyond which datetime can't say when it was.
_DEEPEST = 100
_CUT = _DEEPEST + 50
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
_OURS = (None, "messages", "user_preferences")
_CAPTIONED = ("image", "video", "document")
_MOVES = ("user_changed_number", "user_changed_user_id")

Item = Mapping[str, Any]


class _Unreadable(Exception):
    """Why an item can't be used."""


def read(raw: bytes, number: str | None = None) -> Batch:
    """Read an update. Never raises. ``number``: the phone number id whose updates these are; None: of every number."""
    reader = _Reader(number)
    try:
        tree = _decode(raw)
    except (ValueError, RecursionError) as error:
        reader.note("update", f"no JSON: {error}")
    else:
        reader.update(tree)
    return reader.batch


def _decode(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        # Half a character, escaped, is JSON by its grammar and by this reader, and spoils one item only.
        text = raw.decode("utf-8", "replace")
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        return json.loads(_cut(text), parse_int=_whole)


def _cut(text: str) -> str:
    """Return JSON with null in place of what no reader can hold: it spoils one item, which is still too deep to use."""
    pieces: list[str] = []
    depth = start = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == _CUT + 1:
                pieces += (text[start : token.start()], "null")
        elif token[0] in "]}":
            if depth == _CUT + 1:
                start = token.end()
            depth -= 1
    # Where it never ends there is no JSON either way.
    return "".join([*pieces, text[start:]]) if depth <= _CUT else ""


def _whole(digits: str) -> int:
    return int(digits) if len(digits) < 40 else 0


@dataclass(frozen=True, slots=True)
class _People:
    """The contacts beside some items. ``alone``: one contact and one item, so it is that item's."""

    contacts: Sequence[Item]
    alone: bool

    def find(self, address: str | None, user_id: str | None) -> tuple[Address, str | None]:
        """Return whom an item is about, and what that person is called. Raises _Unreadable where nothing says it."""
        nobody = address is None and user_id is None
        name = None
        for contact in self.contacts:
            wa_id, bsuid = _name(contact.get("wa_id")), _name(contact.get("user_id"))
            same = (address is not None and wa_id == address) or (user_id is not None and bsuid == user_id)
            if same or (nobody and self.alone):
                address, user_id = address or wa_id, user_id or bsuid
                name = _name(_text(_part(contact, "profile"), "name")[:ID])
                break
        if address is None and user_id is None:
            raise _Unreadable("nothing says whose it is: neither a phone number nor a user id")
        return Address(address, user_id), name


class _Reader:
    """Fills a batch, item by item."""

    def __init__(self, number: str | None) -> None:
        self.batch = Batch()
        self._number = number

    def note(self, where: str, why: str) -> None:
        self.batch.unread.append(f"{where}: {_clean(why)}"[:1000])

    def update(self, tree: object) -> None:
        if not isinstance(tree, Mapping):
            self.note("update", f"no object but {_kind(tree)}")
            return
        if not tree.get("entry"):
            self.note("update", "it has no entry")
        for at, entry in self._each("entry", tree.get("entry")):
            for where, change in self._each(f"{at}.changes", entry.get("changes")):
                self._change(where, change)

    def _each(self, name: str, found: object) -> Iterator[tuple[str, Item]]:
        """Yield the objects of a list with where they stand; note what is none."""
        if found is None:
            return
        if not isinstance(found, Sequence) or isinstance(found, str):
            self.note(name, f"no list but {_kind(found)}")
            return
        for number, item in enumerate(found):
            where = f"{name}[{number}]"
            if isinstance(item, Mapping):
                yield where, item
            else:
                self.note(where, f"no object but {_kind(item)}")

    def _change(self, where: str, change: Item) -> None:
        field, value = change.get("field"), change.get("value")
        if field not in _OURS:
            self.note(where, f"{field!r} is no news of a person")
        elif not isinstance(value, Mapping):
            self.note(where, f"its value is no object but {_kind(value)}")
        elif (theirs := self._other_number(value)) is not None:
            self.note(where, f"it is for the phone number id {theirs}, not {self._number}")
        else:
            self._value(where, value)

    def _other_number(self, value: Item) -> str | None:
        theirs = _name(_part(value, "metadata").get("phone_number_id"))
        return theirs if self._number is not None and theirs not in (None, self._number) else None

    def _value(self, where: str, value: Item) -> None:
        contacts = [contact for _, contact in self._each(f"{where}.contacts", value.get("contacts"))]
        readers: tuple[tuple[str, Callable[[str, Item, _People], None]], ...] = (
            ("messages", self._message),
            ("statuses", self._status),
            ("user_preferences", self._preference),
        )
        for name, reader in readers:
            found = value.get(name)
            people = _People(contacts, alone=len(contacts) == 1 and isinstance(found, list) and len(found) == 1)
            for at, item in self._each(f"{where}.{name}", found):
                try:
                    reader(at, _plain(item, 0), people)
                except _Unreadable as error:
                    self.note(at, str(error))
                except Exception as error:  # What nobody foresaw in one item must not lose the others.
                    self.note(at, f"not understood, {type(error).__name__}: {error}")
        for at, item in self._each(f"{where}.errors", value.get("errors")):
            problem = Problem.read(item)
            self.note(at, f"WhatsApp reports error {problem.code}: {problem.reason or 'it says no more'}")

    def _message(self, where: str, item: Item, people: _People) -> None:
        external_id = _id(item)
        if item.get("group_id"):
            raise _Unreadable("it was written in a group, and conversations are with one person")
        kind, text, choice = _said(item)
        told = _part(item, "system") if kind == "system" else {}
        before, moved = _name(told.get("previous_user_id")), _moved(told)
        sender, name = people.find(_name(item.get("from")), _name(item.get("from_user_id")) or before)
        replies_to = (
            _part(item, "reaction").get("message_id") if kind == "reaction" else _part(item, "context").get("id")
        )
        at, answers = self._time(where, item), _name(replies_to)
        self.batch.inbound.append(Inbound(external_id, sender, at, kind, text, choice, answers, name, item, moved))

    def _status(self, where: str, item: Item, people: _People) -> None:
        external_id = _id(item)
        if (status := _name(item.get("status"))) is None:
            raise _Unreadable("it has no status")
        errors = item.get("errors")
        problem = Problem.read(errors[0] if isinstance(errors, list) and errors else None)
        self.batch.statuses.append(
            Status(
                external_id,
                status.lower(),
                self._time(where, item),
                _name(item.get("biz_opaque_callback_data")),
                problem.code,
                problem.reason,
                status_verdict(problem.code) if status.lower() == "failed" else None,
            )
        )

    def _preference(self, where: str, item: Item, people: _People) -> None:
        if (category := item.get("category")) != "marketing_messages":
            raise _Unreadable(f"a preference about {category!r}, which OnCue doesn't know")
        if (value := item.get("value")) not in ("stop", "resume"):
            raise _Unreadable(f"marketing messages: {value!r}, neither stop nor resume")
        person, _ = people.find(_name(item.get("wa_id")), _name(item.get("user_id")))
        self.batch.preferences.append(Preference(person, self._time(where, item), value == "resume"))

    def _time(self, where: str, item: Item) -> int:
        """Return the item's time in microseconds; 0 with a note where it tells none: evidence it is all the same."""
        given = item.get("timestamp")
        if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 20:
            given = int(given)
        if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < _LATEST:
            return given * 1_000_000
        self.note(where, f"its time is {_kind(given)}: taken as 1970")
        return 0


def _said(item: Item) -> tuple[str, str, str | None]:
    """Return kind, text and the id of a tapped answer. Only what the person wrote or tapped is text."""
    kind = _name(item.get("type")) or "unknown"
    part = _part(item, kind)
    if kind == "text":
        if not isinstance(text := part.get("body"), str):
            raise _Unreadable("a text message without a text")
        return kind, text, None
    if kind == "button":  # of a template
        text = _text(part, "text")
        choice = _name(part.get("payload")) or _name(text)
        return ("choice", text, choice) if choice else (kind, text, None)
    if kind == "interactive":
        kind = _name(part.get("type")) or kind
        reply = _part(part, kind)
        if kind in ("button_reply", "list_reply") and (choice := _name(reply.get("id"))):
            return "choice", _text(reply, "title"), choice
        return kind, "", None
    if kind in _CAPTIONED:
        return kind, _text(part, "caption"), None
    return kind, _text(part, "text") if kind == "order" else "", None


def _moved(system: Item) -> Address | None:
    """Return what somebody is called from now on, whose number changed; with it the user id always does."""
    if system.get("type") not in _MOVES:
        return None
    address, user_id = _name(system.get("wa_id")), _name(system.get("user_id"))
    return None if address is None and user_id is None else Address(address, user_id)


def _part(item: Item, name: str) -> Item:
    found = item.get(name)
    return found if isinstance(found, Mapping) else {}


def _text(item: Item, name: str) -> str:
    found = item.get(name)
    return _clean(found) if isinstance(found, str) else ""


def _name(value: object) -> str | None:
    """Return a name or an id as a text; None for what can't be one."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > ID:
        return None
    return _clean(value).strip() or None


def _id(item: Item) -> str:
    if (found := _name(item.get("id"))) is None:
        raise _Unreadable(f"it has no usable id: {_kind(item.get('id'))}")
    return found


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return f"{str(value)[:40]!r}" if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"


def _clean(text: str) -> str:
    """Replace what databases and UTF-8 have no place for: NUL, and halves of characters."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _plain(value: Any, depth: int) -> Any:
    """Return JSON that every writer of JSON and every database takes."""
    if depth > _DEEPEST:
        raise _Unreadable(f"it is nested more than {_DEEPEST} levels deep")
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, dict):
        return {_clean(name): _plain(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return str(value)
    return value
