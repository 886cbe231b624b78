"""Conversations as every face shows them: why each waits and since when, what needs a person, and how it is mended."""

from __future__ import annotations

import pytest

from oncue import OnCue
from oncue.alerts import Parked
from oncue.conversation import Chat
from oncue.conversation.intake import Heartbeat
from oncue.errors import InvalidJob, UnknownPerson
from oncue.operate import Operator, standing
from oncue.operate.views import Health
from oncue.store.steps import manage
from oncue.testing import TestClock
from oncue.transport import Answer
from tests.conversation.engine_stage import Talk, talk
from tests.databases import Backend

DAY = 86_400


async def trial(chat: Chat) -> None:
    name = await chat.ask("name", "Who are you?", delay=5)
    if name == "boom":
        raise KeyError("no lesson")
    await chat.ask("level", "How is your English?")


async def found(t: Talk) -> dict[str, Health]:
    """What the overview says of conversations and their channel."""
    operator = Operator(t.app, "cli:ana")
    # The clock is moved by hand: what took long to get is kept for some seconds of the machine's.
    operator.look.forget()
    return {one.name: one for one in await operator.checks()}


async def why(t: Talk) -> str:
    return (await Operator(t.app, "cli:ana").talk((await t.chat()).id)).why


async def seen(t: Talk) -> None:
    """The intake says that it runs."""
    await Heartbeat(t.app).beat()


def pass_by(t: Talk, seconds: float) -> None:
    """Time goes on, and nobody does what is due."""
    t.clock.advance(seconds)


async def test_without_a_channel_nothing_is_said_of_conversations(backend: Backend, clock: TestClock) -> None:
    async with OnCue(backend.url, clock=clock) as app:
        assert await standing.conversations(app) == []
        assert await standing.channels(app) == []


async def test_a_parked_conversation_is_named_with_its_reason_and_what_to_do(backend: Backend) -> None:
    async with talk(backend, trial) as t:
        await seen(t)
        await t.write("start")
        await t.advance(6)
        assert (await found(t))["conversations"].state == "ok"
        await t.write("boom")
        # It is tried five times.
        await t.advance(3600)
        check = (await found(t))["conversations"]
        assert check.state == "warn"
        assert "1 conversation is parked, the first " in check.found
        assert await Parked().find(t.app) == "1 conversation parked, the last 1 (trial)"
        assert await Parked(conversations=2).find(t.app) is None
        assert check.found.endswith("the last, 1 (trial) at name: KeyError: 'no lesson'")
        assert "oncue conversations resume APP ID" in str(check.remedy)
        life = await Operator(t.app, "cli:ana").talk(1)
        assert life.why.startswith("it is parked since ")
        assert "KeyError: 'no lesson'" in life.why
        assert "raise KeyError" in str(life.error)
        t.app.redact("text")
        assert "no lesson" not in (await found(t))["conversations"].found
        assert (await Operator(t.app, "cli:ana").talk(1)).error is None


async def test_why_a_conversation_waits_names_the_step_the_message_and_since_when(backend: Backend) -> None:
    async with talk(backend, trial) as t:
        await t.write("start")
        assert await why(t) == "at name, its question goes out in 5.0 s"
        pass_by(t, 65)
        # Nobody is there to send it.
        assert (await why(t)).startswith("at name, its question, due 60 s ago, is not sent yet; job ")
        assert "(line.send) is late: " in await why(t)
        assert "no worker for queue 'line.send' is alive" in await why(t)
        await t.drain()
        pass_by(t, 120)
        assert await why(t) == "at name, its question was sent 2 min ago; it waits for an answer"
        await t.write("Ana", drain=False)
        pass_by(t, 5)
        assert "(line.receive) is late: no worker for queue 'line' is alive" in await why(t)


async def test_an_unknown_message_is_said_to_hold_its_person_up_and_why(backend: Backend) -> None:
    async with talk(backend, trial) as t:
        await seen(t)
        t.wire.answers = [Answer("unknown")]
        await t.write("start")
        await t.advance(6)
        assert "nobody knows since 1.0 s ago whether its question was sent" in await why(t)
        assert (await found(t))["channel line"].state == "ok"
        await t.advance(300)
        assert "the intake of updates, which would tell, was not seen for 5 min" in await why(t)
        check = (await found(t))["channel line"]
        assert check.state == "warn"
        assert "1 message may have been sent, nobody knows, the first for 5 min" in check.found
        assert "webhook_app" in str(check.remedy)
        await seen(t)
        check = (await found(t))["channel line"]
        assert check.state == "warn"
        assert check.remedy is not None
        assert check.remedy.endswith("oncue jobs list --queue line.send")


async def test_a_channel_that_stopped_or_that_nobody_hears_is_told(backend: Backend) -> None:
    async with talk(backend, trial) as t:
        await t.write("start")
        check = (await found(t))["channel line"]
        assert (check.state, check.found) == ("warn", "the intake of updates has never run: is anybody heard?")
        await seen(t)
        assert (await found(t))["channel line"].state == "ok"
        t.wire.answers = [Answer("stop_channel", code=190, reason="the token has expired")]
        await t.advance(6)
        check = (await found(t))["channel line"]
        assert (check.state, check.found) == ("fail", "it sends nothing since 1.0 s ago: the token has expired (190)")
        assert "oncue queues resume line.send" in str(check.remedy)
        assert await Parked().find(t.app) == "channel line was stopped by its messenger"
        # That was not forgotten: what its reason says comes first.
        assert (await found(t))["queues"].state == "ok"
        await t.app.store.change(lambda: manage.set_queue(t.now, "line.send", False))
        await t.drain()
        assert (await found(t))["channel line"].state == "ok"
        assert await Parked().find(t.app) is None


async def test_a_takeover_is_given_back_and_one_that_was_forgotten_is_told(backend: Backend) -> None:
    async with talk(backend, trial) as t:
        await t.write("start")
        await t.advance(6)
        operator = Operator(t.app, "cli:ana")
        await operator.steer_talk("takeover", 1)
        assert "a human has taken over since" in await why(t)
        assert (await operator.talk(1)).human_since is not None
        with pytest.raises(InvalidJob, match="release"):
            await operator.steer_talk("resume", 1)
        assert (await found(t))["conversations"].found.startswith("1 conversation is paused")
        assert (await found(t))["conversations"].state == "ok"
        pass_by(t, DAY + 1)
        check = (await found(t))["conversations"]
        assert check.state == "warn"
        assert "oncue conversations release APP PERSON" in str(check.remedy)
        await operator.steer_talk("release", 1)
        with pytest.raises(InvalidJob, match="nothing to give back"):
            await operator.steer_talk("release", 1)
        assert await t.state() == ("active", "name")
        assert (await found(t))["conversations"].state == "ok"
        done = [(one.who, one.action, one.target) for one in (await operator.audit()).items]
        assert done == [("cli:ana", name, "person:1") for name in ("release", "takeover")]


async def test_a_person_is_told_with_all_their_conversations_and_without_names_where_texts_are_hidden(
    backend: Backend,
) -> None:
    async with talk(backend, trial) as t:
        for text in ("start", "Ana", "stop talking"):
            await t.write(text)
            await t.advance(6)
        operator = Operator(t.app, "cli:ana")
        life = await operator.person(1)
        assert life.person.address is not None
        assert life.person.heard_at is not None
        assert ('"Ana"', 1) in [(said.text.partition(" [")[0], said.chat) for said in life.timeline]
        assert [said.at for said in life.timeline] == sorted(said.at for said in life.timeline)
        talked = await operator.talk(1)
        assert [said for said in life.timeline if said.chat in (None, 1)] == talked.timeline
        assert (talked.steps[0].name, talked.steps[0].value) == ("name", "Ana")
        assert [one.id for one in await operator.people(life.person.address)] == [1]
        t.app.redact("text")
        for hidden in (await operator.person(1, redact=True), await Operator(t.app, "cli:ana").person(1)):
            assert (hidden.person.name, hidden.person.address, hidden.person.user_id) == (None, None, None)
            assert not [said for said in hidden.timeline if "Ana" in said.text or life.person.address in said.text]
        with pytest.raises(UnknownPerson):
            await operator.person(7)
