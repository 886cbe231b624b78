"""What the store keeps of conversations, as rows. Times are microseconds since the epoch."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from oncue.store.steps import Query, Steps

T = TypeVar("T")
ChatState = Literal["active", "paused", "parked", "done", "stopped"]
MessageKind = Literal["question", "say", "reminder", "hint", "note"]
MessageState = Literal["queued", "sending", "accepted", "rejected", "unknown", "skipped"]
GIVEN_UP = "given up: unknown a second time"
TAKEN_OVER = "a human has taken over"
"""Why a conversation is paused whose person is looked after by a human."""
LIVE = ("active", "paused", "parked")


class ChannelRow(msgspec.Struct):
    """What is known of a channel; see ``oncue_channel``."""

    name: str
    stopped: str | None = None
    stopped_at: int | None = None
    wait_until: int | None = None
    refusals: int = 0
    heard_at: int | None = None
    up_since: int | None = None
    seen_at: int | None = None
    disabled: str = "{}"


class Standing(ChannelRow, kw_only=True):
    """How a channel stands. ``paused_at``: since when its queue of sends is paused; ``unknown``: messages that may have
    been sent, and wait to be settled; ``duplicates``: messages that went out more than once. ``unknown_since`` and
    ``duplicates`` only where they were asked for."""

    paused_at: int | None = None
    unknown: int = 0
    unknown_since: int | None = None
    duplicates: int = 0


class PersonRow(msgspec.Struct):
    """A person on a channel; see ``oncue_person``."""

    id: int
    channel: str
    created_at: int
    address: str | None = None
    user_id: str | None = None
    name: str | None = None
    timezone: str | None = None
    heard_at: int | None = None
    opted_out_at: int | None = None
    no_marketing_at: int | None = None
    stopped: str | None = None
    human_since: int | None = None
    wait_until: int | None = None
    refusals: int = 0


class ChatRow(msgspec.Struct):
    """One run of a conversation; see ``oncue_chat``."""

    id: int
    conversation: str
    channel: str
    person: int
    state: ChatState
    version: int
    started_at: int
    changed_at: int
    step: str | None = None
    tries: int = 0
    reason: str | None = None
    error: str | None = None
    ended_at: int | None = None


class StandingStill(msgspec.Struct, frozen=True):
    """Conversations that are paused or parked: how many, since when the first, and the last of them."""

    state: ChatState
    number: int
    first: int
    last: int
    conversation: str
    step: str | None = None
    reason: str | None = None


class StepRow(msgspec.Struct):
    """A step of a conversation; see ``oncue_chat_step``."""

    chat: int
    name: str
    nth: int
    kind: Literal["ask", "say", "sleep", "do"]
    state: Literal["open", "done"]
    opened_at: int
    shape: str = ""
    value: str | None = None
    message: int | None = None
    done_at: int | None = None


class MessageRow(msgspec.Struct):
    """A message to a person; see ``oncue_message``."""

    id: int
    ref: str
    channel: str
    person: int
    kind: MessageKind
    content: str
    state: MessageState
    due: int
    created_at: int
    chat: int | None = None
    step: str | None = None
    nth: int = 0
    fallback: str | None = None
    options: str = "{}"
    attempt: int = 0
    sending_at: int | None = None
    unknown_at: int | None = None
    settled_at: int | None = None
    external_id: str | None = None
    as_template: int = 0
    status: str | None = None
    status_at: int | None = None
    code: int | None = None
    reason: str | None = None
    resolution: str | None = None
    resent: int = 0

    @property
    def given_up(self) -> bool:
        """Whether a human has to decide on it: a conversation that is resumed sends it once more."""
        return self.resolution == GIVEN_UP


class InboundRow(msgspec.Struct):
    """A message of a person; see ``oncue_inbound``."""

    channel: str
    external_id: str
    person: int
    kind: str
    content: str
    sent_at: int
    heard_at: int
    chat: int | None = None
    step: str | None = None
    handled_at: int | None = None
    note: str | None = None


class SentRow(msgspec.Struct):
    """A name that the provider gave a message; see ``oncue_sent``."""

    channel: str
    external_id: str
    message: int
    attempt: int
    at: int


class StatusRow(msgspec.Struct):
    """A status that the provider told; see ``oncue_status``."""

    channel: str
    external_id: str
    status: str
    at: int
    heard_at: int
    echo: str | None = None
    message: int | None = None
    code: int | None = None
    reason: str | None = None


class EventRow(msgspec.Struct):
    """What else belongs into a person's timeline; see ``oncue_event``."""

    id: int
    person: int
    at: int
    kind: str
    text: str
    chat: int | None = None
    message: int | None = None


class PersonFile(msgspec.Struct):
    """All that is kept of one person."""

    person: PersonRow
    chats: list[ChatRow]
    steps: list[StepRow]
    messages: list[MessageRow]
    sent: list[SentRow]
    statuses: list[StatusRow]
    inbound: list[InboundRow]
    events: list[EventRow]


def one(kind: type[T], name: str, /, **values: Any) -> Steps[T | None]:
    """Run a query that answers one row as a JSON object, or nothing."""
    text = yield Query(name, values)
    return None if text is None else msgspec.json.decode(text, type=kind)


def many(kind: type[T], name: str, /, **values: Any) -> Steps[list[T]]:
    """Run a query that answers rows as a JSON array of objects."""
    return msgspec.json.decode((yield Query(name, values)), type=list[kind])  # type: ignore[valid-type]
