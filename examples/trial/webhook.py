"""What WhatsApp posts to us: the check of its signature, and the two kinds of item that we read."""

from __future__ import annotations

import hashlib
import hmac
import logging
from typing import Any, TypeVar

import msgspec

log = logging.getLogger("trial")
T = TypeVar("T")


class Text(msgspec.Struct):
    body: str


class Message(msgspec.Struct):
    """Something that a person wrote."""

    sender: str = msgspec.field(name="from")
    id: str
    text: Text


class Status(msgspec.Struct):
    """What became of a message of ours; ``biz_opaque_callback_data`` is the echo that we gave it."""

    id: str
    status: str
    biz_opaque_callback_data: str | None = None


class Value(msgspec.Struct):
    messages: list[Any] = []
    statuses: list[Any] = []


class Change(msgspec.Struct):
    value: Value


class Entry(msgspec.Struct):
    changes: list[Change] = []


class Update(msgspec.Struct):
    entry: list[Entry] = []


def signed(raw: bytes, header: str | None, app_secret: str) -> bool:
    """Whether these very bytes were signed with our secret; parsed and written again they would not be the same."""
    expected = "sha256=" + hmac.new(app_secret.encode(), raw, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), (header or "").encode())


def read(raw: bytes) -> tuple[list[Message], list[Status]]:
    """Everything in one POST, at all three levels. An item that we can't read is left out and never costs the others.

    Raises ``msgspec.DecodeError`` where the whole is no webhook of WhatsApp.
    """
    values = [change.value for entry in msgspec.json.decode(raw, type=Update).entry for change in entry.changes]
    messages = [_item(item, Message) for value in values for item in value.messages]
    statuses = [_item(item, Status) for value in values for item in value.statuses]
    return [m for m in messages if m], [s for s in statuses if s]


def _item(item: object, kind: type[T]) -> T | None:
    try:
        return msgspec.convert(item, kind)
    except msgspec.ValidationError as error:
        log.warning("left out, no %s of a kind that we read: %s", kind.__name__.lower(), error)
        return None
