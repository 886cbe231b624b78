"""What comes in, as rows: updates as received, the messages in them, and what of them is deleted in the end."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple

from oncue.store.steps import Steps, as_json, ask, fetch, run

_BINARY = "base64:"


class Incoming(NamedTuple):
    """A message of a person, as it is stored. ``content``: JSON; ``sent_at`` in microseconds since the epoch."""

    external_id: str
    person: int
    kind: str
    content: str
    sent_at: int


def add_update(channel: str, raw: bytes, note: str | None, now: int, expires_at: int | None) -> Steps[int]:
    """Store an update as received; return its id."""
    id: int = yield ask("add_update", channel=channel, raw=as_text(raw), note=note, now=now, expires_at=expires_at)
    return id


def raw_update(channel: str, id: int) -> Steps[bytes | None]:
    """Return an update as received; None where it isn't kept any more."""
    text = yield ask("raw_update", channel=channel, id=id)
    return None if text is None else as_bytes(text)


def as_text(raw: bytes) -> str:
    """Return bytes as a text that every database can hold: as they are where they are such a text, else base64."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = None
    if text is None or "\0" in text or text.startswith(_BINARY):
        return _BINARY + base64.b64encode(raw).decode()
    return text


def as_bytes(text: str) -> bytes:
    """Return what ``as_text`` made a text of."""
    return base64.b64decode(text[len(_BINARY) :]) if text.startswith(_BINARY) else text.encode()


def add_inbound(channel: str, rows: Sequence[Incoming], now: int) -> Steps[tuple[int, list[int]]]:
    """Store messages that aren't stored yet. Return how many were new, and the people for whom some isn't handled."""
    if not rows:
        return 0, []
    new: int = yield run("add_inbound", channel=channel, rows=as_json(rows), now=now)
    waiting = yield from open_inbound(channel, [row.external_id for row in rows])
    return new, list(dict.fromkeys(person for _, person in waiting))


def open_inbound(channel: str, ids: Sequence[str]) -> Steps[list[tuple[str, int]]]:
    """Return (external id, person) of those of these messages that aren't handled."""
    rows = yield from fetch("open_inbound", channel=channel, ids=as_json(list(ids)))
    return [(id, person) for id, person in rows]


def open_inbound_of(person: int) -> Steps[list[str]]:
    """Return the external ids of this person's messages that aren't handled."""
    return (yield from fetch("open_inbound_of", person=person))  # type: ignore[no-any-return]


def note_inbound(channel: str, external_id: str, note: str, now: int) -> Steps[None]:
    """Have a message handled, with why nothing followed from it."""
    yield run("note_inbound", channel=channel, external_id=external_id, note=note[:500], now=now)


def prune_chats(channel: str, now: int, before: int | None, count: int) -> Steps[int]:
    """Delete up to ``count`` rows of each kind whose time is over; return how many.

    ``before``: what was heard earlier goes, as far as no time stands with it; None: that is kept for ever.
    """
    gone: int = yield run("prune_updates", channel=channel, now=now, count=count)
    chats = yield from fetch("expired_chats", channel=channel, now=now, count=count)
    messages = yield from fetch("expired_messages", channel=channel, now=now, count=count, chats=as_json(chats))
    if messages:
        ids = as_json(messages)
        yield run("prune_sent", ids=ids)
        yield run("prune_message_statuses", ids=ids)
        gone += yield run("prune_messages", ids=ids)
    if chats:
        # Chats whose messages are too many for once go the next time.
        yield run("prune_steps", ids=as_json(chats))
        gone += yield run("prune_chat_rows", ids=as_json(chats))
    if before is not None:
        for what in ("statuses", "inbound", "events"):
            gone += yield run(f"prune_{what}", channel=channel, before=before, count=count)
    return gone


def prunable(channel: str, now: int, before: int | None) -> Steps[bool]:
    """Tell whether there is anything to prune, without writing."""
    return bool((yield ask("prunable_chats", channel=channel, now=now, before=-1 if before is None else before)))
