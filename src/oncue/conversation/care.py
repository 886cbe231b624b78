"""What is kept of people: found, shown, handed over and erased, as who asks for it has a right to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from oncue.clock import SECOND, iso
from oncue.conversation.addresses import names_of
from oncue.conversation.people import names_in
from oncue.conversation.timeline import Entry, duplicates, timeline
from oncue.errors import UnknownPerson
from oncue.store.chats import PersonFile, PersonRow
from oncue.store.operating import AuditRow
from oncue.store.steps import Steps, files
from oncue.store.steps.operate import add_audit
from oncue.transport import Address

if TYPE_CHECKING:
    from oncue.app import OnCue

_STILL_WORKED_ON = 3600 * SECOND
"""Raw updates are worked on within moments; an hour is enough for any outage that a person would wait out."""


class People:
    """People of all channels of an application, which must be open. ``who`` acts: what they erase is in the audit."""

    def __init__(self, app: OnCue, who: str | None = None) -> None:
        self._app, self._who = app, who

    async def find(self, name: str, channel: str | None = None) -> list[PersonRow]:
        """Return whom a name fits: an address as people write it, a provider's id, or ``p17`` as the lists show it."""
        known = self._app.channels
        rooms = list(known.values()) if channel is None else [known[channel]] if channel in known else []
        for one in names_of(name, (room.transport for room in rooms)):
            found = await self._app.store.look(lambda: files.people(one, channel))  # noqa: B023 - called at once
            if found:
                return found
        return []

    async def file(self, person: int) -> PersonFile:
        """Return all rows of a person. Raises UnknownPerson."""
        found = await self._app.store.look(lambda: files.file_of(person))
        if found is None:
            raise UnknownPerson(f"Nothing is kept of person p{person}: erased, or never heard of.")
        return found

    async def timeline(self, person: int, *, redact: bool = False) -> list[Entry]:
        """Return every message, status, reminder, skip and why, oldest first. Raises UnknownPerson."""
        return timeline(await self.file(person), redact=redact)

    async def export(self, person: int) -> dict[str, Any]:
        """Return all that is kept of a person, in plain values with times in ISO 8601, UTC. Raises UnknownPerson."""
        file = await self.file(person)
        told = {name: [_readable(row) for row in getattr(file, name)] for name in _PARTS}
        return {"person": _readable(file.person), "duplicates": duplicates(file), **told}

    async def erase(self, person: int) -> dict[str, int]:
        """Delete all that is kept of a person and call off what was to be sent; return how many rows went, by kind.

        Raw updates of the last hour go within an hour. Backups and the provider have copies of their own. Raises
        UnknownPerson.
        """
        names = _names(await self.file(person))
        now = self._app.clock.now()

        def steps() -> Steps[dict[str, int]]:
            gone = yield from files.erase(person, names, _STILL_WORKED_ON, now)
            if self._who is not None:
                yield from add_audit(AuditRow(0, now, self._who, "erase", f"person:{person}"))
            return gone

        return await self._app.store.change(steps, now)


def _names(file: PersonFile) -> list[str]:
    """Return all by which the messenger names, or named, a person."""
    found = {file.person.address, file.person.user_id}
    for row in file.inbound:
        inbound = msgspec.json.decode(row.content, type=_Sent)
        for who in (inbound.sender, inbound.moved_to):
            if who is not None:
                found |= {who.address, who.user_id}
    for event in file.events:
        if event.kind in ("renamed", "merged"):
            found.update(names_in(event.text))
    return sorted(name for name in found if name)


class _Sent(msgspec.Struct):
    """The names in a message that was received."""

    sender: Address | None = None
    moved_to: Address | None = None


_PARTS = ("chats", "steps", "messages", "sent", "statuses", "inbound", "events")
_JSON = ("content", "fallback", "options", "value")


def _readable(row: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(row)
    for name, value in found.items():
        if value is None:
            continue
        if name in _JSON:
            found[name] = msgspec.json.decode(value)
        elif name in ("at", "due") or name.endswith(("_at", "_until", "_since")):
            found[name] = iso(value)
    return found
