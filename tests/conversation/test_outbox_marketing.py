"""Marketing goes only to those who want it, when they want it."""

from __future__ import annotations

from oncue.clock import SECOND
from oncue.conversation import people
from oncue.transport import Address, Answer, Preference, Template
from tests.conversation.outbox_stage import stage
from tests.databases import Backend

OFFER = Template("offer", "en", category="marketing")
HELLO = Template("hello", "en")


async def test_who_wants_no_marketing_gets_none(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        first = await s.queue(person, content=OFFER)
        s.messenger.answers = [Answer("no_marketing", code=131050)]
        await s.drain()
        second = await s.queue(person, content=OFFER)
        useful = await s.queue(person, content=HELLO)
        await s.advance(2)
        assert s.messenger.bodies == ["offer", "hello"]
        assert ("failed", first, "no_marketing") in s.flow.told
        assert ("failed", second, "no_marketing") in s.flow.told
        assert await s.state(useful) == "accepted"


async def test_an_older_wish_that_is_told_once_more_does_not_bring_marketing_back(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        wish = Preference(Address("1"), s.now - SECOND, marketing=True)
        await s.change(lambda: people.prefer(person, wish))
        s.messenger.answers = [Answer("no_marketing", code=131050, reason="opted out")]
        await s.queue(person, content=Template("sale", category="marketing"))
        await s.drain()
        assert (await s.person_row(person)).no_marketing_at is not None
        await s.change(lambda: people.prefer(person, wish))
        assert (await s.person_row(person)).no_marketing_at is not None
        assert ("marketing", "wants no marketing") in await s.events(person)


async def test_marketing_that_is_not_wanted_now_waits_a_day_and_keeps_nobody_waiting(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        await s.queue(person, content=OFFER)
        s.messenger.answers = [Answer("no_marketing", code=131049, after=86_400)]
        await s.drain()
        await s.queue(person, "a question")
        await s.advance(80_000)
        assert s.messenger.bodies == ["offer", "a question"]
        await s.advance(6_401)
        assert s.messenger.bodies == ["offer", "a question", "offer"]


async def test_marketing_that_is_never_wanted_is_given_up_and_opts_nobody_out(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        ref = await s.queue(person, content=OFFER)
        s.messenger.answers = [Answer("no_marketing", code=131049, reason="enough", after=86_400)] * 9
        for _ in range(9):
            await s.advance(86_401)
        message = await s.message(ref)
        assert (message.state, message.code, message.reason) == ("rejected", 131049, "enough (7 tries)")
        assert len(s.messenger.sent) == 7
        assert s.flow.told == [("failed", ref, "refused")]
        assert (await s.person_row(person)).no_marketing_at is None
