"""The record of conversations: what a run starts from, and what it leaves."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from oncue.store.chats import (
    ChatRow,
    ChatState,
    InboundRow,
    MessageRow,
    PersonRow,
    Standing,
    StandingStill,
    StepRow,
    many,
    one,
)
from oncue.store.steps import Steps, ask, fetch, run

_EVER = (1 << 63) - 1


class Loaded(msgspec.Struct, frozen=True):
    """All that a run of a conversation's function starts from. ``message``: that of the step it waits at;
    ``fragments``: what was written at that step, and is no answer yet; ``last``: the person's last message."""

    chat: ChatRow
    person: PersonRow
    steps: list[StepRow]
    message: MessageRow | None = None
    fragments: list[InboundRow] = []
    last: str | None = None

    @property
    def open(self) -> StepRow | None:
        """The step that the conversation waits at."""
        return next((step for step in self.steps if step.state == "open"), None)


def chat_of(id: int) -> Steps[ChatRow | None]:
    """Return a conversation."""
    return (yield from one(ChatRow, "chat_by_id", id=id))


def live_chat(person: int) -> Steps[ChatRow | None]:
    """Return the person's conversation that has not ended."""
    return (yield from one(ChatRow, "live_chat", person=person))


def load(id: int) -> Steps[Loaded | None]:
    """Return what a run of this conversation starts from; None where there is no such conversation (any more)."""
    chat = yield from chat_of(id)
    return None if chat is None else (yield from load_from(chat))


def load_from(chat: ChatRow) -> Steps[Loaded | None]:
    """Return what a run of the conversation starts from; None where its person is gone."""
    person = yield from one(PersonRow, "person_by_id", id=chat.person)
    if person is None:
        return None
    steps = yield from many(StepRow, "chat_steps", chat=chat.id)
    found = Loaded(chat, person, steps, last=(yield ask("chat_last_inbound", person=person.id)))
    waits = found.open
    if waits is None:
        return found
    message = None if waits.message is None else (yield from one(MessageRow, "chat_message", id=waits.message))
    fragments = yield from many(InboundRow, "chat_fragments", chat=chat.id, step=waits.name)
    return msgspec.structs.replace(found, message=message, fragments=fragments)


def move(
    chat: ChatRow,
    now: int,
    *,
    state: ChatState = "active",
    step: str | None = None,
    tries: int = 0,
    reason: str | None = None,
    error: str | None = None,
    expires_at: int | None = None,
) -> Steps[bool]:
    """Move a conversation on from the version that was read; False where somebody else has."""
    ended = now if state in ("done", "stopped") else None
    count: int = yield run(
        "move_chat", id=chat.id, version=chat.version, state=state, step=step, tries=tries, reason=reason, error=error,
        now=now, ended_at=ended, expires_at=None if ended is None else expires_at,
    )  # fmt: skip
    return count == 1


def save(step: StepRow) -> Steps[None]:
    """Store a step, new or changed."""
    yield run("save_step", **msgspec.structs.asdict(step))


def event(chat: ChatRow, kind: str, text: str, now: int) -> Steps[None]:
    """Write a line into the person's timeline."""
    yield run("chat_event", person=chat.person, chat=chat.id, message=None, at=now, kind=kind, text=text)


def listed(
    conversation: str | None,
    state: ChatState | None,
    person: int | None,
    channel: str | None,
    count: int,
    before: int | None = None,
) -> Steps[Sequence[ChatRow]]:
    """Return conversations below an id, the newest first, that match all that is given."""
    values = {"conversation": conversation, "state": state, "person": person, "channel": channel}
    return (yield from many(ChatRow, "list_chats", count=count, before=_EVER if before is None else before, **values))


def standing_still() -> Steps[list[StandingStill]]:
    """Return what there is of paused and of parked conversations."""
    return (yield from many(StandingStill, "chats_standing_still"))


def channels_now() -> Steps[list[Standing]]:
    """Return how the channels stand, as ``channels`` does, but for their duplicates: quick however many messages."""
    return (yield from many(Standing, "channels_now"))


def counts() -> Steps[dict[str, dict[str, int]]]:
    """Return how many conversations are in which state, by name."""
    found: dict[str, dict[str, int]] = {}
    for name, state, number in (yield from fetch("count_chats")):
        found.setdefault(name, {})[state] = number
    return found


def channels() -> Steps[list[Standing]]:
    """Return how the channels stand of which anything is known, by name."""
    return (yield from many(Standing, "list_channels"))


def duplicates(chat: int) -> Steps[int]:
    """Return how many messages of a conversation went out more than once."""
    count: int = yield ask("chat_duplicates", chat=chat)
    return count
