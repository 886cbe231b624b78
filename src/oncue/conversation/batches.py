"""What a transport read in an update, made fit for every database."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar

import msgspec

from oncue.store.steps import as_json
from oncue.transport import Address, Batch, Inbound, Preference, Status, Transport

T = TypeVar("T", Inbound, Status, Preference)
_LATEST = 253_402_300_799_000_000
# Longer ones would burst the databases' indexes; no messenger's are nearly as long.
_LONGEST = 512


def read(transport: Transport, raw: bytes) -> Batch:
    """Read an update: texts without what no database holds, times between 1970 and 9999, each item for itself."""
    try:
        found = transport.read(raw)
    except Exception as error:  # A transport of somebody's own; the update is kept all the same.
        return Batch(unread=[f"not understood, {type(error).__name__}: {error}"])
    unread = [_plain(note)[:1000] for note in found.unread]
    return Batch(
        _fitting("message", found.inbound, unread),
        _fitting("status", found.statuses, unread),
        _fitting("preference", found.preferences, unread),
        unread,
    )


def content_of(inbound: Inbound) -> str:
    """Return a message as the JSON that is stored: without what can't be JSON, where it has something like that."""
    try:
        return as_json(inbound)
    except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError):
        return as_json(msgspec.structs.replace(inbound, raw={}))


def _fitting(kind: str, items: Iterable[T], unread: list[str]) -> list[T]:
    kept: list[T] = []
    for item in items:
        try:
            kept.append(_fit(item))
        except ValueError as error:
            unread.append(f"{kind}: {error}")
    return kept


def _fit(item: T) -> T:
    values: dict[str, Any] = {}
    for name in _fields(type(item)):
        value = getattr(item, name)
        if isinstance(value, str):
            values[name] = _plain(value)
        elif isinstance(value, Address):
            values[name] = _names(value)
        elif name in ("at", "sent_at"):
            values[name] = min(max(0, value), _LATEST)
    if not isinstance(item, Preference):
        values["external_id"] = _name(values["external_id"], "its id")
    if isinstance(item, Status):
        _name(item.status, "its status")
    return msgspec.structs.replace(item, **values)


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(kind))


def _names(who: Address) -> Address:
    # An empty name names nobody.
    address = _name(_plain(who.address), "its address") if who.address else None
    user_id = _name(_plain(who.user_id), "its user id") if who.user_id else None
    if address is None and user_id is None:
        raise ValueError("nothing says whose it is")
    return Address(address, user_id)


def _name(text: str, what: str) -> str:
    if not 0 < len(text) <= _LONGEST:
        raise ValueError(f"{what} has {len(text)} characters")
    return text


def _plain(text: str) -> str:
    """Return a text without NULs and halves of characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
