"""All that is kept of one person: to show it, to hand it over, to erase it."""

from __future__ import annotations

from oncue.store.chats import (
    LIVE,
    ChatRow,
    EventRow,
    InboundRow,
    MessageRow,
    PersonFile,
    PersonRow,
    SentRow,
    StatusRow,
    StepRow,
    many,
)
from oncue.store.steps import Steps, manage, run

_ERASED = ("statuses", "sent", "messages", "inbound", "steps", "chats", "events", "person")
_NOWHERE = "\x01"


def people(name: str, channel: str | None) -> Steps[list[PersonRow]]:
    """Return the people of that address, provider's id or number (``p17``), on one channel or on all."""
    return (yield from many(PersonRow, "people_named", name=name, channel=channel))


def file_of(person: int) -> Steps[PersonFile | None]:
    """Return all that is kept of a person; None where nothing is."""
    found = yield from many(PersonRow, "file_person", person=person)
    if not found:
        return None
    return PersonFile(
        found[0],
        (yield from many(ChatRow, "file_chats", person=person)),
        (yield from many(StepRow, "file_steps", person=person)),
        (yield from many(MessageRow, "file_messages", person=person)),
        (yield from many(SentRow, "file_sent", person=person)),
        (yield from many(StatusRow, "file_statuses", person=person)),
        (yield from many(InboundRow, "file_inbound", person=person)),
        (yield from many(EventRow, "file_events", person=person)),
    )


def erase(person: int, updates_before: int, now: int) -> Steps[dict[str, int]]:
    """Delete all that is kept of a person, and call off what was to be sent; return how many rows went, by kind.

    Raw updates which name the person go where they came before ``updates_before``: later ones may still be worked on.
    """
    found = yield from file_of(person)
    if found is None:
        return {}
    keys = [f"message-{one.ref}" for one in found.messages if one.state in ("queued", "sending", "unknown")]
    keys += [f"advance-{one.id}" for one in found.chats if one.state in LIVE]
    for key in keys:
        yield from manage.cancel(now, now, id=None, key=key)
    gone: dict[str, int] = {}
    for name in _ERASED:
        gone[name] = yield run(f"erase_{name}", person=person)
    names = {"address": found.person.address or _NOWHERE, "user_id": found.person.user_id or _NOWHERE}
    gone["updates"] = yield run("erase_updates", channel=found.person.channel, before=updates_before, **names)
    return gone
