"""What became of messages: statuses and other evidence, unknown outcomes, and what is known only later."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from oncue.clock import SECOND, seconds_to_us
from oncue.conversation import people
from oncue.conversation.gate import template_key
from oncue.conversation.holds import AS_TEMPLATE, HELD, refused_after_all
from oncue.scheduling import Scheduled, new_job
from oncue.store.chats import ChannelRow, MessageRow, PersonRow, many, one
from oncue.store.steps import Steps, as_json, ask, fetch, manage, run
from oncue.store.steps.insert import insert_jobs
from oncue.transport import Address, Content, Preference, Status, Template, Verdict
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.conversation.channels import Channel

log = logging.getLogger("oncue.conversation")
RANK = {"sent": 1, "failed": 2, "delivered": 3, "read": 4}
"""Statuses come in any order, and more than once: the highest counts. What was delivered can't have failed."""
INTAKE_GAP = 15 * SECOND
"""An intake that was not seen for so long (microseconds) may have missed updates."""
SILENCE = 15 * SECOND
"""An accepted message that has no status after so long, with nothing heard since, tells that updates don't reach us."""
# On a busy channel there is always an update that came a moment ago.
_FRESH = SECOND
# Within this time a job that failed once, or whose worker died, runs again.
_TRIED_AGAIN = 60 * SECOND


class FlowSteps(Protocol):
    """What the outbox asks of, and tells, the conversation's flow, each inside the outbox's own transaction."""

    def allows(self, message: MessageRow, now: int) -> Steps[str | None]:
        """Return why a message must not go any more; None where it may."""
        ...

    def accepted(self, message: MessageRow, at: int) -> Steps[Any]:
        """The messenger has it. Told once a message."""
        ...

    def delivered(self, message: MessageRow, at: int) -> Steps[Any]:
        """It was delivered or read. Told once a message."""
        ...

    def failed(self, message: MessageRow, reason: str, verdict: Verdict) -> Steps[Any]:
        """It will not reach the person: refused, given up after a second unknown outcome, or failed after all.

        Told of every kind of message, reminders too.
        """
        ...

    def going_on(self, message: MessageRow, at: int) -> Steps[Any]:
        """Nobody knows whether it was sent, and it is not sent again: go on as if it had been."""
        ...


class _Heard(msgspec.Struct):
    """A status that was stored before it was known which message it is about."""

    external_id: str
    status: str
    at: int
    echo: str | None = None
    code: int | None = None
    reason: str = ""
    verdict: Verdict | None = None


class Settle:
    """Turns what is heard of a channel's messages into their states. All of it runs inside the caller's transaction."""

    def __init__(self, channel: Channel, flow: FlowSteps) -> None:
        self.channel, self.flow = channel, flow

    def status(self, status: Status, now: int) -> Steps[None]:
        """Record what became of a message, and settle an unknown outcome by it.

        The message is found by the echo, else by its external id. What matches none is kept: it may come before our
        own record of the answer, which looks for it.
        """
        id, attempt = yield from self._find(status.external_id, status.echo)
        yield run(
            "add_status", channel=self.channel.name, external_id=status.external_id, status=status.status,
            at=status.at, echo=status.echo, message=id, code=status.code, reason=status.reason or None,
            verdict=status.verdict, now=now,
        )  # fmt: skip
        message = (yield from self.load(id)) if id is not None else None
        if message is not None:
            yield from self._apply(message, status, message.attempt if attempt is None else attempt, now)

    def evidence(self, name: str, how: str, now: int) -> Steps[bool]:
        """The person has seen the message of that ref or external id: settle it where its outcome is open.

        ``how`` says how that is known, such as "its option was tapped". Returns whether that settled anything.
        """
        id, external_id = (yield ask("message_id_by_ref", ref=name)), None
        if id is None:
            id = yield ask("message_id_by_external", channel=self.channel.name, external_id=name)
            external_id = name
        message = (yield from self.load(id)) if id is not None else None
        if message is None or message.channel != self.channel.name or message.attempt == 0:
            return False
        if message.state == "accepted":
            return False
        yield from self.accept(message, external_id, message.attempt, now, now, how)
        return True

    def load(self, id: int) -> Steps[MessageRow | None]:
        """Return a message, which nobody else changes before the end of this transaction."""
        return (yield from one(MessageRow, "message_to_settle", id=id))

    def save(self, message: MessageRow) -> Steps[None]:
        """Store what changed of a message."""
        yield run("save_message", message=as_json(message))

    def event(self, message: MessageRow, kind: str, text: str, now: int) -> Steps[None]:
        """Write a line into the person's timeline."""
        values = {"person": message.person, "chat": message.chat, "message": message.id}
        yield run("outbox_event", at=now, kind=kind, text=text, **values)

    def accept(
        self, message: MessageRow, external_id: str | None, attempt: int, at: int, now: int, how: str | None
    ) -> Steps[None]:
        """The messenger has, or had, the message. ``how`` is known what was unknown before (None: by its answer)."""
        if external_id is not None:
            yield from self._name(message, external_id, attempt, at)
        if message.state == "accepted":
            return
        was_open = message.settled_at is None
        if message.state != "sending" and how is not None:
            message.resolution = how if message.resolution is None else f"{message.resolution}; then: {how}"
            yield from self.event(message, "settled", f"it was sent after all: {how}", now)
        untold = was_open and message.resolution != AS_TEMPLATE
        message.state, message.settled_at, message.reason, message.code = "accepted", at, None, None
        message.external_id = external_id or message.external_id
        yield from self.save(message)
        if untold:
            yield from self.flow.accepted(message, at)
        yield from self.wake(message.person, now)

    def heard_before(self, message: MessageRow, external_id: str, now: int) -> Steps[None]:
        """Apply the statuses of this external id that came before it was known whose it is."""
        names = {"channel": self.channel.name, "external_id": external_id}
        early = yield from many(_Heard, "statuses_unmatched", **names)
        if not early:
            return
        yield run("match_statuses", message=message.id, **names)
        for heard in early:
            status = Status(
                heard.external_id, heard.status, heard.at, heard.echo, heard.code, heard.reason, heard.verdict
            )
            yield from self._apply(message, status, message.attempt, now)

    def came_to_nothing(self, message: MessageRow, external_id: str | None, attempt: int) -> Steps[bool]:
        """Tell whether it is known that this copy failed: that it was once taken says nothing new, then."""
        if external_id is None or message.state == "accepted":
            return False
        if message.state == "sending" and message.attempt == attempt:
            return False
        names = {"channel": self.channel.name, "external_id": external_id}
        return bool((yield ask("came_to_nothing", message=message.id, **names)))

    def fail(self, message: MessageRow, reason: str, verdict: Verdict, code: int | None, now: int) -> Steps[None]:
        """The message won't reach the person: record that with all that follows from it."""
        message.state, message.settled_at, message.reason, message.code = "rejected", now, reason, code
        yield from self.save(message)
        yield from self.event(message, "failed", reason, now)
        if verdict == "stop_person":
            person = yield from one(PersonRow, "person_to_send", id=message.person)
            if person is not None:
                person.stopped = reason
                yield from self.save_person(person)
        elif verdict == "no_marketing":
            # As if they had said so, so that an older wish that is told once more changes nothing.
            yield from people.prefer(message.person, Preference(Address(), now, marketing=False))
        elif verdict == "disable_template":
            yield from self._disable_template(message, reason)
        yield from self.flow.failed(message, reason, verdict)
        yield from self.wake(message.person, now)

    def give_up(self, message: MessageRow, resolution: str, now: int, *, fails: bool) -> Steps[None]:
        """Nobody will ever know: close the message as unknown, and have the conversation go on, or fail."""
        message.settled_at, message.resolution = now, resolution
        yield from self.save(message)
        yield from self.event(message, "unknown", resolution, now)
        if fails:
            yield from self.flow.failed(message, resolution, "unknown")
        else:
            yield from self.flow.going_on(message, now)
        yield from self.wake(message.person, now)

    def wake(self, person: int, now: int) -> Steps[None]:
        """Have the person's messages that are due, and wait for one that was before them, look again now."""
        for ref in (yield from fetch("due_refs", person=person, now=now)):
            yield from manage.reschedule(now, id=None, key=job_key(ref))

    def add_job(self, ref: str, person: int, due: int, now: int, *, beside: bool = False) -> Steps[None]:
        """Store the job that sends a message, unless there is one (``beside``: one that runs doesn't count)."""
        send = self.channel.tasks.send
        wanted = Scheduled(
            send.call(ref), key=job_key(ref), while_started="queue" if beside else "keep",
            group=self.channel.lane(person), queue=send.options.queue,
        )  # fmt: skip
        job = new_job(wanted, now)
        job.scheduled_at = due
        yield from insert_jobs([job])

    def trust(self, message: MessageRow, channel: ChannelRow | None, now: int) -> Steps[tuple[int | None, str]]:
        """Tell from when on (microseconds) no status of an unknown message means that it was not sent; None: not yet.

        That is the reconcile window R after its outcome became unknown, where the intake of updates was *demonstrably
        alive* all the time. It was, if

        1. it says that it runs (its heartbeat is at most 15 s old), and has run without a gap for R: after a gap, R
           begins anew, because the messenger repeats what it could not deliver; and
        2. it isn't deaf: no message of this channel was accepted in that time and has no status 15 s later while
           nothing at all was heard. (Where nothing else was sent either, the heartbeat has to do.)

        What came in meanwhile must also have been read, but for what came in the last second: an update is answered
        with 200 before its statuses are taken in.

        A messenger that has no statuses, or whose statuses don't say what they are about, can't tell: there R alone
        counts, and a person may get a question twice.
        """
        assert message.unknown_at is not None
        window = manners_window(self.channel)
        capabilities = self.channel.transport.capabilities
        if not (capabilities.statuses and capabilities.echo):
            return message.unknown_at + window, ""
        if channel is None or channel.up_since is None or channel.seen_at is None:
            return None, "no intake of updates has ever run"
        if channel.seen_at < now - INTAKE_GAP:
            return None, f"the intake of updates was not seen for {(now - channel.seen_at) / SECOND:.0f} s"
        since = max(message.unknown_at, channel.up_since)
        if now >= since + window:
            times = {"since": since, "until": now - SILENCE}
            deaf = yield ask("unheard_since", channel=self.channel.name, **times)
            if deaf:
                return None, f"no status came of {counted(deaf, 'other message')}, and nothing else was heard"
            unread = yield from self._unread(max(since + window, now - _FRESH), now)
            if unread:
                return None, f"updates that came in meanwhile are still to be read: {unread}"
        return since + window, ""

    def _unread(self, until: int, now: int) -> Steps[int]:
        task = self.channel.tasks.status
        where = {"queue": task.options.queue, "priority": task.options.priority, "task": task.name}
        count: int = yield ask("unread_updates", **where, until=until, soon=now + _TRIED_AGAIN)
        return count

    def save_person(self, person: PersonRow) -> Steps[None]:
        """Store what sending changed of a person."""
        yield run(
            "save_person_sends", id=person.id, stopped=person.stopped, no_marketing_at=person.no_marketing_at,
            wait_until=person.wait_until, refusals=person.refusals,
        )  # fmt: skip

    def load_channel(self) -> Steps[ChannelRow]:
        """Return the channel's row, which nobody else changes before the end of this transaction."""
        found = yield from one(ChannelRow, "channel_to_send", name=self.channel.name)
        return found or ChannelRow(self.channel.name)

    def save_channel(self, row: ChannelRow) -> Steps[None]:
        """Store what sending changed of the channel."""
        yield run(
            "save_channel_sends", name=row.name, stopped=row.stopped, stopped_at=row.stopped_at,
            wait_until=row.wait_until, refusals=row.refusals, disabled=row.disabled,
        )  # fmt: skip

    def _name(self, message: MessageRow, external_id: str, attempt: int, at: int) -> Steps[None]:
        """Keep a name that the messenger gave the message."""
        sent = {"external_id": external_id, "message": message.id, "attempt": attempt, "at": at}
        yield run("add_sent", channel=self.channel.name, **sent)

    def _find(self, external_id: str, echo: str | None) -> Steps[tuple[int | None, int | None]]:
        ref, attempt = read_echo(echo)
        if ref is not None:
            id = yield ask("message_id_by_ref", ref=ref)
            if id is not None:
                return id, attempt
        return (yield ask("message_id_by_external", channel=self.channel.name, external_id=external_id)), None

    def _apply(self, message: MessageRow, status: Status, attempt: int, now: int) -> Steps[None]:
        if message.channel != self.channel.name or status.status not in RANK:
            return
        if status.status == "failed":
            yield from self._failed(message, status, attempt, now)
            return
        if (yield from self.came_to_nothing(message, status.external_id, attempt)):
            return
        at = max(min(status.at, now), message.sending_at or 0)
        yield from self.accept(message, status.external_id, attempt, at, now, f"status {status.status}")
        before = RANK.get(message.status or "", 0)
        if RANK[status.status] <= before:
            return
        message.status, message.status_at, message.code, message.reason = status.status, status.at, None, None
        yield from self.save(message)
        if before < RANK["delivered"] <= RANK[status.status]:
            yield from self.flow.delivered(message, min(status.at, now))

    def _failed(self, message: MessageRow, status: Status, attempt: int, now: int) -> Steps[None]:
        yield from self._name(message, status.external_id, attempt, now)
        if message.external_id not in (None, status.external_id) or attempt != message.attempt:
            # Another copy of it went out, or is on its way.
            return
        if RANK.get(message.status or "", 0) >= RANK["failed"]:
            return
        if message.state == "sending":
            # The messenger's answer is on its way: what it says comes first, whichever is heard first.
            at = max(min(status.at, now), message.sending_at or 0)
            yield from self.accept(message, status.external_id, attempt, at, now, None)
        reason = status.reason or "the messenger could not deliver it"
        message.external_id, message.status, message.status_at = status.external_id, "failed", status.at
        if message.state in ("skipped", "rejected"):
            yield from self.save(message)
        elif status.verdict == "use_template" and message.fallback is not None and not message.as_template:
            # Where the flow was never told of an acceptance, it is told of the template's.
            message.resolution = None if message.settled_at is None else AS_TEMPLATE
            message.state, message.as_template, message.due, message.settled_at = "queued", 1, now, None
            message.status, message.external_id, message.unknown_at = None, None, None
            yield from self.save(message)
            yield from self.event(message, "template", f"{reason}; it goes out once more as a template", now)
            yield from self.add_job(message.ref, message.person, now, now)
        elif status.verdict in HELD:
            yield from refused_after_all(self, message, status, status.verdict, reason, now)
        else:
            yield from self.fail(message, reason, status.verdict or "refused", status.code, now)

    def _disable_template(self, message: MessageRow, reason: str) -> Steps[None]:
        template = template_of(message)
        if template is None:
            return
        channel = yield from self.load_channel()
        disabled = msgspec.json.decode(channel.disabled, type=dict[str, str])
        if template_key(template) in disabled:
            # The first reason is the messenger's own.
            return
        disabled[template_key(template)] = reason
        channel.disabled = as_json(disabled)
        yield from self.save_channel(channel)
        log.error(
            "channel %s: template %s can't be used any more: %s. Once that is put right: "
            "`oncue conversations templates --enable %s`", channel.name, template.name, reason, template.name,
        )  # fmt: skip


def job_key(ref: str) -> str:
    """Return the key of the job that sends a message."""
    return f"message-{ref}"


def echo_of(ref: str, attempt: int) -> str:
    """Return what a messenger is to say with each status of this attempt."""
    return f"v1:{ref}:{attempt}"


def read_echo(echo: str | None) -> tuple[str | None, int | None]:
    """Return the ref and the attempt that an echo names; None for what is none of ours."""
    version, _, rest = (echo or "").partition(":")
    ref, _, attempt = rest.rpartition(":")
    if version != "v1" or not ref or not (attempt.isascii() and attempt.isdigit() and len(attempt) < 10):
        return None, None
    return ref, int(attempt)


def template_of(message: MessageRow) -> Template | None:
    """Return the template that a message goes, or went, out as; None: it is free-form."""
    if message.as_template and message.fallback is not None:
        return msgspec.json.decode(message.fallback, type=Template)
    content: Content = msgspec.json.decode(message.content, type=Content)
    return content if isinstance(content, Template) else None


def manners_window(channel: Channel) -> int:
    """Return R, for how long an unknown outcome is open, in microseconds."""
    return seconds_to_us(channel.options.reconcile_for)
