"""What every face answers of conversations, people and channels; times as in ``oncue.operate.views``."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from oncue.conversation.standing import Disabled
from oncue.operate.views import Time


class TalkSummary(msgspec.Struct, frozen=True):
    """A conversation with a person."""

    id: int
    state: Literal["active", "paused", "parked", "done", "stopped"]
    conversation: str
    channel: str
    person: int
    person_name: str | None
    step: str | None
    started_at: Time
    changed_at: Time
    ended_at: Time | None
    reason: str | None


class TalkPage(msgspec.Struct, frozen=True):
    """Conversations, the newest first."""

    items: list[TalkSummary]
    next: str | None


class Said(msgspec.Struct, frozen=True):
    """One line of a timeline; of which conversation and message, where it is about one."""

    at: Time
    who: str
    kind: str
    text: str
    chat: int | None
    message: int | None


class TalkStep(msgspec.Struct, frozen=True):
    """A step that a conversation has reached: its answer, or while it is open, in words what it waits for."""

    name: str
    kind: str
    state: Literal["open", "done"]
    value: Any
    waits: str | None
    opened_at: Time
    done_at: Time | None


class TalkMessage(msgspec.Struct, frozen=True):
    """The message of the step that a conversation waits at."""

    kind: str
    state: str
    due: Time
    reason: str | None


class TalkLife(msgspec.Struct, frozen=True):
    """A conversation, what it waits for, and what was said and done. ``human_since``: since when a human has taken over
    its person; ``error``: the traceback for which it is parked; ``duplicates``: messages that went out twice."""

    conversation: TalkSummary
    why: str
    human_since: Time | None
    error: str | None
    duplicates: int
    message: TalkMessage | None
    steps: list[TalkStep]
    timeline: list[Said]


class Person(msgspec.Struct, frozen=True):
    """A person on a channel. ``address`` and ``user_id``: what the messenger calls them; ``heard_at``: when they wrote
    last; ``stopped``: why nothing can be sent to them; ``wait_until``: the messenger asked to wait."""

    id: int
    channel: str
    name: str | None
    address: str | None
    user_id: str | None
    timezone: str | None
    created_at: Time
    heard_at: Time | None
    human_since: Time | None
    opted_out_at: Time | None
    no_marketing_at: Time | None
    wait_until: Time | None
    stopped: str | None


class PersonLife(msgspec.Struct, frozen=True):
    """A person, and every message, status, reminder and skip of all their conversations, the oldest first.

    ``duplicates``: how many messages reached them more than once.
    """

    person: Person
    duplicates: int
    timeline: list[Said]


class ChannelView(msgspec.Struct, frozen=True):
    """How a channel stands: whether it ``sends``, since when not, and why; how many messages may have been sent
    (``unknown``) or went out twice; the templates that the messenger refused."""

    channel: str
    sends: Literal["yes", "waits", "paused", "stopped"]
    since: Time | None
    reason: str | None
    heard_at: Time | None
    seen_at: Time | None
    unknown: int
    duplicates: int
    disabled: list[Disabled]
