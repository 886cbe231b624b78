"""What happens to conversations: what people write is heard, messages are accepted or fail, functions go on."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from oncue.clock import SECOND
from oncue.context import current_job
from oncue.conversation.advance import Advance, Handled, Moved
from oncue.conversation.holds import AGAIN, AS_TEMPLATE
from oncue.conversation.options import split_option
from oncue.conversation.post import Heard, Plan
from oncue.conversation.replay import Park, Run, Settling
from oncue.conversation.trouble import told
from oncue.errors import ConfigError, InvalidJob
from oncue.retry import Discard, RetryAfter, Snooze
from oncue.store.chats import ChatRow, InboundRow, MessageRow, PersonRow, StepRow, one
from oncue.store.steps import Steps, ask, fetch, manage, run
from oncue.store.steps import chats as record
from oncue.store.steps.chats import Loaded
from oncue.task import DiscardedJob
from oncue.transport import Inbound, Verdict

if TYPE_CHECKING:
    from oncue.conversation.channels import Channel
    from oncue.conversation.declare import Conversation

log = logging.getLogger("oncue.conversation")
_TRIES = 5
# What is no reply to anything.
_SILENT = ("reaction", "system")
# By so much the provider's clock may differ from ours.
_SKEW = 60 * SECOND


class FunctionFailed(Exception):
    """A conversation's function raised something, which may quote what people write: its text is not for the log."""


class Heeded(NamedTuple):
    """What is known when a message of a person comes in. ``named``: (chat, step) of our message that it names."""

    heard_at: int
    loaded: Loaded | None
    named: tuple[int | None, str | None] | None


class Flow:
    """The conversations of one channel. What returns ``Steps`` runs inside the caller's transaction."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.engine = Advance(channel)

    def starts(self, text: str) -> bool:
        """Tell whether a text starts one of the channel's conversations."""
        return self.starting(text) is not None

    def starting(self, text: str) -> Conversation | None:
        """Return the channel's conversation that a text starts; None where it starts none."""
        for known in self.channel.app.conversations.values():
            if known.channel is self.channel and known.begins is not None and known.begins.matches(text):
                return known
        return None

    def allows(self, message: MessageRow, now: int) -> Steps[str | None]:
        """Return why a message must not go any more; None where it may."""
        if message.chat is None or message.kind == "note":
            return None
        chat = yield from record.chat_of(message.chat)
        if chat is None:
            return "its conversation is gone"
        again = message.kind == "say" and message.resolution in (AGAIN, AS_TEMPLATE)
        if chat.state != "active" and not (again and chat.state == "done"):
            return f"the conversation is {chat.state}{': ' + chat.reason if chat.reason else ''}"
        step = yield from self._step(message)
        if step is None or (step.state == "done" and not again):
            return "the conversation has moved on"
        if message.kind in ("question", "say"):
            return None if step.message == message.id else "another message has taken its place"
        pending = yield from fetch("chat_fragments", chat=chat.id, step=step.name)
        return "the person has written" if pending else None

    def accepted(self, message: MessageRow, at: int) -> Steps[None]:
        """The messenger has the message. Told once a message."""
        found = yield from self._open_step(message)
        if found is None:
            return
        chat, step = found
        if step.kind == "ask" and message.kind in ("question", "hint"):
            if chat.state == "active" and not (yield from self._has_written(chat, step)):
                person = yield from one(PersonRow, "person_by_id", id=message.person)
                if person is not None:
                    yield from self.engine.remind(step, message, person, at)
        elif step.kind == "say" and message.kind == "say":
            yield from record.save(msgspec.structs.replace(step, state="done", value="null", done_at=at))
            now = self.channel.app.clock.now()
            # Where it is paused or parked a resume goes on.
            values = {"state": chat.state, "reason": chat.reason, "error": chat.error}
            yield from record.move(chat, now, **values)  # type: ignore[arg-type]
            if chat.state == "active":
                yield from self.engine.go_on(chat, chat.version + 1, now, now)

    def delivered(self, message: MessageRow, at: int) -> Steps[None]:
        """It was delivered or read. Told once a message."""
        if message.chat is None or message.kind != "say":
            return
        loaded = yield from record.load(message.chat)
        waits = None if loaded is None else loaded.open
        if loaded is None or waits is None or loaded.message is None or loaded.message.state != "queued":
            return
        kept = msgspec.json.decode(waits.value or "{}", type=Plan)
        due = max(at + kept.delay, self.channel.app.clock.now())
        if kept.behind == message.id and due < loaded.message.due:
            yield run("move_message", id=loaded.message.id, due=due)
            yield from manage.reschedule(due, id=None, key=f"message-{loaded.message.ref}")

    def failed(self, message: MessageRow, reason: str, verdict: Verdict) -> Steps[None]:
        """It will not reach the person: refused, given up after a second unknown outcome, or failed after all."""
        now = self.channel.app.clock.now()
        if verdict == "stop_person":
            chat = yield from record.live_chat(message.person)
            if chat is not None:
                yield from self.stop(chat.id, f"the person can't be reached: {reason}", now)
            return
        found = yield from self._open_step(message)
        if found is None or message.kind not in ("question", "say"):
            return
        chat, step = found
        why = f"the message of {step.name!r} failed: {reason}"
        yield from record.move(chat, now, state="parked", step=step.name, tries=chat.tries, reason=why)
        yield from self.channel.outbox.withdraw(chat.id, None, "the conversation is parked", now)
        yield from record.event(chat, "parked", why, now)

    def going_on(self, message: MessageRow, at: int) -> Steps[None]:
        """Nobody knows whether it was sent, and it is not sent again: go on as if it had been."""
        yield from self.accepted(message, at)

    def stop(self, chat: int, reason: str, now: int) -> Steps[bool]:
        """End a conversation for good; False where it has ended."""
        row = yield from one(ChatRow, "lock_chat", id=chat)
        if row is None or row.state in ("done", "stopped"):
            return False
        yield from record.move(
            row, now, state="stopped", step=row.step, reason=reason, expires_at=self.channel.expires_at(now)
        )
        yield from self.channel.outbox.withdraw(chat, None, reason, now)
        yield from record.event(row, "stopped", reason, now)
        return True

    def begin(self, conversation: str, person: int, at: int, now: int) -> Steps[int | None]:
        """Begin a conversation with a person; None where they are in one already."""
        values = {"conversation": conversation, "channel": self.channel.name, "person": person}
        id: int | None = yield ask("add_chat", at=at, now=now, **values)
        if id is not None:
            chat = ChatRow(id, conversation, self.channel.name, person, "active", 0, at, now)
            yield from record.event(chat, "started", f"conversation {conversation!r}", now)
            yield from self.engine.go_on(chat, 0, now, now)
        return id

    def _step(self, message: MessageRow) -> Steps[StepRow | None]:
        return (yield from one(StepRow, "chat_step", chat=message.chat, name=message.step))

    def _open_step(self, message: MessageRow) -> Steps[tuple[ChatRow, StepRow] | None]:
        """Return the live conversation, held until the transaction ends, and the open step that a message is of."""
        chat = None if message.chat is None else (yield from one(ChatRow, "lock_chat", id=message.chat))
        if chat is None or chat.state in ("done", "stopped") or message.step is None:
            return None
        step = yield from self._step(message)
        if step is None or step.state == "done":
            return None
        if message.kind in ("question", "say") and step.message != message.id:
            return None
        return chat, step

    def _has_written(self, chat: ChatRow, step: StepRow) -> Steps[bool]:
        return bool((yield from fetch("chat_fragments", chat=chat.id, step=step.name)))

    async def hear(self, person: PersonRow, inbound: Inbound) -> None:
        """A message that the person has just written: the answer, a part of it, or what starts a conversation.

        Marks the stored message as handled in the transaction of what follows from it.
        """
        for _ in range(_TRIES):
            try:
                await self._hear(person, inbound)
            except Moved:
                continue
            except Handled:
                pass
            return
        raise RetryAfter(1, f"The conversation of person {person.id} moved on {_TRIES} times while this was handled.")

    async def _hear(self, person: PersonRow, inbound: Inbound) -> None:
        store = self.channel.app.store
        heeded = await store.look(lambda: self._heed(person, inbound))
        loaded = heeded.loaded
        if loaded is None:
            await self._start(person, inbound, heeded.heard_at)
            return
        why = _no_answer(loaded, inbound, heeded)
        waits = loaded.open
        if why is not None or waits is None:
            await self._note(inbound, loaded.chat.id, None, why)
        elif loaded.chat.state != "active":
            # Kept for when it is resumed.
            await self._note(inbound, loaded.chat.id, waits.name, None)
        else:
            await self._answer(loaded, inbound, heeded.heard_at)

    def _heed(self, person: PersonRow, inbound: Inbound) -> Steps[Heeded]:
        names = {"channel": self.channel.name, "external_id": inbound.external_id}
        heard_at = yield ask("chat_inbound_heard", **names)
        chat = yield from record.live_chat(person.id)
        loaded = None if chat is None else (yield from record.load_from(chat))
        ref = split_option(inbound.choice)[0] if inbound.choice is not None else None
        name = ref or inbound.replies_to
        named = None
        if name is not None:
            text = yield ask("chat_of_message", channel=self.channel.name, name=name)
            named = None if text is None else tuple(msgspec.json.decode(text))
        return Heeded(heard_at or self.channel.app.clock.now(), loaded, named)

    async def _start(self, person: PersonRow, inbound: Inbound, heard_at: int) -> None:
        conversation = self.starting(inbound.text)
        if conversation is None:
            await self._note(inbound, None, None, "no conversation is open, and this starts none")
            return
        app, now = self.channel.app, self.channel.app.clock.now()
        name = conversation.name

        def steps() -> Steps[None]:
            chat = yield from self.begin(name, person.id, heard_at, now)
            if chat is None:
                raise Moved
            yield from self.engine.take(inbound, chat, None, None, now)

        await app.store.change(steps, now)
        app.wake.hint(now)

    async def _note(self, inbound: Inbound, chat: int | None, step: str | None, note: str | None) -> None:
        now = self.channel.app.clock.now()
        await self.channel.app.store.change(lambda: self.engine.take(inbound, chat, step, note, now))

    async def _answer(self, loaded: Loaded, inbound: Inbound, heard_at: int) -> None:
        heard = _heard(loaded.fragments, inbound, heard_at)
        try:
            made = await self.engine.run(loaded, heard, works=False)
            assert made.outcome is not None
            outcome = made.outcome
        except Exception as error:
            # It is kept, and tried again by a job of its own, which parks the conversation at last.
            name = loaded.chat.conversation
            log.warning("conversation %r, chat %d, fails, and is tried again: %s", name, loaded.chat.id, told(error))
            made = Run(loaded, self.channel.transport, self.channel.app.clock.now(), heard)
            outcome = Settling(0, 0)
        await self.engine.store(made, outcome, inbound)

    async def advance(self, chat: int, version: int) -> None:
        """Run a conversation's function as far as it goes; nothing where the chat has moved on from ``version``."""
        loaded = await self.channel.app.store.look(lambda: record.load(chat))
        if loaded is None or loaded.chat.state != "active" or loaded.chat.version != version:
            return
        heard = _heard(loaded.fragments, None, 0) if loaded.fragments else None
        made = Run(loaded, self.channel.transport, self.channel.app.clock.now(), heard)
        try:
            made = await self.engine.run(loaded, heard, works=True)
            assert made.outcome is not None
            outcome = made.outcome
        except Snooze:
            raise
        except Exception as error:
            if _tries_left() and not isinstance(error, (ConfigError, InvalidJob, Discard)):
                told_so = FunctionFailed(f"{type(error).__name__} in {loaded.chat.conversation!r}, chat {chat}")
                # Where it arose, but none of the texts: what a job raises is kept, shown and traced.
                raise told_so.with_traceback(error.__traceback__) from None
            outcome = Park(f"{type(error).__name__}: {error}", traceback.format_exc())
        try:
            await self.engine.store(made, outcome)
        except Moved:
            log.info("chat %d moved on while its version %d was worked on", chat, version)

    async def given_up(self, job: DiscardedJob) -> None:
        """An advance was given up without a word of its own, as when its worker died each time: park the chat."""
        args = msgspec.json.decode(job.args)
        loaded = await self.channel.app.store.look(lambda: record.load(args["chat"]))
        if loaded is None or loaded.chat.state != "active" or loaded.chat.version != args["version"]:
            return
        made = Run(loaded, self.channel.transport, self.channel.app.clock.now())
        try:
            await self.engine.store(made, Park(job.reason, job.error))
        except Moved:
            log.info("chat %d moved on after its job %d was given up", loaded.chat.id, job.id)


def _tries_left() -> bool:
    try:
        return current_job().attempts_left > 0
    except LookupError:
        return False


def _heard(fragments: list[InboundRow], inbound: Inbound | None, heard_at: int) -> Heard:
    """Put together what was written at a step."""
    parts = [msgspec.json.decode(row.content, type=Inbound) for row in fragments]
    at = max([heard_at, *(row.heard_at for row in fragments)])
    if inbound is not None:
        parts.append(inbound)
    tapped = [part.choice for part in parts if part.choice is not None]
    texts = tuple(part.text for part in parts if part.text)
    return Heard(texts, tapped[-1] if tapped else None, at, settled=inbound is None)


def _no_answer(loaded: Loaded, inbound: Inbound, heeded: Heeded) -> str | None:
    """Return why a message is no answer to what is open; None where it may be one."""
    waits, message = loaded.open, loaded.message
    if waits is None or waits.kind != "ask":
        return "nothing was asked"
    if inbound.kind in _SILENT:
        return f"a {inbound.kind} is no answer"
    if heeded.named is not None:
        if heeded.named == (loaded.chat.id, waits.name):
            return None
        if inbound.choice is not None:
            return "an answer to another question"
    return "it came before the question was sent" if _came_before(message, inbound, heeded.heard_at) else None


def _came_before(message: MessageRow | None, inbound: Inbound, heard_at: int) -> bool:
    """Tell whether the person can't have seen our message when they wrote."""
    if message is None or message.attempt == 0 or inbound.sent_at < message.created_at - _SKEW:
        return True
    if message.state == "queued" and message.unknown_at is None and not message.resent:
        # Refused for now, each time.
        return True
    # Of several attempts the first may be the one that was seen.
    return message.attempt == 1 and message.sending_at is not None and heard_at < message.sending_at
