"""Conversations with people, as an operator sees and steers them; only where the application has channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from oncue.conversation.operate import Conversations
from oncue.conversation.timeline import timeline
from oncue.errors import UnknownJob
from oncue.operate.find import cursor_of
from oncue.operate.shape import iso, maybe_iso
from oncue.operate.views import Done, Said, TalkLife, TalkPage, TalkSummary
from oncue.store.chats import LIVE, ChatRow, PersonRow
from oncue.store.steps import Steps, chats, files
from oncue.store.steps.chats import Loaded

if TYPE_CHECKING:
    from oncue.app import OnCue

TalkAction = Literal["pause", "resume", "restart", "takeover"]
_ENDED = ("done", "stopped")
_LOOKED_AT = 1_000


class Talks:
    """Reads and steers conversations on behalf of somebody (``who``)."""

    def __init__(self, app: OnCue, who: str, *, redact: bool) -> None:
        self._app, self._who, self._redact = app, who, redact
        self._talks = Conversations(app, who)

    async def page(
        self, state: str | None, conversation: str | None, person: int | None, cursor: str | None, limit: int
    ) -> TalkPage:
        """Return conversations, the newest first. ``state``: one, or ``ended``."""
        if not self._app.channels:
            return TalkPage([], None)
        wanted: Any = None if state == "ended" else state
        # One more than is shown: whether there are others. Of those that have ended, a bounded number is looked at.
        count = _LOOKED_AT if state == "ended" else limit + 1
        before = cursor_of(cursor)
        looked = await self._talks.list(conversation, wanted, person=person, limit=count, before=before)
        found = [row for row in looked if state != "ended" or row.state in _ENDED]
        rows = found[:limit]
        last = rows[-1] if len(found) > limit else looked[-1] if len(looked) == count else None

        def people() -> Steps[dict[int, PersonRow | None]]:
            found: dict[int, PersonRow | None] = {}
            for row in rows:
                if row.person not in found:
                    loaded = yield from chats.load(row.id)
                    found[row.person] = None if loaded is None else loaded.person
            return found

        names = await self._app.store.look(people)
        return TalkPage(
            [self._summary(row, names.get(row.person)) for row in rows], None if last is None else str(last.id)
        )

    def _summary(self, row: ChatRow, person: PersonRow | None) -> TalkSummary:
        name = None if person is None or self._redact else person.name
        times = iso(row.started_at), iso(row.changed_at), maybe_iso(row.ended_at)
        return TalkSummary(
            row.id, row.state, row.conversation, row.channel, row.person, name, row.step, *times, row.reason
        )

    async def life(self, id: int) -> TalkLife:
        """Return a conversation and all that was said and done in it. Raises UnknownJob."""
        if not self._app.channels:
            raise UnknownJob(f"There is no conversation {id}: this application has no channel.")
        loaded = await self._talks.show(id)
        file = await self._app.store.look(lambda: files.file_of(loaded.person.id))
        entries = [] if file is None else timeline(file, redact=self._redact)
        said = [Said(iso(one.at), one.who, one.kind, one.text) for one in entries if one.chat in (None, id)]
        return TalkLife(self._summary(loaded.chat, loaded.person), _why(loaded), said)

    async def act(self, action: TalkAction, id: int) -> Done:
        """Steer a conversation. Raises UnknownJob, or InvalidJob where it does not apply to its state."""
        if not self._app.channels:
            raise UnknownJob(f"There is no conversation {id}: this application has no channel.")
        if action == "pause":
            await self._talks.pause(id, f"paused by {self._who}")
            text = f"Conversation {id} is paused: nothing is sent."
        elif action == "resume":
            await self._talks.resume(id)
            text = f"Conversation {id} goes on."
        elif action == "restart":
            text = f"Conversation {id} has ended; {await self._talks.restart(id)} begins anew with the same person."
        else:
            person = (await self._talks.show(id)).person.id
            await self._talks.takeover(person)
            text = f"A human looks after person {person}; nothing is sent but notes."
        return Done(True, text)


def _why(loaded: Loaded) -> str:
    chat = loaded.chat
    if chat.state not in LIVE:
        return chat.reason or f"it is {chat.state}"
    if chat.state != "active":
        return f"it is {chat.state}" + (f": {chat.reason}" if chat.reason else "")
    step = loaded.open
    return (
        "it goes on by itself" if step is None else f"it waits at {step.name} ({step.kind}) since {iso(step.opened_at)}"
    )
