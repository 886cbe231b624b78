"""A person's timeline: every message, status, reminder and skip in order, with the reasons."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec

from oncue.clock import from_us
from oncue.conversation.post import Plan
from oncue.store.chats import ChatRow, InboundRow, MessageRow, PersonFile, PersonRow, StepRow
from oncue.transport import Choices, Content, Template, Text

_ENDS = {"done": "ended", "stopped": "was stopped", "parked": "is parked", "paused": "is paused"}
# What these say is a name of the person, or words of theirs.
_QUIETER = {
    "renamed": "the address or the id of the person changed",
    "merged": "two people turned out to be one",
    "opted-out": "wrote a word by which people leave",
    "opted-in": "came back",
}
# An exception with its text, as the reason of a conversation that is parked, or alone.
_RAISED = re.compile(r"(\b(?:[a-z_][\w.]*\.)?[A-Z]\w*): .*", re.DOTALL)
# What an event of a message repeats where the message has come to this state.
_SAYS = {"skipped": "skipped", "failed": "rejected"}
_WHAT = {"question": "question", "say": "message", "reminder": "reminder", "hint": "hint", "note": "note"}


class Entry(msgspec.Struct, frozen=True):
    """One line. ``at``: microseconds since the epoch, UTC; ``who``: ``person``, ``bot``, ``channel`` or ``oncue``."""

    at: int
    who: str
    kind: str
    text: str
    chat: int | None = None
    message: int | None = None


def timeline(file: PersonFile, *, redact: bool = False) -> list[Entry]:
    """Return all that is known of a person in the order in which it was learnt.

    ``redact``: what people and messages say is left out, only its length stays; so are the names by which the messenger
    knows the person, and what a conversation's function raised, but for its class.
    """
    entries = [*_of_chats(file), *_of_events(file), *(_said(one, redact) for one in file.inbound)]
    for message in file.messages:
        entries += _of_message(message, redact)
    entries += _of_provider(file)
    if redact:
        entries = [msgspec.structs.replace(entry, text=_without_names(entry, file)) for entry in entries]
    # What has one time keeps the order in which a person would tell it: made, sent, told.
    return sorted(entries, key=lambda entry: entry.at)


def _without_names(entry: Entry, file: PersonFile) -> str:
    """Return what an entry of OnCue or the messenger says without names, words of the person, and errors' texts."""
    text = _QUIETER.get(entry.kind, entry.text)
    return discreet(text, file.person) if entry.who == "oncue" else _nameless(text, file.person)


def discreet(text: str, person: PersonRow) -> str:
    """Return what OnCue says of a conversation without the person's names and without errors' texts, which quote."""
    return _nameless(_RAISED.sub(r"\1: (left out)", text), person)


def _nameless(text: str, person: PersonRow) -> str:
    for name in (person.address, person.user_id, person.name):
        if name:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "(left out)", text)
    return text


def duplicates(file: PersonFile) -> int:
    """Return how many messages the person got more than once, as the provider's names of them tell."""
    failed = _failed(file)
    copies = Counter(one.message for one in file.sent if one.external_id not in failed)
    return sum(count > 1 for count in copies.values())


def _failed(file: PersonFile) -> set[str]:
    """Return the names of copies that the provider says it did not deliver."""
    seen = {one.external_id for one in file.statuses if one.status in ("delivered", "read")}
    return {one.external_id for one in file.statuses if one.status == "failed"} - seen


def _of_chats(file: PersonFile) -> Iterator[Entry]:
    for chat in file.chats:
        yield Entry(chat.started_at, "oncue", "chat", f"{chat.conversation} began", chat.id)
        if chat.state in _ENDS:
            yield Entry(chat.ended_at or chat.changed_at, "oncue", "chat", _end_of(chat), chat.id)
    for step in file.steps:
        if step.done_at is not None and step.kind in ("sleep", "do"):
            yield Entry(step.done_at, "oncue", "step", f"{step.name}: {step.kind} is done", step.chat)


def _end_of(chat: ChatRow) -> str:
    at = f" at {chat.step}" if chat.step else ""
    return f"{chat.conversation} {_ENDS[chat.state]}{at}" + (f": {chat.reason}" if chat.reason else "")


def _of_events(file: PersonFile) -> Iterator[Entry]:
    ends = {message.id: (message.state, message.reason) for message in file.messages}
    for event in file.events:
        state, reason = ends.get(event.message or 0, (None, None))
        if state is not None and _SAYS.get(event.kind) == state and event.text == reason:
            # The message's own line says it.
            continue
        yield Entry(event.at, "oncue", event.kind, event.text, event.chat, event.message)


def _said(inbound: InboundRow, redact: bool) -> Entry:
    content: dict[str, Any] = msgspec.json.decode(inbound.content)
    text = str(content.get("text") or "")
    words = _hidden(text) if redact else f'"{text}"' if text else f"({inbound.kind})"
    note = f" - nothing followed: {inbound.note}" if inbound.note else ""
    where = f" [{inbound.step}]" if inbound.step else ""
    late = inbound.heard_at - inbound.sent_at
    heard = f" (written at {from_us(inbound.sent_at):%H:%M:%S}, heard {late // 1_000_000} s later)"
    return Entry(
        inbound.heard_at,
        "person",
        inbound.kind,
        f"{words}{where}{heard if late > 60_000_000 else ''}{note}",
        inbound.chat,
    )


def _of_message(message: MessageRow, redact: bool) -> Iterator[Entry]:
    def entry(at: int, kind: str, text: str) -> Entry:
        return Entry(at, "bot", kind, text, message.chat, message.id)

    name = f"{_WHAT[message.kind]} {message.step or message.ref}"
    if message.kind in ("reminder", "hint"):
        name += f" #{message.nth}"
    words = words_of(msgspec.json.decode(message.content, type=Content), redact=redact)
    yield entry(message.created_at, "planned", f"{name} for {from_us(message.due):%Y-%m-%d %H:%M:%S}: {words}")
    if message.sending_at is not None:
        again = f", attempt {message.attempt}" if message.attempt > 1 else ""
        yield entry(message.sending_at, "sending", f"{name}{again}")
    if message.unknown_at is not None:
        how = f"; settled: {message.resolution}" if message.resolution else "; later messages wait"
        yield entry(message.unknown_at, "unknown", f"{name} may have been sent, nobody knows{how}")
    if message.state == "queued" and message.reason is not None and message.sending_at is None:
        # What was refused before has events of its own.
        yield entry(max(message.due, message.created_at), "waits", f"{name} waits: {message.reason}")
    if message.settled_at is not None:
        why = f": {message.reason}" if message.reason else ""
        code = f" ({message.code})" if message.code is not None else ""
        template = ", as a template" if message.as_template and message.state == "accepted" else ""
        yield entry(message.settled_at, message.state, f"{name} {message.state}{template}{code}{why}")


def _of_provider(file: PersonFile) -> Iterator[Entry]:
    messages = {message.id: message for message in file.messages}
    seen: set[int] = set()
    failed = _failed(file)
    for sent in file.sent:
        if sent.external_id in failed:
            continue
        if sent.message in seen:
            yield Entry(sent.at, "channel", "duplicate", "the same message once more", message=sent.message)
        seen.add(sent.message)
    for status in file.statuses:
        message = messages.get(status.message or 0)
        name = f"{_WHAT[message.kind]} {message.step or message.ref}" if message else status.external_id
        why = f" ({status.code}): {status.reason}" if status.code is not None else ""
        yield Entry(status.heard_at, "channel", "status", f"{name} {status.status}{why}", message=status.message)


def words_of(content: Content, *, redact: bool = False) -> str:
    """Return a content in a line."""
    if isinstance(content, Template):
        given = "" if not content.parameters else f"({', '.join(content.parameters)})"
        return f"template {content.name}{_hidden(given) if redact else given}"
    assert isinstance(content, Text | Choices)
    options = f" [{' | '.join(one.title for one in content.options)}]" if isinstance(content, Choices) else ""
    return _hidden(content.body) if redact else f'"{content.body}"{options}'


def waits_of(step: StepRow) -> str:
    """Return what an open step waits for, in words."""
    kept = msgspec.json.decode(step.value or "{}", type=Plan)
    if step.kind == "sleep":
        return "sleeps" if kept.until is None else f"sleeps until {from_us(kept.until):%Y-%m-%d %H:%M:%S} UTC"
    if step.kind == "say":
        return "waits for its message to be sent"
    after = ", ".join(str(timedelta(microseconds=one.after)) for one in kept.remind)
    return "waits for an answer" + (f"; reminders after {after}" if after else "")


def _hidden(text: str) -> str:
    return f"({len(text)} characters)"
