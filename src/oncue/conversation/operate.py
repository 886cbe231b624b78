"""What operators and code do to conversations: start, list, pause, resume, restart, take over, release."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from oncue.clock import from_us
from oncue.conversation.addresses import address_of
from oncue.conversation.channels import Channel
from oncue.conversation.gate import window_end
from oncue.conversation.outbox import NewMessage
from oncue.conversation.people import Named, resolve
from oncue.conversation.people import person as person_of
from oncue.conversation.polite import checked_zone
from oncue.errors import ConfigError, InvalidJob, UnknownJob
from oncue.store.chats import TAKEN_OVER, ChatRow, ChatState, PersonRow, one
from oncue.store.operating import AuditRow
from oncue.store.steps import Steps, run
from oncue.store.steps import chats as record
from oncue.store.steps.chats import Loaded
from oncue.store.steps.operate import add_audit
from oncue.transport import Content, Template, Text

if TYPE_CHECKING:
    from oncue.app import OnCue
    from oncue.conversation.declare import Conversation

T = TypeVar("T")


async def start(
    conversation: Conversation, address: str, name: str | None, timezone: str | None, connection: Any
) -> int:
    """See ``Conversation.start``."""
    channel = conversation.channel
    who = address_of(channel.transport, address)
    app, flow = channel.app, channel.flow
    if timezone is not None:
        checked_zone(timezone)
    if connection is not None:
        app.store.know_time()
    now = app.clock.now()
    named = Named(who, None, name)

    def steps() -> Steps[int]:
        (found,) = yield from resolve(channel.name, [named], now)
        person = yield from person_of(found.id)
        if person is None:
            raise InvalidJob(f"{address} can't be found any more. Try again.")
        _check(person, address)
        if timezone is not None:
            yield run("set_timezone", id=person.id, timezone=timezone)
        chat = yield from flow.begin(conversation.name, person.id, now, now)
        if chat is None:
            live = yield from record.live_chat(person.id)
            raise InvalidJob(f"{address} is in a conversation already{_end_first(live)}")
        return chat

    if connection is None:
        made = await app.store.change(steps, now)
    else:
        made = await app.store.within(connection, steps, now)
    app.wake.hint(now)
    return made


def _check(person: PersonRow, address: str) -> None:
    if person.opted_out_at is not None:
        raise InvalidJob(f"{address} has opted out: they come back by writing a word that starts a conversation.")
    if person.stopped is not None:
        raise InvalidJob(f"Nothing can be sent to {address}: {person.stopped}")
    if person.human_since is not None:
        raise InvalidJob(f"{address} is looked after by a human: release them first.")


class Conversations:
    """The conversations of an application, for operators. All of it raises a StoreError where the store fails.

    ``who`` (``cli:root@host``) acts: then each change is in the audit, by the same transaction.
    """

    def __init__(self, app: OnCue, who: str | None = None) -> None:
        self._app, self._who = app, who

    async def list(
        self,
        conversation: str | None = None,
        state: ChatState | None = None,
        *,
        person: int | None = None,
        channel: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[ChatRow]:
        """Return conversations, the newest first, that match all that is given; ``before``: with lower numbers."""
        found = await self._app.store.look(lambda: record.listed(conversation, state, person, channel, limit, before))
        return [*found]

    async def counts(self) -> dict[str, dict[str, int]]:
        """Return how many conversations are in which state, by name."""
        return await self._app.store.look(record.counts)

    async def show(self, chat: int) -> Loaded:
        """Return a conversation with its person, its steps and what it waits at. Raises UnknownJob."""
        found = await self._app.store.look(lambda: record.load(chat))
        if found is None:
            raise _unknown(chat)
        return found

    async def duplicates(self, chat: int) -> int:
        """Return how many messages of a conversation reached its person more than once."""
        return await self._app.store.look(lambda: record.duplicates(chat))

    async def pause(self, chat: int, reason: str = "paused by an operator") -> None:
        """Send nothing more and go on with nothing, until it is resumed; what the person writes is kept.

        Raises UnknownJob, or InvalidJob where it is not active.
        """

        def steps(row: ChatRow, channel: Channel, now: int) -> Steps[None]:
            if row.state != "active":
                raise _not_now(row, "pause")
            yield from _pause(row, channel, reason, now)

        await self._change("pause", chat, steps)

    async def resume(self, chat: int) -> None:
        """Go on where it was paused or parked: what failed or was held back is tried anew.

        Raises UnknownJob, or InvalidJob where it is in another state or its person is looked after by a human.
        """

        def steps(row: ChatRow, channel: Channel, now: int) -> Steps[None]:
            if row.state not in ("paused", "parked"):
                raise _not_now(row, "resume")
            person = yield from person_of(row.person)
            if person is not None and person.human_since is not None:
                raise InvalidJob(
                    f"A human has taken over person {person.id}: release them instead, `oncue conversations release "
                    f"APP p{person.id}`."
                )
            yield from _resume(row, channel, now)

        await self._change("resume", chat, steps)

    async def restart(self, chat: int) -> int:
        """End a conversation and begin it anew with the same person; return the new one's number.

        Raises UnknownJob, or InvalidJob where the person is in another conversation, or nothing may be sent to them.
        """

        def steps(row: ChatRow, channel: Channel, now: int) -> Steps[int]:
            person = yield from person_of(row.person)
            if person is not None:
                # Its first message would be skipped, and nothing would ever follow.
                _check(person, f"Person {person.id}")
            yield from channel.flow.stop(row.id, "restarted", now)
            made = yield from channel.flow.begin(row.conversation, row.person, now, now)
            if made is None:
                live = yield from record.live_chat(row.person)
                raise InvalidJob(f"Person {row.person} is in another conversation by now{_end_first(live)}")
            return made

        return await self._change("restart", chat, steps)

    async def stop(self, chat: int, reason: str = "stopped by an operator") -> None:
        """End a conversation for good. Raises UnknownJob, or InvalidJob where it has ended."""

        def steps(row: ChatRow, channel: Channel, now: int) -> Steps[None]:
            if not (yield from channel.flow.stop(row.id, reason, now)):
                raise _not_now(row, "stop")

        await self._change("stop", chat, steps)

    async def takeover(self, person: int) -> None:
        """Have a human look after a person: their conversation waits, and nothing is sent to them but notes.

        Raises UnknownJob where there is no such person.
        """
        await self._of_person("takeover", person, _takeover)

    async def release(self, person: int) -> None:
        """Give a person back: their conversation goes on where it was. Raises UnknownJob, or InvalidJob where nobody
        has taken them over."""
        await self._of_person("release", person, _release)

    async def note(self, person: int, text: str | Content) -> int:
        """Send what a human writes to a person that they have taken over; return the message's number.

        It goes in the person's lane, after what was sent before. ``text``: a text, or content such as a Template, which
        alone goes while the window for free-form messages is shut. What becomes of it stands in the timeline. Raises
        UnknownJob, or InvalidJob where nobody has taken over, for what the messenger would refuse, and where it can't
        be sent to this person (now).
        """
        content = Text(text) if isinstance(text, str) else text

        def steps(row: PersonRow, channel: Channel, now: int) -> Steps[int]:
            _check_note(row, channel, content, now)
            new = NewMessage(person=row.id, kind="note", content=content, due=now, expires_at=channel.expires_at(now))
            return (yield from channel.outbox.queue(new, now))

        return await self._of_person("say", person, steps)

    async def timezone(self, person: int, name: str) -> None:
        """Keep the time zone that a person lives in (an IANA name). Raises UnknownJob, or ConfigError for no zone."""
        checked_zone(name)

        def steps(row: PersonRow, _channel: Channel, _now: int) -> Steps[None]:
            yield run("set_timezone", id=row.id, timezone=name)

        await self._of_person("timezone", person, steps)

    async def _of_person(self, action: str, person: int, steps: Callable[[PersonRow, Channel, int], Steps[T]]) -> T:
        now = self._app.clock.now()

        def found() -> Steps[T]:
            row = yield from person_of(person)
            if row is None:
                raise UnknownJob(f"There is no person {person}.")
            answer = yield from steps(row, self._channel(row.channel), now)
            yield from self._record(action, f"person:{person}", now)
            return answer

        answer = await self._app.store.change(found, now)
        self._app.wake.hint(now)
        return answer

    async def _change(self, action: str, chat: int, steps: Callable[[ChatRow, Channel, int], Steps[T]]) -> T:
        now = self._app.clock.now()

        def found() -> Steps[T]:
            row = yield from one(ChatRow, "lock_chat", id=chat)
            if row is None:
                raise _unknown(chat)
            answer = yield from steps(row, self._channel(row.channel), now)
            yield from self._record(action, f"conversation:{chat}", now)
            return answer

        answer = await self._app.store.change(found, now)
        self._app.wake.hint(now)
        return answer

    def _record(self, action: str, target: str, now: int) -> Steps[None]:
        if self._who is not None:
            yield from add_audit(AuditRow(0, now, self._who, action, target))

    def _channel(self, name: str) -> Channel:
        channel = self._app.channels.get(name)
        if channel is None:
            known = ", ".join(sorted(self._app.channels)) or "none"
            raise ConfigError(f"No channel {name!r} is declared here (known: {known}).")
        return channel


def _end_first(live: ChatRow | None) -> str:
    if live is None:
        return ". Try again."
    how = f"`oncue conversations stop APP {live.id}`, or Conversations(app).stop({live.id})"
    return f": {live.conversation!r}, number {live.id}, {live.state}. End that one first: {how}."


def _pause(chat: ChatRow, channel: Channel, reason: str, now: int) -> Steps[None]:
    yield from record.move(chat, now, state="paused", step=chat.step, tries=chat.tries, reason=reason)
    yield from channel.outbox.withdraw(chat.id, None, reason, now)
    yield from record.event(chat, "paused", reason, now)


def _resume(chat: ChatRow, channel: Channel, now: int) -> Steps[None]:
    yield from record.move(chat, now, step=chat.step, tries=chat.tries)
    yield from record.event(chat, "resumed", f"it was {chat.state}: {chat.reason}", now)
    yield from channel.flow.engine.go_on(chat, chat.version + 1, now, now)


def _takeover(person: PersonRow, channel: Channel, now: int) -> Steps[None]:
    chat = yield from record.live_chat(person.id)
    if chat is not None and chat.state == "active":
        yield from _pause(chat, channel, TAKEN_OVER, now)
    yield run("set_human", id=person.id, at=now)
    yield from channel.outbox.withdraw_person(person.id, TAKEN_OVER, now)
    yield run("chat_event", person=person.id, chat=None, message=None, at=now, kind="takeover", text=TAKEN_OVER)


def _release(person: PersonRow, channel: Channel, now: int) -> Steps[None]:
    if person.human_since is None:
        raise InvalidJob(f"Nobody has taken over person {person.id}: there is nothing to give back.")
    yield run("set_human", id=person.id, at=None)
    yield run("chat_event", person=person.id, chat=None, message=None, at=now, kind="release", text="no human any more")
    chat = yield from record.live_chat(person.id)
    if chat is not None and chat.state == "paused" and chat.reason == TAKEN_OVER:
        yield from _resume(chat, channel, now)


def _check_note(person: PersonRow, channel: Channel, content: Content, now: int) -> None:
    if person.human_since is None:
        raise InvalidJob(
            f"Nobody has taken over person {person.id}, so their answer would go to the conversation. Take them over "
            f"first: `oncue conversations takeover APP p{person.id}`."
        )
    if person.opted_out_at is not None:
        raise InvalidJob(f"Person {person.id} has opted out: nothing may be sent to them before they come back.")
    if person.stopped is not None:
        raise InvalidJob(f"Nothing can be sent to person {person.id}: {person.stopped}")
    shuts = window_end(person, channel.transport.capabilities)
    if shuts is not None and shuts <= now and not isinstance(content, Template):
        since = "they have never written" if not shuts else f"it shut at {from_us(shuts):%Y-%m-%d %H:%M} UTC"
        raise InvalidJob(f"The window of person {person.id} is shut ({since}): only a Template can be sent to them.")


def _unknown(chat: int) -> UnknownJob:
    return UnknownJob(f"There is no conversation {chat}. `oncue conversations list` shows them.")


def _not_now(chat: ChatRow, action: str) -> InvalidJob:
    return InvalidJob(f"Conversation {chat.id} is {chat.state}; '{action}' does not apply to that.")
