"""What a refusal holds back for a while: one person's messages, the channel's, or all of it until a human has acted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from oncue.clock import SECOND, from_us
from oncue.store.chats import MessageRow, PersonRow, one
from oncue.store.steps import Steps, manage
from oncue.transport import Verdict

if TYPE_CHECKING:
    from oncue.conversation.settle import Settle

log = logging.getLogger("oncue.conversation")
HELD: tuple[Verdict, ...] = ("wait_person", "wait_channel", "stop_channel")
"""The verdicts of which the message itself isn't wrong: it goes out once what they say is over."""
_GROWS = 5
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
