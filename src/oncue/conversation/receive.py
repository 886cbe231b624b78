"""What follows from an update, in jobs: each message in its person's lane, statuses beside them.

A message is recorded by the intake. Here it is judged (does the person leave, has a human taken over, is it too old?)
and then heard by the person's conversation. What was handled is marked in the transaction of what followed from it, so
a job that runs twice, or an update that comes twice, does nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from oncue.clock import SECOND, seconds_to_us
from oncue.conversation import people
from oncue.conversation.batches import read
from oncue.conversation.options import split_option
from oncue.conversation.people import Named
from oncue.conversation.trouble import told
from oncue.conversation.words import is_one_of
from oncue.errors import StoreError
from oncue.scheduling import Scheduled, new_job
from oncue.store.chats import PersonRow
from oncue.store.steps import Steps, ask, fetch, inbox, run
from oncue.store.steps.insert import insert_jobs
from oncue.transport import Address, Inbound, Status

if TYPE_CHECKING:
    from oncue.conversation.channels import Channel

log = logging.getLogger("oncue.conversation")
_STATUSES = 100
_TEXTS = 50
# So many updates with several messages are kept as they were read.
_KEPT = 4
# What people do without saying anything, or what a messenger can't show: no answer to a question.
_UNSAID = ("reaction", "system", "unsupported", "unknown", "edited", "unblocked")


async def receive(channel: Channel, update: int, person: int) -> None:
    """Handle what an update has from one person: the body of the job ``{channel}.receive``, in the person's lane."""
    store = channel.app.store
    inbound = await _inbound(channel, update)
    if inbound is None:
        log.error("channel %s: update %d is not kept any more, and nothing follows from it", channel.name, update)
        return
    mine = await store.look(lambda: _mine(channel, person, inbound))
    if mine is None:
        now = channel.app.clock.now()
        everybodys = list(inbound.values())
        await store.change(lambda: _settle_person(channel, update, person, everybodys, now), now)
        channel.app.wake.hint(now)
        return
    for message in mine:
        await _handle(channel, person, message)


async def _inbound(channel: Channel, update: int) -> Mapping[str, Inbound] | None:
    """Return the messages of an update by their ids, in the order in which they were written, as far as it tells.

    None where it isn't kept any more. One with many people has a job for each, so it is read once for all of them.
    """
    found = channel.read.get(update)
    if found is not None:
        return found
    raw = await channel.app.store.look(lambda: inbox.raw_update(channel.name, update))
    if raw is None:
        return None
    # Another job may have read it meanwhile.
    found = channel.read.get(update)
    if found is None:
        batch = sorted(read(channel.transport, raw).inbound, key=lambda one: one.sent_at)
        found = {one.external_id: one for one in batch}
        if len(found) > 1:
            channel.read[update] = found
        while len(channel.read) > _KEPT:
            del channel.read[next(iter(channel.read))]
    return found


def _mine(channel: Channel, person: int, inbound: Mapping[str, Inbound]) -> Steps[list[Inbound] | None]:
    """Return what is to be handled for this person; None where it must be settled first who that is.

    What it costs does not grow with how many other people the update is about.
    """
    if (yield from people.person(person)) is None:
        return None if (yield from inbox.open_inbound(channel.name, list(inbound))) else []
    waiting = set((yield from inbox.open_inbound_of(person)))
    ids = [id for id in inbound if id in waiting] if len(waiting) > 1 else [id for id in waiting if id in inbound]
    mine = [inbound[id] for id in ids]
    found = yield from people.locate(channel.name, [Named(one.sender) for one in mine])
    if any(one is not None and one.same == person for one in found):
        return None
    return mine


def _settle_person(channel: Channel, update: int, person: int, inbound: Sequence[Inbound], now: int) -> Steps[None]:
    """Merge this person into another that turned out to be the same, and pass on what waits to whose it is."""
    named = [people.sender_of(one, now) for one in inbound]
    for one, found in zip(named, (yield from people.locate(channel.name, named)), strict=True):
        if found is not None and found.same == person:
            for chat in (yield from people.merge(found.id, person, one, now, channel.expires_at(now))):
                yield from channel.outbox.withdraw(chat, None, "the person is in another conversation", now)
            yield from _weigh_opt_out(channel, found.id, now)
            break
    found_now = yield from people.locate(channel.name, named)
    waiting = dict((yield from inbox.open_inbound(channel.name, [one.external_id for one in inbound])))
    lanes: dict[int, None] = {}
    for message, who in zip(inbound, found_now, strict=True):
        owner = waiting.get(message.external_id)
        if owner is None:
            continue
        if (yield from people.person(owner)) is None:
            if who is None:
                yield from inbox.note_inbound(channel.name, message.external_id, "the person was erased", now)
                continue
            owner = who.lane
            yield run("move_inbound", channel=channel.name, external_id=message.external_id, person=owner)
        lanes[owner] = None
    yield from add_jobs(channel, update, list(lanes), False, now)


def add_jobs(channel: Channel, update: int, lanes: Sequence[int], statuses: bool, now: int) -> Steps[None]:
    """Store the jobs that handle an update: one for each person, and one for statuses."""
    calls = [
        Scheduled(channel.tasks.receive.call(update, person), group=channel.lane(person), queue=channel.queue)
        for person in lanes
    ]
    if statuses:
        calls.append(Scheduled(channel.tasks.status.call(update), queue=channel.queue))
    if calls:
        yield from insert_jobs([new_job(call, now) for call in calls])


async def _handle(channel: Channel, person: int, inbound: Inbound) -> None:
    now = channel.app.clock.now()
    row = await channel.app.store.change(lambda: judge(channel, person, inbound, now), now)
    channel.app.wake.hint(now)
    if row is not None:
        await channel.flow.hear(row, inbound)


def judge(channel: Channel, person: int, inbound: Inbound, now: int) -> Steps[PersonRow | None]:
    """Record what a message says of its person; return that person where the conversation is to hear it."""
    if not (yield from inbox.open_inbound(channel.name, [inbound.external_id])):
        return None
    question = yield ask("open_question", person=person)
    if inbound.kind != "system":
        # That one the messenger wrote: it opens no window.
        yield run("person_heard", id=person, at=min(inbound.sent_at, now), name=inbound.name)
    for name, how in _evidence(inbound):
        yield from channel.outbox.settle.evidence(name, how, now)
    row = yield from people.person(person)
    if row is None:
        return None
    note = yield from _note(channel, row, inbound, question, now)
    if note is not None:
        yield from inbox.note_inbound(channel.name, inbound.external_id, note, now)
        return None
    if row.stopped is not None:
        # Nothing could be sent to them, but they write: the way is open again.
        yield run("clear_stopped", id=person)
        yield run("inbox_event", person=person, at=now, kind="reached", text=f"writes again, after: {row.stopped}")
        row.stopped = None
    return row


def _evidence(inbound: Inbound) -> list[tuple[str, str]]:
    """Return the names of our messages that the person has evidently seen, and how that is known."""
    offered = None if inbound.choice is None else split_option(inbound.choice)[0]
    found = [] if offered is None else [(offered, "one of its answers was tapped")]
    if inbound.replies_to is not None:
        reacted = inbound.kind == "reaction"
        found.append((inbound.replies_to, "the person reacted to it" if reacted else "the person replied to it"))
    return found


def _note(channel: Channel, row: PersonRow, inbound: Inbound, question: str | None, now: int) -> Steps[str | None]:
    """Return why nothing follows from a message; None where the conversation is to hear it."""
    if inbound.moved_to is not None:
        return (yield from _moved(channel, row, inbound, inbound.moved_to, now))
    if inbound.kind == "blocked":
        return (yield from _blocked(channel, row, inbound, now))
    if _leaves(channel, inbound):
        return (yield from _leave(channel, row, inbound, now))
    if row.opted_out_at is not None:
        if not _comes_back(channel, inbound) or inbound.sent_at < row.opted_out_at:
            return "the person has opted out"
        yield run("set_opted_out", id=row.id, at=None)
        yield run("inbox_event", person=row.id, at=now, kind="opted-in", text=f"wrote {inbound.text.strip()!r}")
        row.opted_out_at = None
        if not channel.flow.starts(inbound.text):
            return "came back"
    if row.human_since is not None:
        return "a human has taken over"
    if inbound.kind in _UNSAID and inbound.choice is None:
        return f"{inbound.kind}: no answer to anything"
    if now - inbound.sent_at > seconds_to_us(channel.options.max_age) and not _answers(inbound, question):
        return f"too old for a reply: heard {(now - inbound.sent_at) / SECOND:.0f} s after it was written"
    return None


def _answers(inbound: Inbound, question: str | None) -> bool:
    """Tell whether a message was written after the open question had been accepted, or names that question."""
    if question is None:
        return False
    ref, external_id, at = msgspec.json.decode(question)
    named = {name for name, _ in _evidence(inbound)}
    # The messenger's clock counts whole seconds.
    return ref in named or external_id in named or (at is not None and inbound.sent_at + SECOND > at)


def _is_word(inbound: Inbound) -> bool:
    """Tell whether it was written, or tapped below a template: the answers of our own questions are no such words."""
    return inbound.kind == "text" or (inbound.choice is not None and split_option(inbound.choice)[0] is None)


def _leaves(channel: Channel, inbound: Inbound) -> bool:
    return _is_word(inbound) and is_one_of(inbound.text, channel.options.opt_out_words)


def _comes_back(channel: Channel, inbound: Inbound) -> bool:
    text = inbound.text
    return _is_word(inbound) and (is_one_of(text, channel.options.opt_in_words) or channel.flow.starts(text))


def _leave(channel: Channel, row: PersonRow, inbound: Inbound, now: int) -> Steps[str]:
    """The person wants nothing more: the conversation stops, and what was to be sent is not sent."""
    if (yield from _came_back(channel, row.id, inbound.sent_at)):
        return "opted out, but came back later"
    yield from _stop_all(channel, row.id, "the person opted out", now)
    if row.opted_out_at is None:
        yield run("inbox_event", person=row.id, at=now, kind="opted-out", text=f"wrote {inbound.text.strip()!r}")
    yield run("set_opted_out", id=row.id, at=max(inbound.sent_at, row.opted_out_at or 0))
    return "opted out"


def _came_back(channel: Channel, person: int, since: int) -> Steps[bool]:
    """Tell whether the person has written a word that brings them back after that time."""
    later = yield from fetch("texts_since", person=person, at=since, count=_TEXTS)
    return any(_comes_back(channel, msgspec.json.decode(one, type=Inbound)) for one in later)


def _weigh_opt_out(channel: Channel, person: int, now: int) -> Steps[None]:
    """Of two who turned out to be one, one may have left: under both names, unless the other came back later."""
    row = yield from people.person(person)
    if row is None or row.opted_out_at is None:
        return
    if (yield from _came_back(channel, person, row.opted_out_at)):
        yield run("set_opted_out", id=person, at=None)
        yield run("inbox_event", person=person, at=now, kind="opted-in", text="came back under another name")
    else:
        yield from _stop_all(channel, person, "the person opted out", now)


def _stop_all(channel: Channel, person: int, reason: str, now: int) -> Steps[None]:
    for chat, _, _ in (yield from fetch("live_chats_of", first=person, second=person)):
        yield from channel.flow.stop(chat, reason, now)
    yield from channel.outbox.withdraw_person(person, reason, now)


def _moved(channel: Channel, row: PersonRow, inbound: Inbound, to: Address, now: int) -> Steps[str]:
    """The messenger tells that a person has another number, or another id: their conversation goes with them."""
    # The messenger's clock counts whole seconds.
    if (row.heard_at or 0) >= inbound.sent_at + SECOND:
        return "moved, but somebody wrote under the old name later"
    moved = yield from people.move(row, to, now, channel.expires_at(now))
    if moved is None:
        return "moved, but the new names are two other people's"
    id, ended = moved
    for chat in ended:
        yield from channel.outbox.withdraw(chat, None, "the person is in another conversation", now)
    yield from _weigh_opt_out(channel, id, now)
    return "the person has another number now"


def _blocked(channel: Channel, row: PersonRow, inbound: Inbound, now: int) -> Steps[str]:
    """The person shut us out, as a messenger tells: nothing is sent to them before they write again."""
    # The messenger's clock counts whole seconds.
    if (row.heard_at or 0) >= inbound.sent_at + SECOND:
        return "blocked, but wrote later"
    row.stopped = "the person blocked this channel"
    yield from _stop_all(channel, row.id, row.stopped, now)
    yield from channel.outbox.settle.save_person(row)
    return "blocked"


async def status(channel: Channel, update: int) -> None:
    """Take in what an update says of our messages: the body of the job ``{channel}.status``.

    One that can't be taken in keeps none of the others from it; the job fails in the end, so that it is tried again.
    """
    store = channel.app.store
    raw = await store.look(lambda: inbox.raw_update(channel.name, update))
    if raw is None:
        log.error("channel %s: update %d is not kept any more; its statuses are lost", channel.name, update)
        return
    statuses = read(channel.transport, raw).statuses
    failures: list[Exception] = []
    for start in range(0, len(statuses), _STATUSES):
        part = statuses[start : start + _STATUSES]
        try:
            await _take_in(channel, part)
        except StoreError:
            raise
        except Exception:
            failures += await _one_by_one(channel, update, part)
    if failures:
        # Its own text may name somebody, and what a job raises is logged and kept.
        why = RuntimeError(f"{len(failures)} of its statuses: {type(failures[0]).__name__}")
        raise why.with_traceback(failures[0].__traceback__) from None


async def _take_in(channel: Channel, statuses: Sequence[Status]) -> None:
    now = channel.app.clock.now()

    def steps() -> Steps[None]:
        for one in statuses:
            yield from channel.outbox.settle.status(one, now)

    await channel.app.store.change(steps, now)
    channel.app.wake.hint(now)


async def _one_by_one(channel: Channel, update: int, statuses: Sequence[Status]) -> list[Exception]:
    failures: list[Exception] = []
    for one in statuses:
        try:
            await _take_in(channel, [one])
        except StoreError:
            raise
        except Exception as error:
            # The messenger's ids are not for the log: a person's number can be read off them.
            log.error("channel %s: a status %r of update %d failed: %s", channel.name, one.status, update, told(error))
            failures.append(error)
    return failures
