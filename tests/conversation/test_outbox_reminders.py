"""Reminders: none after the answer, none at night, none that is stale."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from oncue.conversation.polite import Quiet
from oncue.scheduling import Scheduled, new_job
from oncue.store.steps import Steps
from oncue.store.steps.insert import insert_jobs
from oncue.transport import Answer, Outgoing, Template
from tests.conversation.outbox_stage import Stage, stage
from tests.databases import Backend

HELLO = Template("hello", "en")
EVENING = datetime(2030, 1, 1, 20, 59, tzinfo=UTC)


def answered(s: Stage, person: int) -> Steps[None]:
    """Store the job that handles an answer, as the intake does."""
    wanted = Scheduled(s.channel.tasks.receive.call(1, person), group=s.channel.lane(person), queue="line")
    yield from insert_jobs([new_job(wanted, s.now)])


async def test_no_post_of_a_reminder_begins_after_the_answers_commit(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is handled in the person's lane, which the send of a reminder holds from before transaction A until
    after its request; and transaction A of a reminder that comes later sees what the answer left."""
    from oncue.conversation import receive as room

    async with stage(backend) as s:
        person = await s.person()
        log: list[str] = []
        asked, held = asyncio.Event(), asyncio.Event()

        async def hear(*_: object) -> None:
            s.flow.refuses["reminder"] = "it was answered"
            log.append("answer")

        async def slow(_: Outgoing) -> Answer:
            log.append("POST begins")
            asked.set()
            await held.wait()
            log.append("POST ends")
            return Answer("sent", "w1")

        monkeypatch.setattr(room, "receive", hear)
        first = await s.queue(person, kind="reminder", nth=1)
        second = await s.queue(person, kind="reminder", nth=2, after=1)
        s.messenger.answers = [slow]
        draining = asyncio.create_task(s.app.drain())
        await asked.wait()
        # While the request is under way, the answer comes in: another worker looks, and can't take it yet.
        await s.change(lambda: answered(s, person))
        await s.app.drain()
        assert log == ["POST begins"]
        held.set()
        await draining
        await s.advance(5)
        assert log == ["POST begins", "POST ends", "answer"]
        assert await s.state(first) == "accepted"
        assert (await s.message(second)).reason == "it was answered"
        assert len(s.messenger.sent) == 1


async def test_a_reminder_lets_an_answer_that_waits_go_first(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    from oncue.conversation import receive as room

    async with stage(backend) as s:
        person = await s.person()

        async def hear(*_: object) -> None:
            s.flow.refuses["reminder"] = "it was answered"

        monkeypatch.setattr(room, "receive", hear)
        # Due before the answer came, so first in the lane.
        ref = await s.queue(person, kind="reminder")
        s.clock.advance(2)
        await s.change(lambda: answered(s, person))
        await s.advance(5)
        assert s.messenger.sent == []
        assert await s.state(ref) == "skipped"


async def test_a_stale_reminder_is_skipped_with_its_reason(backend: Backend) -> None:
    async with stage(backend, stale=1800) as s:
        person = await s.person()
        stale = await s.queue(person, kind="reminder")
        longer = await s.queue(person, kind="reminder", stale=7200.0)
        question = await s.queue(person, "question")
        s.clock.advance(1801)
        await s.drain()
        assert (await s.message(stale)).reason == "stale: 1801 s late"
        assert await s.events(person) == [("skipped", "stale: 1801 s late")]
        assert [await s.state(ref) for ref in (stale, longer, question)] == ["skipped", "accepted", "accepted"]


async def test_in_quiet_hours_reminders_wait_and_answers_do_not(backend: Backend) -> None:
    async with stage(backend, start=EVENING, quiet=Quiet("21:00", "08:00")) as s:
        here, away = await s.person(), await s.person(zone="America/New_York")
        await s.queue(here, "r-here", kind="reminder", after=120)
        await s.queue(away, "r-away", kind="reminder", after=120)
        await s.queue(here, "question", after=180)
        await s.advance(300)
        assert s.messenger.bodies == ["r-away", "question"]
        await s.advance(11 * 3600)
        assert s.messenger.bodies == ["r-away", "question", "r-here"]
        assert s.messenger.times[2].replace(microsecond=0) == datetime(2030, 1, 2, 8, tzinfo=UTC)


async def test_where_quiet_hours_outlast_the_window_a_reminder_is_skipped_or_goes_as_a_template(
    backend: Backend,
) -> None:
    async with stage(backend, start=EVENING, quiet=Quiet("21:00", "08:00")) as s:
        person, other = await s.person(heard=20 * 3600), await s.person(heard=20 * 3600)
        bare = await s.queue(person, kind="reminder", after=120)
        await s.queue(other, kind="reminder", after=120, fallback=HELLO)
        await s.advance(12 * 3600)
        assert (await s.message(bare)).reason == "quiet hours last until the window is shut, and it has no template"
        assert [m.content for m in s.messenger.sent] == [HELLO]
