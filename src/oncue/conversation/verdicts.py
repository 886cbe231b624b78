"""Transaction B: what the messenger's answer makes of a message, and when its job looks again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from oncue.clock import SECOND, from_us
from oncue.conversation.gate import next_look
from oncue.conversation.holds import HELD, hold
from oncue.conversation.settle import Settle, manners_window
from oncue.store.chats import MessageRow, PersonRow, one
from oncue.store.steps import Steps, fetch
from oncue.transport import Answer

if TYPE_CHECKING:
    from oncue.conversation.channels import Channel

_RETRY_MOST = 300
# So often marketing is tried that the messenger holds back for now.
_OFFERS = 7


class Then(NamedTuple):
    """What the job of a message does next: ends, or looks again at ``until`` (microseconds), for that reason."""

    until: int | None = None
    reason: str = ""


class Verdicts:
    """Turns answers into states, each inside the caller's transaction."""

    def __init__(self, channel: Channel, settle: Settle) -> None:
        self.channel, self.settle = channel, settle

    def record(self, id: int, attempt: int, answer: Answer, now: int) -> Steps[Then]:
        """Record what came of an attempt. What was settled meanwhile by a status stays as it is.

        Not fenced by the job: what the messenger says of an attempt is true, whoever's job it was.
        """
        message = yield from self.settle.load(id)
        if message is None:
            return Then()
        if answer.verdict == "sent":
            yield from self._sent(message, attempt, answer, now)
            return _after(message, now)
        if message.settled_at is not None or message.attempt != attempt or message.state not in ("sending", "unknown"):
            return _after(message, now)
        was_unknown = message.state == "unknown"
        then = yield from self._not_sent(message, answer, now)
        if was_unknown and answer.verdict != "unknown":
            # Whoever took over waits for what is known now.
            yield from self.settle.wake(message.person, now)
        return then

    def unknown(self, message: MessageRow, reason: str, code: int | None, now: int) -> Steps[Then]:
        """It may have been sent: later messages of this person wait until that is settled."""
        message.state, message.unknown_at, message.code = "unknown", now, code
        message.reason = f"unknown whether it was sent: {reason}"
        yield from self.settle.save(message)
        yield from self.settle.event(message, "unknown", f"attempt {message.attempt}: {reason}", now)
        return Then(next_look(now, now + manners_window(self.channel), now), message.reason)

    def _sent(self, message: MessageRow, attempt: int, answer: Answer, now: int) -> Steps[None]:
        sending_at = message.sending_at or now
        if (yield from self.settle.came_to_nothing(message, answer.external_id, attempt)):
            return
        yield from self.settle.accept(message, answer.external_id, attempt, now, now, _how(message))
        if answer.external_id is not None:
            yield from self.settle.heard_before(message, answer.external_id, now)
        of_person, of_channel = yield from fetch("refusals", person=message.person)
        if of_person:
            person = yield from one(PersonRow, "person_to_send", id=message.person)
            assert person is not None
            person.refusals, person.wait_until = 0, None
            yield from self.settle.save_person(person)
        if of_channel:
            row = yield from self.settle.load_channel()
            if sending_at >= (row.wait_until or 0):
                row.refusals, row.wait_until = 0, None
                yield from self.settle.save_channel(row)

    def _not_sent(self, message: MessageRow, answer: Answer, now: int) -> Steps[Then]:
        verdict, reason = answer.verdict, answer.reason or answer.verdict
        if verdict == "unknown":
            return (yield from self.unknown(message, reason, answer.code, now))
        if verdict == "retry":
            wait = max(2.0 ** min(message.attempt, 9), answer.after or 0.0)
            return (yield from self._again(message, answer, now, now + round(min(wait, _RETRY_MOST) * SECOND)))
        if verdict in HELD:
            held = yield from hold(self.settle, message, verdict, answer.reason, answer.code, answer.after, now)
            return (yield from self._again(message, answer, now, held.until, held.then))
        if verdict == "use_template" and message.fallback is not None and not message.as_template:
            message.as_template = 1
            return (yield from self._again(message, answer, now, now, "it goes out as a template"))
        if verdict == "no_marketing" and answer.after is not None:
            if message.attempt >= _OFFERS:
                # Where a country gets no marketing at all it would go on for ever.
                yield from self.settle.fail(message, f"{reason} ({_OFFERS} tries)", "refused", answer.code, now)
                return Then()
            # Not now, by the messenger's own measure: it keeps nobody waiting meanwhile.
            message.due = now + round(answer.after * SECOND)
            return (yield from self._again(message, answer, now, message.due))
        yield from self.settle.fail(message, reason, verdict, answer.code, now)
        return Then()

    def _again(self, message: MessageRow, answer: Answer, now: int, until: int, then: str | None = None) -> Steps[Then]:
        """It was certainly not sent, and is tried again. ``then``: what the timeline says of that (None: when)."""
        message.state, message.code, message.reason = "queued", answer.code, answer.reason or answer.verdict
        message.unknown_at = None
        yield from self.settle.save(message)
        code = "" if answer.code is None else f" ({answer.code})"
        then = then or f"again at {from_us(until):%Y-%m-%d %H:%M:%S}"
        yield from self.settle.event(
            message, "refused", f"attempt {message.attempt}{code}: {message.reason}; {then}", now
        )
        return Then(max(until, now), message.reason)


def _after(message: MessageRow, now: int) -> Then:
    """A message that is still open keeps its job."""
    return Then() if message.settled_at is not None else Then(now + SECOND, "it is not settled yet")


def _how(message: MessageRow) -> str | None:
    return None if message.state == "sending" else "the messenger's answer came late"
