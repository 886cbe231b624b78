"""All that is kept of one person: to show it, to hand it over, to erase it."""

from __future__ import annotations

from collections.abc import Sequence

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
from oncue.store.steps import Steps, as_json, manage, run

_ERASED = ("statuses", "sent", "messages", "inbound", "steps", "chats", "events", "person")


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


def erase(person: int, names: Sequence[str], worked_on: int, now: int) -> Steps[dict[str, int]]:
    """Delete all that is kept of a person, and call off what was to be sent; return how many rows went, by kind.

    Raw updates which have one of the ``names`` (that the person has or had) go too. Those that are younger than
    ``worked_on`` (microseconds) may still be worked on: they go when they have come to that age.
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
    named = {"channel": found.person.channel, "names": as_json(list(names)), "before": now - worked_on}
    gone["updates"] = yield run("erase_updates", **named)
    yield run("expire_updates", at=now + worked_on, **named)
    return gone
