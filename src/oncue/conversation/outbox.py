"""The outbox: each message to a person is a row, a job sends it, and what came of it is told by statuses.

A message is ``queued``, then ``sending`` (transaction A, which checks all that must hold and commits before the request
is made), then what the messenger's answer says (transaction B): ``accepted``, ``rejected``, ``queued`` again, or
``unknown`` where it may have been sent. A job that finds its message ``sending`` follows one that died in between: that
is unknown too. See ``Settle.trust`` for how an unknown outcome ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from oncue.clock import SECOND, seconds_to_us
from oncue.context import JobContext
from oncue.conversation import people
from oncue.conversation.gate import DAY, Drop, Facts, Go, Manners, SendOptions, Wait, decide, next_look, window_end
from oncue.conversation.settle import FlowSteps, Settle, echo_of, job_key, manners_window, template_of
from oncue.conversation.trouble import told
from oncue.conversation.verdicts import Then, Verdicts
from oncue.errors import StoreError
from oncue.retry import Snooze
from oncue.store.chats import GIVEN_UP, ChannelRow, MessageKind, MessageRow, many, one
from oncue.store.steps import Steps, as_json, ask, fetch, manage, run
from oncue.transport import Address, Answer, Content, Outgoing, Template
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.conversation.channels import Channel

__all__ = ["Duplicate", "FlowSteps", "NewMessage", "Outbox"]
log = logging.getLogger("oncue.conversation")
# A process that was stopped between transaction A and the request must not go on where others have taken over: a
# worker's lease, after which its jobs are taken back, is longer than this.
_FRESH = 5.0
_RECORDED = 4


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message to queue. ``due``: microseconds since the epoch; ``fallback``: the template for a window that is shut;
    ``nth``: which reminder, or which hint, of its step; ``stale``: seconds (None: the channel's) after ``due`` beyond
    which a reminder is skipped; ``ref`` is what the echo names it by."""

    person: int
    kind: MessageKind
    content: Content
    due: int
    chat: int | None = None
    step: str | None = None
    nth: int = 0
    fallback: Template | None = None
    stale: float | None = None
    expires_at: int | None = None
    ref: str = msgspec.field(default_factory=lambda: uuid4().hex)


class Duplicate(msgspec.Struct, frozen=True):
    """A message that went out more than once, as its external ids tell."""

    message: int
    ref: str
    person: int
    chat: int | None
    step: str | None
    kind: MessageKind
    copies: int


@dataclass(frozen=True, slots=True)
class _Ready:
    """What transaction A released: this attempt of a message may be sent."""

    id: int
    person: int
    attempt: int
    outgoing: Outgoing


class Outbox:
    """The messages of one channel on their way to people."""

    def __init__(self, channel: Channel, flow: FlowSteps) -> None:
        self.channel, self.flow = channel, flow
        self.settle = Settle(channel, flow)
        self._verdicts = Verdicts(channel, self.settle)

    @property
    def manners(self) -> Manners:
        """What the channel's options say of reminders and unknown outcomes."""
        options = self.channel.options
        return Manners(
            options.quiet, options.timezone, seconds_to_us(options.stale), manners_window(self.channel),
            options.unique_per_day,
        )  # fmt: skip

    def queue(self, new: NewMessage, now: int) -> Steps[int]:
        """Store a message and the job that sends it; return the message's id. Raises InvalidJob for content that the
        messenger would refuse."""
        self.channel.transport.check(new.content)
        if new.fallback is not None and self.channel.transport.capabilities.templates:
            self.channel.transport.check(new.fallback)
        id: int = yield ask(
            "add_message", ref=new.ref, channel=self.channel.name, person=new.person, chat=new.chat, step=new.step,
            kind=new.kind, nth=new.nth, content=as_json(new.content),
            fallback=None if new.fallback is None else as_json(new.fallback), options=as_json(SendOptions(new.stale)),
            due=new.due, now=now, expires_at=new.expires_at,
        )  # fmt: skip
        yield from self.settle.add_job(new.ref, new.person, new.due, now)
        return id

    def withdraw(
        self, chat: int, step: str | None, reason: str, now: int, kind: MessageKind | None = None
    ) -> Steps[int]:
        """Skip the queued messages of a chat (of a step of it, of a kind), and cancel their jobs; return how many."""
        person = yield ask("chat_person", chat=chat)
        if person is None:
            return 0
        return (yield from self._withdraw(reason, now, person=person, chat=chat, step=step, kind=kind))

    def withdraw_person(self, person: int, reason: str, now: int) -> Steps[int]:
        """Skip all queued messages to a person except notes, and cancel their jobs; return how many."""
        return (yield from self._withdraw(reason, now, person=person, chat=None, step=None, kind=None))

    def _withdraw(self, reason: str, now: int, **which: Any) -> Steps[int]:
        found = [
            row for row in (yield from fetch("queued_messages", **which)) if row[3] is not None or row[4] != "note"
        ]
        if not found:
            return 0
        yield run("skip_messages", ids=as_json([row[0] for row in found]), reason=reason, now=now)
        retention = self.channel.app.retention_us
        for id, ref, person, chat, _ in found:
            values = {"person": person, "chat": chat, "message": id}
            yield run("outbox_event", at=now, kind="skipped", text=reason, **values)
            # One that runs at this moment finds its message skipped.
            yield from manage.cancel(now, None if retention is None else now + retention, id=None, key=job_key(ref))
        return len(found)

    def charge(self, count: int, now: int) -> Steps[None]:
        """Have messages of people count against the channel's throughput, where the messenger counts them.

        On PostgreSQL under ``change(..., locked=True)``: a claim at the same moment would overwrite it.
        """
        send = self.channel.tasks.send
        limit = send.options.limit
        if limit is not None and count > 0 and self.channel.transport.inbound_counts:
            yield run("charge_limit", name=f"task:{send.name}", cost=count * limit.interval_us, now=now)

    def resume(self, now: int) -> Steps[bool]:
        """Send again after a stop, once a human has put right what was wrong; False where nothing was stopped.

        Resuming the queue (``oncue queues resume NAME``) does the same.
        """
        row = yield from self.settle.load_channel()
        was, row.stopped, row.stopped_at = row.stopped, None, None
        yield from self.settle.save_channel(row)
        yield from manage.set_queue(now, self.channel.tasks.send.options.queue, False)
        for ref in (yield from fetch("channel_refs", channel=self.channel.name, now=now, count=_MOST)):
            yield from manage.reschedule(now, id=None, key=job_key(ref))
        return was is not None

    def duplicates(self) -> Steps[list[Duplicate]]:
        """Return the messages of this channel that went out more than once."""
        return (yield from many(Duplicate, "duplicates", channel=self.channel.name))

    def mend(self, now: int) -> Steps[int]:
        """Store new jobs for messages whose job is gone, cancelled by hand or given up; return how many."""
        found = yield from fetch("orphans", channel=self.channel.name, count=_MOST)
        for ref, person, due in found:
            yield from self.settle.add_job(ref, person, max(due, now), now)
        return len(found)

    def match(self, now: int) -> Steps[int]:
        """Apply statuses that were stored while it became known whose they are; return of how many messages."""
        found = yield from self._late_matches(now, _MOST)
        for external_id, id in found:
            message = yield from self.settle.load(id)
            if message is not None:
                yield from self.settle.heard_before(message, external_id, now)
        return len(found)

    def _late_matches(self, now: int, count: int) -> Steps[list[tuple[str, int]]]:
        since = now - DAY
        return (yield from fetch("late_matches", channel=self.channel.name, since=since, count=count))  # type: ignore[no-any-return]

    async def sweep(self) -> int:
        """``mend`` and ``match``, once a minute or so; return how many messages had lost their jobs."""
        app = self.channel.app
        now = app.clock.now()
        if await app.store.look(lambda: self._late_matches(now, 1)):
            await app.store.change(lambda: self.match(now), now)
            app.wake.hint(now)
        if not await app.store.look(lambda: fetch("orphans", channel=self.channel.name, count=1)):
            return 0
        mended = await app.store.change(lambda: self.mend(now), now)
        said = counted(mended, "message")
        log.warning("channel %s: new jobs for %s that had lost theirs", self.channel.name, said)
        app.wake.hint(now)
        return mended

    async def send(self, ref: str, ctx: JobContext) -> None:
        """Send one message: the body of the job ``{channel}.send``. Raises Snooze where it has to wait."""
        app = self.channel.app
        begun, now = time.monotonic(), app.clock.now()
        first = await app.store.change(lambda: self._begin(ref, ctx, now), now)
        if isinstance(first, _Ready):
            late = max(time.monotonic() - begun, (app.clock.now() - now) / SECOND)
            if late > _FRESH or ctx.lease_lost:
                answer = Answer("retry", reason=f"not sent: {late:.0f} s passed since it was checked that it may go")
            else:
                answer = await self._post(first.outgoing)
            first = await self._record(first, answer)
        app.wake.hint(app.clock.now())
        if first.until is not None:
            raise Snooze(max(0, first.until - app.clock.now()) / SECOND, first.reason)

    async def _post(self, outgoing: Outgoing) -> Answer:
        try:
            return await self.channel.transport.send(outgoing)
        except Exception as error:
            log.error(
                "channel %s: its transport raised; nobody knows what was sent: %s", self.channel.name, told(error)
            )
            return Answer("unknown", reason=f"the transport raised {type(error).__name__}")

    async def _record(self, ready: _Ready, answer: Answer) -> Then:
        """Transaction B. The answer is known only here, so a database that is away for a moment is asked again."""
        app = self.channel.app
        for tried in range(1, _RECORDED + 1):
            now = app.clock.now()
            try:
                return await app.store.change(lambda: self._keep(ready, answer, now), now)  # noqa: B023
            except StoreError:
                if tried == _RECORDED:
                    raise
                await asyncio.sleep(0.1 * 4**tried)
        raise AssertionError

    def _keep(self, ready: _Ready, answer: Answer, now: int) -> Steps[Then]:
        known, named = ready.outgoing.to, answer.to or Address()
        if named.address not in (None, known.address) or named.user_id not in (None, known.user_id):
            yield from people.learn(ready.person, named, now)
        return (yield from self._verdicts.record(ready.id, ready.attempt, answer, now))

    def _begin(self, ref: str, ctx: JobContext, now: int) -> Steps[_Ready | Then]:
        """Transaction A: all that must hold is checked here, and again for each attempt."""
        id = yield ask("begin_send", ref=ref, job=ctx.id, attempt=ctx.attempt)
        if id is None:
            return Then()
        channel = self.channel
        facts = yield from one(
            Facts, "send_facts", id=id, now=now, queue=channel.tasks.send.options.queue, lane=ctx.group,
            receive=channel.tasks.receive.name,
        )  # fmt: skip
        assert facts is not None
        message = facts.message
        if message.settled_at is not None or message.channel != channel.name:
            return Then()
        if ctx.group != channel.lane(message.person):
            # Two rows turned out to be one person: it goes on in the lane that is left.
            yield from self._move(ref, facts, now)
            return Then()
        if facts.channel is not None and facts.channel.stopped is not None and not facts.paused:
            yield from self._sends_again(facts.channel)
        if message.state == "sending":
            return (yield from self._verdicts.unknown(message, "its worker did not live to tell", None, now))
        if message.state == "unknown":
            return (yield from self._unknown(facts, now))
        if message.due > now:
            return Then(message.due, "it is not due yet")
        return (yield from self._pass(facts, now))

    def _pass(self, facts: Facts, now: int) -> Steps[_Ready | Then]:
        """Let a message go, wait or drop it."""
        message, channel = facts.message, self.channel
        refused = yield from self.flow.allows(message, now)
        capabilities = channel.transport.capabilities
        decision = decide(facts, refused, capabilities, self.manners, now)
        if isinstance(decision, Go):
            decision = yield from self._within_reach(facts, decision, now)
        if isinstance(decision, Drop):
            yield from self._drop(message, decision, now)
            return Then()
        if isinstance(decision, Wait):
            if decision.moves:
                message.due = decision.until
            if decision.moves or message.reason != decision.reason:
                message.reason = decision.reason
                yield from self.settle.save(message)
            return Then(decision.until, decision.reason)
        if message.state == "unknown":
            if decision.fallback:
                yield from self.settle.give_up(message, "not resent: only a template could go now", now, fails=False)
                return Then()
            message.resent += 1
            yield from self.settle.event(message, "resent", f"no status came for attempt {message.attempt}", now)
        message.state, message.attempt, message.sending_at = "sending", message.attempt + 1, now
        message.as_template, message.reason, message.code = int(decision.fallback), None, None
        yield from self.settle.save(message)
        to = Address(facts.person.address, facts.person.user_id)
        outgoing = Outgoing(to, decision.content, echo_of(message.ref, message.attempt))
        return _Ready(message.id, facts.person.id, message.attempt, outgoing)

    def _sends_again(self, channel: ChannelRow) -> Steps[None]:
        """Whoever resumed the queue of a channel that was stopped has put right what was wrong."""
        row = yield from self.settle.load_channel()
        if row.stopped_at == channel.stopped_at:
            row.stopped = row.stopped_at = None
            yield from self.settle.save_channel(row)
            log.info("channel %s sends again: its queue was resumed", row.name)
        channel.stopped = channel.stopped_at = None

    def _drop(self, message: MessageRow, drop: Drop, now: int) -> Steps[None]:
        if message.state == "unknown":
            yield from self.settle.give_up(message, f"not resent: {drop.reason}", now, fails=False)
        elif drop.verdict is not None:
            yield from self.settle.fail(message, drop.reason, drop.verdict, None, now)
        else:
            message.state, message.settled_at, message.reason = "skipped", now, drop.reason
            yield from self.settle.save(message)
            yield from self.settle.event(message, "skipped", drop.reason, now)
            yield from self.settle.wake(message.person, now)

    def _within_reach(self, facts: Facts, go: Go, now: int) -> Steps[Go | Wait]:
        """Outside the window only so many people may be reached in 24 hours (``unique_per_day``)."""
        most = self.manners.unique_per_day
        shuts = window_end(facts.person, self.channel.transport.capabilities)
        if most is None or not isinstance(go.content, Template) or shuts is None or shuts > now:
            return go
        # Locked, so that two at the same moment don't both take the last place.
        yield from self.settle.load_channel()
        since = now - DAY
        if (yield ask("was_reached", person=facts.person.id, since=since)):
            return go
        reached = yield ask("people_reached", channel=self.channel.name, person=facts.person.id, since=since)
        if reached < most:
            return go
        return Wait(now + _REACH, f"{reached} people were reached outside their windows in 24 hours")

    def _unknown(self, facts: Facts, now: int) -> Steps[_Ready | Then]:
        """A message of which nobody knows whether it was sent: after the reconcile window it is decided on."""
        message = facts.message
        assert message.unknown_at is not None
        until, why = yield from self.settle.trust(message, facts.channel, now)
        if until is None or now < until:
            window = self.manners.reconcile
            reason = f"unknown whether it was sent{': ' + why if why else ''}"
            if message.reason != reason:
                message.reason = reason
                yield from self.settle.save(message)
            return Then(next_look(message.unknown_at, until or message.unknown_at + window, now), reason)
        if message.kind not in ("question", "say") or template_of(message) is not None:
            kind = message.kind if template_of(message) is None else "template"
            yield from self.settle.give_up(message, f"not resent: a {kind} is not", now, fails=False)
            return Then()
        if message.resent:
            yield from self.settle.give_up(message, GIVEN_UP, now, fails=True)
            return Then()
        return (yield from self._pass(facts, now))

    def _move(self, ref: str, facts: Facts, now: int) -> Steps[None]:
        send = self.channel.tasks.send
        log.info("channel %s: message %s moves to the lane of person %s", send.name, ref, facts.message.person)
        yield from self.settle.add_job(ref, facts.message.person, max(now, facts.message.due), now, beside=True)


_MOST = 1_000
_REACH = 600 * SECOND
