"""What a refusal holds back for a while: one person's messages, the channel's, or all of it until a human has acted.

It may come in the messenger's answer, or in a status after the message had been accepted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from oncue.clock import SECOND, from_us
from oncue.store.chats import MessageRow, PersonRow, many, one
from oncue.store.steps import Steps, manage
from oncue.transport import Status, Verdict

if TYPE_CHECKING:
    from oncue.conversation.settle import Settle

log = logging.getLogger("oncue.conversation")
HELD: tuple[Verdict, ...] = ("wait_person", "wait_channel", "stop_channel")
"""The verdicts of which the message itself isn't wrong: it goes out once what they say is over."""
AGAIN = "sent again: it had been taken, and then refused"
AS_TEMPLATE = "sent again as a template: the window had shut"
"""How it is kept that a message goes out once more which the messenger had taken, so that its flow was told so."""
_GROWS = 5
# So often a message goes out that is taken each time, and then refused for what passes.
_ATTEMPTS = 7
# Its queue is paused until then, so that it goes at once when that is resumed.
_STOPPED = SECOND


class Hold(NamedTuple):
    """When to look again (microseconds), and that in words for the timeline."""

    until: int
    then: str


def backoff(refusals: int, after: float | None) -> int:
    """Return how long to wait after so many refusals in a row: 4^n s, at most 4^5, and what the messenger asks for.

    4^n is what Meta advises for the pair limit.
    """
    return round(max(4.0 ** min(refusals, _GROWS), after or 0.0) * SECOND)


def hold(
    settle: Settle, message: MessageRow, verdict: Verdict, reason: str, code: int | None, after: float | None, now: int
) -> Steps[Hold]:
    """Hold back what the verdict (one of ``HELD``) on a message says. ``after``: seconds to wait at least."""
    if verdict == "stop_channel":
        return (yield from _stop(settle, reason, code, now))
    until = yield from (_person if verdict == "wait_person" else _channel)(settle, message, after, now)
    return Hold(until, f"again at {from_us(until):%Y-%m-%d %H:%M:%S}")


def refused_after_all(
    settle: Settle, message: MessageRow, status: Status, verdict: Verdict, reason: str, now: int
) -> Steps[None]:
    """A message was taken, and then refused for what passes, or a human puts right: it goes out once more after that.

    Unless it isn't wanted any more, or something later has gone out to that person: then it failed.
    """
    message.status = message.status_at = message.external_id = None
    if message.state == "queued":
        # That was told before.
        return
    # Each acceptance in between ends the count of refusals, so it grows with the attempts here.
    held = yield from hold(settle, message, verdict, reason, status.code, 4.0 ** min(message.attempt, _GROWS), now)
    before, message.resolution = message.resolution, AGAIN
    if message.attempt >= _ATTEMPTS or not (yield from _still_in_turn(settle, message, now)):
        message.external_id, message.status, message.status_at = status.external_id, "failed", status.at
        message.resolution = before
        yield from settle.fail(message, reason, verdict, status.code, now)
        return
    if message.chat is not None:
        # They count from when the question was really sent.
        why = "its question was refused after all, and goes out once more"
        yield from settle.channel.outbox.withdraw(message.chat, message.step, why, now, "reminder")
    message.state, message.settled_at, message.unknown_at = "queued", None, None
    message.code, message.reason = status.code, reason
    yield from settle.save(message)
    code = "" if status.code is None else f" ({status.code})"
    text = f"attempt {message.attempt}, after it had been accepted{code}: {reason}; {held.then}"
    yield from settle.event(message, "refused", text, now)
    yield from settle.add_job(message.ref, message.person, held.until, now)


def _still_in_turn(settle: Settle, message: MessageRow, now: int) -> Steps[bool]:
    if (yield from settle.flow.allows(message, now)) is not None:
        return False
    others = yield from many(MessageRow, "file_messages", person=message.person)
    return not any(one.id > message.id and one.attempt and one.kind in ("question", "say") for one in others)


def _person(settle: Settle, message: MessageRow, after: float | None, now: int) -> Steps[int]:
    person = yield from one(PersonRow, "person_to_send", id=message.person)
    assert person is not None
    person.refusals += 1
    person.wait_until = now + backoff(person.refusals, after)
    yield from settle.save_person(person)
    return person.wait_until


def _channel(settle: Settle, message: MessageRow, after: float | None, now: int) -> Steps[int]:
    row = yield from settle.load_channel()
    # Many were on their way when the first was refused: they are one refusal.
    if (message.sending_at or 0) >= (row.wait_until or 0):
        row.refusals += 1
        row.wait_until = now + backoff(row.refusals, after)
        yield from settle.save_channel(row)
    assert row.wait_until is not None
    return row.wait_until


def _stop(settle: Settle, reason: str, code: int | None, now: int) -> Steps[Hold]:
    row = yield from settle.load_channel()
    queue = settle.channel.tasks.send.options.queue
    if row.stopped is None:
        # The reference says by the code what to do; a reason alone may be as little as "Message failed".
        named = "" if code is None or str(code) in reason else f" ({code})"
        row.stopped, row.stopped_at = f"{reason or 'the messenger refuses all we send'}{named}", now
        yield from settle.save_channel(row)
        yield from manage.set_queue(now, queue, True)
        log.error(
            "channel %s is stopped, and its queue %s paused: %s. Nothing is lost: put it right, then "
            "run `oncue queues resume %s`.", row.name, queue, row.stopped, queue,
        )  # fmt: skip
    return Hold(now + _STOPPED, f"the channel is stopped until `oncue queues resume {queue}`")
