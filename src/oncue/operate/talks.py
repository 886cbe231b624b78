"""Conversations with people, as an operator sees and steers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from oncue.clock import SECOND
from oncue.conversation.care import People
from oncue.conversation.operate import Conversations
from oncue.conversation.settle import INTAKE_GAP
from oncue.conversation.standing import Channels, disabled_of
from oncue.conversation.timeline import Entry, discreet, duplicates, timeline, waits_of
from oncue.errors import UnknownJob
from oncue.operate.find import cursor_of
from oncue.operate.shape import iso, maybe_iso
from oncue.operate.talk_views import (
    ChannelView,
    Person,
    PersonLife,
    Said,
    TalkLife,
    TalkMessage,
    TalkPage,
    TalkStep,
    TalkSummary,
)
from oncue.operate.views import Done
from oncue.redaction import HIDDEN
from oncue.store.chats import LIVE, ChatRow, MessageRow, PersonRow, Standing, StepRow
from oncue.store.steps import Steps, chats, files
from oncue.store.steps.chats import Loaded
from oncue.why import near, seconds

if TYPE_CHECKING:
    from oncue.app import OnCue

TalkAction = Literal["pause", "resume", "restart", "stop", "takeover", "release"]
_ENDED = ("done", "stopped")
_LOOKED_AT = 1_000
_LANE = 100
_NAMES = {"question": "question", "say": "message"}


SAID: dict[TalkAction, str] = {
    "pause": "Conversation {chat} is paused: nothing is sent.",
    "resume": "Conversation {chat} goes on.",
    "restart": "Conversation {chat} has ended; {new} begins anew with the same person.",
    "stop": "Conversation {chat} has ended.",
    "takeover": "A human looks after person {person}; nothing is sent but notes, until they are released.",
    "release": "Person {person} is given back: a conversation that waited for that goes on.",
}
"""What every face says of what was done."""


class Talks:
    """Reads and steers conversations on behalf of somebody (``who``)."""

    def __init__(self, app: OnCue, who: str, *, redact: bool) -> None:
        self._app, self._who, self._redact = app, who, redact
        self._talks = Conversations(app, who)

    async def page(
        self,
        state: str | None,
        conversation: str | None,
        person: int | None,
        cursor: str | None,
        limit: int,
        channel: str | None = None,
    ) -> TalkPage:
        """Return conversations, the newest first. ``state``: one, or ``ended``."""
        wanted: Any = None if state == "ended" else state
        # One more than is shown: whether there are others. Of those that have ended, a bounded number is looked at.
        count = _LOOKED_AT if state == "ended" else limit + 1
        before = cursor_of(cursor)
        looked = await self._talks.list(
            conversation, wanted, person=person, channel=channel, limit=count, before=before
        )
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
        reason = None if row.reason is None else self._said(row.reason, person)
        return TalkSummary(row.id, row.state, row.conversation, row.channel, row.person, name, row.step, *times, reason)

    def _said(self, text: str, person: PersonRow | None) -> str:
        """Return a reason, which may quote an error and that what the person wrote."""
        if not self._redact:
            return text
        return HIDDEN if person is None else discreet(text, person)

    async def life(self, id: int) -> TalkLife:
        """Return a conversation and all that was said and done in it. Raises UnknownJob."""
        loaded = await self._talks.show(id)
        file = await self._app.store.look(lambda: files.file_of(loaded.person.id))
        entries = [] if file is None else timeline(file, redact=self._redact)
        said = [_said(one) for one in entries if one.chat in (None, id)]
        error = None if self._redact else loaded.chat.error
        return TalkLife(
            self._summary(loaded.chat, loaded.person), await self.why(loaded), maybe_iso(loaded.person.human_since),
            error, await self._talks.duplicates(id), self._message(loaded), [self._step(one) for one in loaded.steps],
            said,
        )  # fmt: skip

    def _message(self, loaded: Loaded) -> TalkMessage | None:
        if loaded.open is None or (message := loaded.message) is None:
            return None
        reason = None if self._redact else message.reason
        return TalkMessage(message.kind, message.state, iso(message.due), reason)

    def _step(self, step: StepRow) -> TalkStep:
        opened, value = step.state == "open", None
        if not opened and step.value is not None:
            value = HIDDEN if self._redact else msgspec.json.decode(step.value)
        waits = waits_of(step) if opened else None
        return TalkStep(step.name, step.kind, step.state, value, waits, iso(step.opened_at), maybe_iso(step.done_at))

    async def people(self, name: str, channel: str | None = None) -> list[Person]:
        """Return whom a name fits: an address as people write it, the messenger's id of the person, or ``p17``."""
        return [_person(row, self._redact) for row in await People(self._app).find(name, channel)]

    async def person(self, id: int, *, redact: bool = False) -> PersonLife:
        """Return a person and all that was said to and by them; with ``redact`` as if the application hid texts.

        Raises UnknownPerson.
        """
        hides = redact or self._redact
        file = await People(self._app).file(id)
        said = [_said(one) for one in timeline(file, redact=hides)]
        return PersonLife(_person(file.person, hides), duplicates(file), said)

    async def channels(self) -> list[ChannelView]:
        """Return how each channel stands of which anything is known, by name."""
        now = self._app.clock.now()
        return [_channel(row, now) for row in await Channels(self._app).list()]

    async def why(self, loaded: Loaded) -> str:
        """Return in words what a conversation waits for, since when, and what would help."""
        return self._said(await self._why(loaded), loaded.person)

    async def _why(self, loaded: Loaded) -> str:
        chat, person, now = loaded.chat, loaded.person, self._app.clock.now()
        if chat.state not in LIVE:
            return chat.reason or f"it is {chat.state}"
        if person.human_since is not None:
            return f"a human has taken over since {near(person.human_since, now)}: releasing the person lets it go on"
        if chat.state != "active":
            reason = f": {chat.reason}" if chat.reason else ""
            return f"it is {chat.state} since {near(chat.changed_at, now)}{reason}; resuming it lets it go on"
        step, told = loaded.open, "it goes on by itself"
        if step is not None:
            message = loaded.message
            does = f"it {waits_of(step)}" if message is None else await self._of_message(step, message, now)
            told = f"at {step.name}, {does}"
        return told + await self._late(chat)

    async def _of_message(self, step: StepRow, message: MessageRow, now: int) -> str:
        name = _NAMES.get(message.kind, message.kind)
        if message.state == "accepted":
            return f"its {name} was sent {near(message.settled_at or message.due, now)}; it {waits_of(step)}"
        if message.state == "unknown" and message.settled_at is None:
            return await self._unknown(name, message, now)
        reason = f": {message.reason}" if message.reason else ""
        if message.state == "queued" and message.due > now:
            return f"its {name} goes out {near(message.due, now)}"
        if message.state == "queued":
            return f"its {name}, due {near(message.due, now)}, is not sent yet{reason}"
        return f"its {name} is {message.state}{reason}"

    async def _unknown(self, name: str, message: MessageRow, now: int) -> str:
        rows = await self._app.store.look(chats.channels_now)
        seen = next((row.seen_at for row in rows if row.name == message.channel), None)
        text = f"nobody knows since {near(message.unknown_at or now, now)} whether its {name} was sent"
        if seen is None or seen < now - INTAKE_GAP:
            when = "has never run" if seen is None else f"was not seen for {seconds(now - seen)}"
            return f"{text}, and the intake of updates, which would tell, {when}: is what serves the webhook alive?"
        return f"{text}; later ones to this person wait for a status, an answer, or the resend rule"

    async def _late(self, chat: ChatRow) -> str:
        """Say which job about the person is late, and why: what they wrote, or what is to be sent, waits for it."""
        before = self._app.clock.now() - SECOND
        lane = await self._app.jobs.list(state=["scheduled"], group=f"{chat.channel}:{chat.person}", limit=_LANE)
        if not (late := [job for job in lane if job.scheduled_at < before]):
            return ""
        first = min(late, key=lambda job: (job.scheduled_at, job.id))
        return f"; job {first.id} ({first.task}) is late: {await self._app.jobs.why(first)}"

    async def act(self, action: TalkAction, id: int) -> Done:
        """Steer a conversation. Raises UnknownJob, or InvalidJob where it does not apply to its state."""
        if not self._app.channels:
            raise UnknownJob(f"There is no conversation {id}: this application has no channel.")
        talks, new, person = self._talks, 0, 0
        if action == "pause":
            await talks.pause(id, f"paused by {self._who}")
        elif action == "resume":
            await talks.resume(id)
        elif action == "restart":
            new = await talks.restart(id)
        elif action == "stop":
            await talks.stop(id, f"stopped by {self._who}")
        else:
            person = (await talks.show(id)).person.id
            await (talks.takeover(person) if action == "takeover" else talks.release(person))
        return Done(True, SAID[action].format(chat=id, new=new, person=person))


def _said(one: Entry) -> Said:
    return Said(iso(one.at), one.who, one.kind, one.text, one.chat, one.message)


def _person(row: PersonRow, hides: bool) -> Person:
    name, address, user_id = (None, None, None) if hides else (row.name, row.address, row.user_id)
    return Person(
        row.id, row.channel, name, address, user_id, row.timezone, iso(row.created_at), maybe_iso(row.heard_at),
        maybe_iso(row.human_since), maybe_iso(row.opted_out_at), maybe_iso(row.no_marketing_at),
        maybe_iso(row.wait_until), discreet(row.stopped, row) if hides and row.stopped else row.stopped,
    )  # fmt: skip


def _channel(row: Standing, now: int) -> ChannelView:
    sends: Literal["yes", "waits", "paused", "stopped"] = "yes"
    since, reason = None, None
    if row.stopped is not None and row.paused_at is not None:
        sends, since, reason = "stopped", row.stopped_at, row.stopped
    elif row.paused_at is not None:
        sends, since, reason = "paused", row.paused_at, "its queue was paused"
    elif row.wait_until is not None and row.wait_until > now:
        sends, reason = "waits", f"the messenger asked it to wait, for {seconds(row.wait_until - now)} more"
    return ChannelView(
        row.name, sends, maybe_iso(since), reason, maybe_iso(row.heard_at), maybe_iso(row.seen_at), row.unknown,
        row.duplicates, list(disabled_of(row)),
    )  # fmt: skip
