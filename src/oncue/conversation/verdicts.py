"""Transaction B: what the messenger's answer makes of a message, and when its job looks again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from oncue.clock import SECOND, from_us
from oncue.conversation.gate import next_look
from oncue.conversation.settle import Settle, manners_window
from oncue.store.chats import MessageRow, PersonRow, one
from oncue.store.steps import Steps, fetch, manage
from oncue.transport import Answer

if TYPE_CHECKING:
    from oncue.conversation.channels import Channel

log = logging.getLogger("oncue.conversation")
_GROWS = 5
_RETRY_MOST = 300
# Its queue is paused until then, so that it goes at once when that is resumed.
_STOPPED = SECOND
# So often marketing is tried that the messenger holds back for now.
_OFFERS = 7


class Then(NamedTuple):
    """What the job of a message does next: ends, or looks again at ``until`` (microseconds), for that reason."""

    until: int | None = None
    reason: str = ""


def backoff(refusals: int, after: float | None) -> int:
    """Return how long to wait after so many refusals in a row: 4^n s, at most 4^5, and what the messenger asks for.

    4^n is what Meta advises for the pair limit.
    """
    return round(max(4.0 ** min(refusals, _GROWS), after or 0.0) * SECOND)


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
        if verdict == "wait_person":
            return (yield from self._wait_person(message, answer, now))
        if verdict == "wait_channel":
            return (yield from self._wait_channel(message, answer, now))
        if verdict == "stop_channel":
            return (yield from self._stop(message, answer, now))
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

    def _wait_person(self, message: MessageRow, answer: Answer, now: int) -> Steps[Then]:
        person = yield from one(PersonRow, "person_to_send", id=message.person)
        assert person is not None
        person.refusals += 1
        person.wait_until = now + backoff(person.refusals, answer.after)
        yield from self.settle.save_person(person)
        return (yield from self._again(message, answer, now, person.wait_until))

    def _wait_channel(self, message: MessageRow, answer: Answer, now: int) -> Steps[Then]:
        row = yield from self.settle.load_channel()
        # Many were on their way when the first was refused: they are one refusal.
        if (message.sending_at or 0) >= (row.wait_until or 0):
            row.refusals += 1
            row.wait_until = now + backoff(row.refusals, answer.after)
            yield from self.settle.save_channel(row)
        assert row.wait_until is not None
        return (yield from self._again(message, answer, now, row.wait_until))

    def _stop(self, message: MessageRow, answer: Answer, now: int) -> Steps[Then]:
        row = yield from self.settle.load_channel()
        queue = self.channel.tasks.send.options.queue
        if row.stopped is None:
            row.stopped, row.stopped_at = answer.reason or "the messenger refuses all we send", now
            yield from self.settle.save_channel(row)
            yield from manage.set_queue(now, queue, True)
            log.error(
                "channel %s is stopped, and its queue %s paused: %s (code %s). Nothing is lost: put it right, then "
                "run `oncue queues resume %s`.", row.name, queue, row.stopped, answer.code, queue,
            )  # fmt: skip
        then = f"the channel is stopped until `oncue queues resume {queue}`"
        return (yield from self._again(message, answer, now, now + _STOPPED, then))


def _after(message: MessageRow, now: int) -> Then:
    """A message that is still open keeps its job."""
    return Then() if message.settled_at is not None else Then(now + SECOND, "it is not settled yet")


def _how(message: MessageRow) -> str | None:
    return None if message.state == "sending" else "the messenger's answer came late"
