"""Moving a conversation on: its function is run against the record, and all that follows is one transaction."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from oncue.clock import SECOND
from oncue.conversation.chat import Chat
from oncue.conversation.gate import window_end
from oncue.conversation.options import renamed
from oncue.conversation.outbox import NewMessage
from oncue.conversation.polite import Nudge as Wanted
from oncue.conversation.polite import plan, zone_of
from oncue.conversation.post import DELIVERED_WITHIN, Heard, Plan, Post
from oncue.conversation.replay import (
    Did,
    Ended,
    Misfit,
    Open,
    Outcome,
    Park,
    Pause,
    Run,
    Settling,
    Sleep,
    Waiting,
)
from oncue.scheduling import Scheduled, new_job
from oncue.store.chats import ChatRow, MessageKind, MessageRow, PersonRow, StepRow, many, one
from oncue.store.steps import Steps, run
from oncue.store.steps.chats import Loaded, event, move, save
from oncue.store.steps.insert import insert_jobs
from oncue.transport import Content, Inbound

if TYPE_CHECKING:
    from oncue.conversation.channels import Channel

log = logging.getLogger("oncue.conversation")
# Shorter delays need no sign that an answer is being written; longer ones outlast it.
_TYPING = (SECOND // 2, 25 * SECOND)
_TYPING_WITHIN = 2.0
MOST_HINTS = 20
"""So often a person is told that what they wrote is no answer to a question."""
_content = msgspec.json.Decoder(Content)
_plan = msgspec.json.Decoder(Plan)


class Moved(Exception):
    """Somebody else moved the conversation on meanwhile: nothing was stored."""


class Handled(Exception):
    """What came in was handled before: nothing was stored."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What chance and the clock say, drawn once, so that a transaction that is run again stores the same."""

    now: int
    delay: int = 0
    ref: str = field(default_factory=lambda: uuid4().hex)


class Advance:
    """Runs the conversations of a channel and stores what comes of it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def run(self, loaded: Loaded, heard: Heard | None, *, works: bool) -> Run:
        """Run a conversation's function as far as it goes; nothing is stored. Raises what the function raises."""
        name = loaded.chat.conversation
        conversation = self.channel.app.conversations.get(name)
        if conversation is None:
            raise LookupError(f"No conversation {name!r} is declared here; this one was begun by another version.")
        made = Run(loaded, self.channel.transport, self.channel.app.clock.now(), heard, works)
        made.outcome = await made.run(conversation.function, Chat(made))
        return made

    async def store(self, made: Run, outcome: Outcome, inbound: Inbound | None = None) -> None:
        """Store what comes of a run, in one transaction with the handling of ``inbound``, and tell who waits for it.

        Raises Moved or Handled where that is not to be done any more.
        """
        app, loaded = self.channel.app, made.loaded
        post = _post_of(outcome)
        delay = 0 if post is None else random.randint(post.low, post.high)
        drawn = Drawn(app.clock.now(), delay)
        due = await app.store.change(lambda: self._commit(made, outcome, inbound, drawn), drawn.now)
        app.wake.hint(drawn.now if due is None else due)
        if isinstance(outcome, Park):
            # What a function raised may quote what people write: its name is enough here.
            why = outcome.reason.rstrip(".") if outcome.error is None else outcome.reason.partition(":")[0]
            log.error(
                "conversation %r, chat %d, is parked: %s. `oncue conversations show %d` says more",
                loaded.chat.conversation, loaded.chat.id, why, loaded.chat.id,
            )  # fmt: skip
        last = loaded.last if inbound is None else inbound.external_id
        if post is not None and last is not None and due is not None:
            await self._show_typing(last, due - drawn.now)

    async def _show_typing(self, last: str, wait: int) -> None:
        transport = self.channel.transport
        if not transport.capabilities.typing or not _TYPING[0] <= wait <= _TYPING[1]:
            return
        try:
            async with asyncio.timeout(_TYPING_WITHIN):
                await transport.typing(last)
        except Exception as error:
            log.info("channel %s: typing could not be shown: %s", self.channel.name, type(error).__name__)

    def _commit(self, made: Run, outcome: Outcome, inbound: Inbound | None, drawn: Drawn) -> Steps[int | None]:
        """Store all of it; return when the next message or job is due."""
        loaded, now, chat = made.loaded, drawn.now, made.loaded.chat
        waits = loaded.open
        if not (yield from move(chat, now, **self._place(loaded, outcome, now))):
            raise Moved
        if inbound is not None:
            yield from self.take(inbound, chat.id, None if waits is None else waits.name, None, now)
        for row in made.done:
            yield from save(row)
            if row.kind == "ask":
                yield from self.channel.outbox.withdraw(chat.id, row.name, "answered", now)
        return (yield from self._follow(made, outcome, drawn))

    def _place(self, loaded: Loaded, outcome: Outcome, now: int) -> dict[str, Any]:
        """Return where the chat stands afterwards."""
        if isinstance(outcome, Open | Sleep):
            return {"step": outcome.row.name}
        if isinstance(outcome, Ended):
            return {"state": "done", "expires_at": self.channel.expires_at(now)}
        if isinstance(outcome, Pause | Did):
            return {}
        waits = None if loaded.open is None else loaded.open.name
        tries = loaded.chat.tries
        if isinstance(outcome, Park):
            values = {"reason": outcome.reason, "error": outcome.error}
            return {"state": "parked", "step": waits, "tries": tries, **values}
        return {"step": waits, "tries": tries + isinstance(outcome, Misfit)}

    def _follow(self, made: Run, outcome: Outcome, drawn: Drawn) -> Steps[int | None]:
        chat, now, waits = made.loaded.chat, drawn.now, made.loaded.open
        if isinstance(outcome, Open):
            return (yield from self._open(made, outcome.row, outcome.post, drawn))
        if isinstance(outcome, Sleep):
            yield from save(_planned(outcome.row, Plan(until=outcome.until)))
            return (yield from self.go_on(chat, chat.version + 1, outcome.until, now))
        if isinstance(outcome, Did):
            yield from save(outcome.row)
        if isinstance(outcome, Pause | Did):
            return (yield from self.go_on(chat, chat.version + 1, now, now))
        if isinstance(outcome, Ended):
            yield from event(chat, "done", "the conversation has come to its end", now)
            return None
        if isinstance(outcome, Park):
            yield from self.channel.outbox.withdraw(chat.id, None, "the conversation is parked", now)
            yield from event(chat, "parked", outcome.reason, now)
            return None
        assert waits is not None
        if isinstance(outcome, Waiting):
            return (yield from self._mend(made, waits, outcome.post, drawn))
        yield from self.channel.outbox.withdraw(chat.id, waits.name, "the person has written", now)
        if isinstance(outcome, Settling):
            return (yield from self.go_on(chat, chat.version + 1, now + outcome.wait, now, outcome.most))
        return (yield from self._hint(made, waits, outcome, drawn))

    def _open(self, made: Run, row: StepRow, post: Post, drawn: Drawn) -> Steps[int]:
        """Queue a step's message, and store the step."""
        chat, now, anchor = made.loaded.chat, drawn.now, made.anchor
        at = chat.started_at if anchor is None or anchor.done_at is None else anchor.done_at
        behind = None
        if post.after == "delivered" and anchor is not None and self.channel.transport.capabilities.statuses:
            # After an answer there is nothing to wait for: who answers has the question.
            sent = anchor.message if anchor.kind == "say" else None
            before = None if sent is None else (yield from one(MessageRow, "chat_message", id=sent))
            if before is not None and before.status in ("delivered", "read"):
                at = max(at, before.status_at or at)
            elif before is not None and before.state == "accepted":
                at, behind = at + DELIVERED_WITHIN, before.id
        due = max(now, at + drawn.delay)
        kind: MessageKind = "question" if row.kind == "ask" else "say"
        new = NewMessage(
            person=chat.person, kind=kind, content=post.content(drawn.ref, self.channel.transport), due=due,
            chat=chat.id, step=row.name, fallback=post.template, ref=drawn.ref,
        )  # fmt: skip
        id = yield from self.channel.outbox.queue(new, now)
        row = msgspec.structs.replace(row, message=id, opened_at=now)
        yield from save(_planned(row, Plan(remind=post.nudges(), behind=behind, delay=drawn.delay)))
        return due

    def _hint(self, made: Run, waits: StepRow, misfit: Misfit, drawn: Drawn) -> Steps[int | None]:
        chat, now, heard = made.loaded.chat, drawn.now, made.heard
        yield run("note_fragments", chat=chat.id, step=waits.name, note="no answer to this question")
        if chat.tries >= MOST_HINTS:
            return (yield from self._say_no_more(made, waits, now))
        due = max(now, drawn.delay + (now if heard is None else heard.at))
        content = misfit.question.hint(misfit.text, drawn.ref, self.channel.transport)
        new = NewMessage(
            person=chat.person, kind="hint", content=content, due=due, chat=chat.id, step=waits.name,
            nth=chat.tries + 1, ref=drawn.ref,
        )  # fmt: skip
        yield from self.channel.outbox.queue(new, now)
        return due

    def _say_no_more(self, made: Run, waits: StepRow, now: int) -> Steps[int | None]:
        """Two programs that answer each other would go on for ever, and each message is billed."""
        chat, message = made.loaded.chat, made.loaded.message
        if chat.tries == MOST_HINTS:
            text = f"{MOST_HINTS} answers to {waits.name!r} didn't fit: none that doesn't is replied to any more"
            yield from event(chat, "silent", text, now)
        return None if message is None else (yield from self._remind_again(made.loaded, waits, message, now))

    def _mend(self, made: Run, waits: StepRow, post: Post | None, drawn: Drawn) -> Steps[int | None]:
        """Make sure that what is waited for can come: after a resume, or a job that was lost."""
        loaded, now = made.loaded, drawn.now
        message = loaded.message
        if post is None:
            until = _plan.decode(waits.value or "{}").until or now
            return (yield from self.go_on(loaded.chat, loaded.chat.version + 1, until, now))
        if message is None or message.state in ("rejected", "skipped") or message.given_up:
            return (yield from self._open(made, waits, post, drawn))
        if waits.kind == "ask" and message.settled_at is not None:
            return (yield from self._remind_again(loaded, waits, message, now))
        return None

    def _remind_again(self, loaded: Loaded, waits: StepRow, question: MessageRow, now: int) -> Steps[int | None]:
        """Have come what was called off of a question that stays open: its hint, or else the reminders not yet due."""
        sent = yield from many(MessageRow, "step_messages", chat=loaded.chat.id, step=waits.name)
        asked = [one for one in sent if one.id == question.id or (one.kind == "hint" and one.id > question.id)]
        last = asked[-1]
        if last.kind == "hint" and last.state == "skipped":
            ref = uuid4().hex
            new = NewMessage(
                person=last.person, kind="hint", content=renamed(_content.decode(last.content), ref), due=now,
                chat=last.chat, step=last.step, nth=last.nth, ref=ref,
            )  # fmt: skip
            yield from self.channel.outbox.queue(new, now)
            return now
        if last.settled_at is None:
            # They begin once it is sent.
            return None
        begun = next(one for one in reversed(asked) if one.state in ("accepted", "unknown") or one.id == question.id)
        kept = {one.nth for one in sent if one.kind == "reminder" and one.id > begun.id and one.state != "skipped"}
        yield from self.remind(waits, begun, loaded.person, begun.settled_at or now, now, kept)
        return None

    def take(self, inbound: Inbound, chat: int | None, step: str | None, note: str | None, now: int) -> Steps[None]:
        """Mark what came in as handled. Raises Handled where it was."""
        names = {"channel": self.channel.name, "external_id": inbound.external_id}
        if not (yield run("take_inbound", chat=chat, step=step, note=note, now=now, **names)):
            raise Handled

    def go_on(self, chat: ChatRow, version: int, due: int, now: int, most: int | None = None) -> Steps[int]:
        """Store the job that goes on with a conversation. ``most``: put it off, by so much (microseconds) in all."""
        tasks = self.channel.tasks
        wanted = Scheduled(
            tasks.advance.call(chat.id, version), key=f"advance-{chat.id}", group=self.channel.lane(chat.person),
            on_conflict="replace" if most is None else "debounce", max_wait=None if most is None else most / SECOND,
        )  # fmt: skip
        job = new_job(wanted, now)
        job.scheduled_at = due
        yield from insert_jobs([job])
        return due

    def remind(
        self,
        step: StepRow,
        message: MessageRow,
        person: PersonRow,
        at: int,
        after: int = 0,
        kept: Collection[int] = (),
    ) -> Steps[None]:
        """Queue the reminders of an open question that was sent ``at`` that time, but for those due by ``after``, and
        for those that there are (``kept``: their numbers)."""
        now = self.channel.app.clock.now()
        nudges = _plan.decode(step.value or "{}").remind
        wanted = [Wanted(at + one.after, one.template is not None) for one in nudges]
        options = self.channel.options
        shuts = window_end(person, self.channel.transport.capabilities)
        times = plan(wanted, at, shuts, options.quiet, zone_of(person.timezone, options.timezone))
        for nth, (nudge, planned) in enumerate(zip(nudges, times, strict=True), 1):
            if planned.due is None:
                if after:
                    # That was said when they were queued first.
                    continue
                values = {"person": message.person, "chat": message.chat, "message": message.id, "at": now}
                text = f"reminder {nth} of {step.name!r} is left out: {planned.reason}"
                yield run("chat_event", kind="skipped", text=text, **values)
            elif planned.due > after and nth not in kept:
                ref = uuid4().hex
                content = nudge.content if nudge.content is not None else _content.decode(message.content)
                new = NewMessage(
                    person=message.person, kind="reminder", content=renamed(content, ref), due=planned.due,
                    chat=message.chat, step=step.name, nth=nth, fallback=nudge.template, ref=ref,
                )  # fmt: skip
                yield from self.channel.outbox.queue(new, now)


def _post_of(outcome: Outcome) -> Post | None:
    if isinstance(outcome, Open | Waiting):
        return outcome.post
    return outcome.question.post if isinstance(outcome, Misfit) else None


def _planned(row: StepRow, kept: Plan) -> StepRow:
    return msgspec.structs.replace(row, state="open", value=msgspec.json.encode(kept).decode(), done_at=None)
