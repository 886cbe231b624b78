"""Whether silence tells that a message was not sent: only where all that came in meanwhile would have been heard."""

from __future__ import annotations

import pytest

from oncue.conversation.receive import add_jobs
from oncue.store.steps import manage
from oncue.transport import Answer
from tests.conversation.outbox_stage import Messenger, R, Stage, stage
from tests.databases import Backend

UNKNOWN = Answer("unknown", reason="the connection broke")


async def unknown(s: Stage) -> str:
    ref = await s.queue(await s.person())
    s.messenger.answers = [UNKNOWN]
    await s.drain()
    assert await s.state(ref) == "unknown"
    return ref


async def test_without_a_heartbeat_of_the_intake_nothing_is_resent(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await unknown(s)
        await s.advance(10 * R)
        assert len(s.messenger.sent) == 1
        reason = (await s.message(ref)).reason
        assert reason is not None
        assert "the intake of updates was not seen for" in reason


async def test_where_no_intake_ever_ran_nothing_is_resent(backend: Backend) -> None:
    async with stage(backend) as s:
        await s.sql_run("DELETE FROM oncue_channel")
        ref = await unknown(s)
        await s.advance(10 * R)
        assert len(s.messenger.sent) == 1
        assert (await s.message(ref)).reason == "unknown whether it was sent: no intake of updates has ever run"


async def test_after_a_gap_of_the_intake_the_window_begins_anew(backend: Backend) -> None:
    async with stage(backend) as s:
        await unknown(s)
        await s.advance(R - 20, alive=True)
        # Away for 30 s, back at R + 10.
        s.clock.advance(30)
        await s.alive()
        await s.advance(R - 2, alive=True)
        assert len(s.messenger.sent) == 1
        await s.advance(R, alive=True)
        assert len(s.messenger.sent) == 2


async def test_an_intake_that_is_deaf_resends_nothing(backend: Backend) -> None:
    async with stage(backend) as s:
        await unknown(s)
        # Another message is accepted, and no status of it comes, nor anything else.
        await s.queue(await s.person(), "other", after=10)
        await s.advance(5 * R, alive=True)
        assert s.messenger.bodies == ["hello", "other"]
        # The first sign of life: the silence said nothing, from now on it does.
        await s.status("delivered", "w2")
        await s.advance(2 * R, alive=True)
        assert s.messenger.bodies == ["hello", "other", "hello"]


async def test_a_message_that_was_accepted_a_moment_ago_proves_no_deafness(backend: Backend) -> None:
    async with stage(backend) as s:
        await unknown(s)
        await s.queue(await s.person(), "other", after=R - 5)
        await s.advance(R + 2, alive=True)
        assert s.messenger.bodies == ["hello", "other", "hello"]


async def test_what_is_heard_proves_that_the_intake_is_not_deaf(backend: Backend) -> None:
    async with stage(backend) as s:
        await unknown(s)
        await s.queue(await s.person(), "other", after=10)
        await s.advance(20, alive=True)
        await s.set_channel(heard_at=s.now)
        await s.advance(R, alive=True)
        assert s.messenger.bodies == ["hello", "other", "hello"]


async def pause(s: Stage, queue: str, paused: bool = True) -> None:
    await s.change(lambda: manage.set_queue(s.now, queue, paused))


async def test_an_update_that_came_in_and_is_not_read_yet_holds_the_resend_up(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await unknown(s)
        await s.advance(R / 2, alive=True)
        await pause(s, s.channel.queue)
        await s.change(lambda: add_jobs(s.channel, 1, [], True, s.now))
        await s.advance(2 * R, alive=True)
        assert len(s.messenger.sent) == 1
        reason = "unknown whether it was sent: updates that came in meanwhile are still to be read: 1"
        assert (await s.message(ref)).reason == reason
        await pause(s, s.channel.queue, False)
        await s.advance(R, alive=True)
        assert len(s.messenger.sent) == 2


async def test_an_update_that_came_a_moment_ago_does_not_hold_the_resend_up(backend: Backend) -> None:
    async with stage(backend) as s:
        await unknown(s)
        await pause(s, s.channel.queue)
        await pause(s, f"{s.channel.queue}.send")
        await s.advance(R + 1, alive=True)
        await s.change(lambda: add_jobs(s.channel, 1, [], True, s.now))
        await pause(s, f"{s.channel.queue}.send", False)
        await s.drain()
        assert len(s.messenger.sent) == 2


@pytest.mark.parametrize("lacks", ["statuses", "echo"])
async def test_a_messenger_without_statuses_has_its_question_resent_after_the_window(
    backend: Backend, lacks: str
) -> None:
    async with stage(backend, Messenger(**{lacks: False})) as s:
        ref = await unknown(s)
        await s.advance(R - 2)
        assert len(s.messenger.sent) == 1
        await s.advance(4)
        assert len(s.messenger.sent) == 2
        assert await s.state(ref) == "accepted"


async def test_a_question_that_is_not_wanted_any_more_is_not_resent(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await unknown(s)
        s.flow.refuses["question"] = "the conversation was stopped"
        await s.advance(2 * R, alive=True)
        assert len(s.messenger.sent) == 1
        assert (await s.message(ref)).resolution == "not resent: the conversation was stopped"
