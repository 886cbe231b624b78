"""A message goes out once: checked in transaction A, sent, recorded in transaction B by what the messenger said."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from oncue.clock import SECOND
from oncue.errors import InvalidJob
from oncue.store.steps import Steps, run
from oncue.transport import Answer, Outgoing, Template, Text
from tests.conversation.outbox_stage import Messenger, stage
from tests.databases import Backend

HELLO = Template("hello", "en")


async def test_a_message_goes_out_at_its_time_and_the_flow_is_told(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        ref = await s.queue(person, "hi", after=3)
        await s.advance(2)
        assert s.messenger.bodies == []
        await s.advance(1)
        (sent,) = s.messenger.sent
        assert sent.content == Text("hi")
        assert sent.echo == f"v1:{ref}:1"
        assert sent.to.address == (await s.person_row(person)).address
        message = await s.message(ref)
        assert (message.state, message.external_id, message.attempt) == ("accepted", "w1", 1)
        assert s.flow.told == [("accepted", ref)]
        await s.advance(100)
        assert len(s.messenger.sent) == 1


async def test_content_that_the_messenger_would_refuse_is_not_queued(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        with pytest.raises(InvalidJob):
            await s.queue(person, "")
        assert await s.sql("SELECT 1 FROM oncue_message") == []


async def test_messages_to_one_person_go_in_the_order_of_their_ids(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        for n in range(5):
            await s.queue(person, f"m{n}", kind="say")
        s.messenger.answers = [Answer("wait_person", code=131056)]
        await s.advance(30)
        assert s.messenger.bodies == ["m0", "m0", "m1", "m2", "m3", "m4"]


async def test_a_later_message_does_not_wait_for_one_that_is_not_due(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        await s.queue(person, "in two hours", after=7200, kind="reminder")
        await s.queue(person, "now")
        await s.drain()
        assert s.messenger.bodies == ["now"]


async def test_while_the_messenger_asks_to_wait_with_one_person_others_go_on(backend: Backend) -> None:
    async with stage(backend) as s:
        first, second = await s.person(), await s.person()
        s.messenger.answers = [Answer("wait_person", code=131056)]
        await s.queue(first, "a")
        await s.drain()
        await s.queue(first, "b")
        await s.queue(second, "c")
        await s.advance(3.9)
        assert s.messenger.bodies == ["a", "c"]
        assert (await s.person_row(first)).refusals == 1
        await s.advance(10)
        assert s.messenger.bodies == ["a", "c", "a", "b"]
        row = await s.person_row(first)
        assert (row.refusals, row.wait_until) == (0, None)


async def test_all_messages_to_a_person_wait_whichever_was_refused(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        await s.queue(person, "first, due later", after=1, kind="say")
        await s.queue(person, "refused")
        s.messenger.answers = [Answer("wait_person")]
        await s.advance(3.9)
        assert s.messenger.bodies == ["refused"]
        await s.advance(2)
        assert s.messenger.bodies == ["refused", "first, due later", "refused"]


async def test_the_wait_with_a_person_grows_by_4(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        s.messenger.answers = [Answer("wait_person")] * 3
        await s.queue(person)
        await s.advance(100)
        waits = [(b - a).total_seconds() for a, b in pairwise(s.messenger.times)]
        assert waits == [4, 16, 64]


async def test_many_refusals_at_once_make_the_channel_wait_once(backend: Backend) -> None:
    async with stage(backend) as s:
        people = [await s.person() for _ in range(4)]
        together = asyncio.Barrier(4)

        async def refused(_: Outgoing) -> Answer:
            # The limit lets the next one go.
            s.clock.advance(0.001)
            await together.wait()
            return Answer("wait_channel", code=130429)

        s.messenger.answers = [refused] * 4
        for person in people:
            await s.queue(person)
        await s.drain()
        row = await s.channel_row()
        assert row.refusals == 1
        assert row.wait_until is not None
        assert row.wait_until - s.now <= 4 * SECOND
        late = await s.person()
        await s.queue(late, "late")
        await s.advance(3)
        assert len(s.messenger.sent) == 4
        await s.advance(10)
        assert len(s.messenger.sent) == 9
        assert (await s.channel_row()).refusals == 0


async def test_what_was_certainly_not_sent_is_tried_again(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person())
        s.messenger.answers = [Answer("retry", reason="no connection")] * 3
        await s.advance(60)
        assert [m.echo for m in s.messenger.sent] == [f"v1:{ref}:{n}" for n in (1, 2, 3, 4)]
        assert await s.state(ref) == "accepted"


async def test_a_refused_message_fails(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        ref = await s.queue(person)
        s.messenger.answers = [Answer("refused", code=100, reason="invalid parameter")]
        await s.advance(100)
        message = await s.message(ref)
        assert (message.state, message.code, message.reason) == ("rejected", 100, "invalid parameter")
        assert s.flow.told == [("failed", ref, "refused")]
        assert len(s.messenger.sent) == 1
        assert ("failed", "invalid parameter") in await s.events(person)


async def test_a_person_who_cannot_be_reached_gets_nothing_more(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        first, second = await s.queue(person, "a"), await s.queue(person, "b")
        s.messenger.answers = [Answer("stop_person", code=131026, reason="undeliverable")]
        await s.advance(10)
        assert s.messenger.bodies == ["a"]
        assert s.flow.told == [("failed", first, "stop_person")]
        assert await s.state(second) == "skipped"
        assert (await s.person_row(person)).stopped == "undeliverable"
        assert ("skipped", "nothing can be sent to this person: undeliverable") in await s.events(person)


@pytest.mark.parametrize("how", ["queue", "resume"])
async def test_a_stopped_channel_keeps_all_and_goes_on_once_resumed(backend: Backend, how: str) -> None:
    async with stage(backend) as s:
        first, second = await s.person(), await s.person()
        s.messenger.answers = [Answer("stop_channel", code=190, reason="the token has expired")]
        await s.queue(first, "a")
        await s.drain()
        await s.queue(second, "b")
        await s.advance(300)
        assert s.messenger.bodies == ["a"]
        row = await s.channel_row()
        assert row.stopped == "the token has expired (190)"
        if how == "queue":
            await s.app.store.set_queue("line.send", paused=False)
        else:
            assert await s.change(lambda: s.outbox.resume(s.now))
        await s.advance(61)
        assert sorted(s.messenger.bodies) == ["a", "a", "b"]
        assert (await s.channel_row()).stopped is None


async def test_outside_the_window_the_template_goes(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person(heard=86_401)
        ref = await s.queue(person, "free", fallback=HELLO)
        await s.drain()
        assert s.messenger.bodies == ["hello"]
        assert (await s.message(ref)).as_template == 1


@pytest.mark.parametrize("heard", [86_401, None])
async def test_outside_the_window_without_a_template_it_fails(backend: Backend, heard: float | None) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person(heard=heard))
        reminder = await s.queue(await s.person(heard=heard), kind="reminder")
        await s.drain()
        assert s.messenger.sent == []
        assert s.flow.told == [("failed", ref, "use_template")]
        assert (await s.message(reminder)).state == "skipped"
        assert (await s.message(reminder)).reason == "the window is shut, and it has no template"


async def test_where_the_messenger_says_that_the_window_is_shut_the_template_goes(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person(), "free", fallback=HELLO)
        bare = await s.queue(await s.person(), "bare")
        s.messenger.answers = [Answer("use_template", code=131047)] * 2
        await s.advance(5)
        assert sorted(s.messenger.bodies) == ["bare", "free", "hello"]
        assert s.flow.told.count(("accepted", ref)) == 1
        assert ("failed", bare, "use_template") in s.flow.told


async def test_a_disabled_template_is_not_tried_again(backend: Backend) -> None:
    async with stage(backend) as s:
        first = await s.queue(await s.person(), content=HELLO)
        s.messenger.answers = [Answer("disable_template", code=132001, reason="no such template")]
        await s.drain()
        second = await s.queue(await s.person(), content=HELLO)
        other = await s.queue(await s.person(), content=Template("hello", "de"))
        await s.advance(1)
        assert [m.content for m in s.messenger.sent] == [HELLO, Template("hello", "de")]
        assert s.flow.told == [
            ("failed", first, "disable_template"), ("failed", second, "disable_template"), ("accepted", other),
        ]  # fmt: skip


async def test_who_opted_out_or_is_with_a_human_gets_no_message_but_notes(backend: Backend) -> None:
    async with stage(backend) as s:
        out, human = await s.person(), await s.person()
        await s.set_person(out, opted_out_at=s.now)
        await s.set_person(human, human_since=s.now)
        for person in (out, human):
            await s.queue(person, "question")
            await s.queue(person, "note", kind="note")
        await s.advance(1)
        assert s.messenger.bodies == ["note", "note"]
        assert await s.events(out) == [("skipped", "the person has opted out")]
        assert await s.events(human) == [("skipped", "a human has taken over")]


async def test_what_the_conversation_does_not_want_any_more_is_skipped_with_its_reason(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        s.flow.refuses["reminder"] = "it was answered"
        ref = await s.queue(person, kind="reminder")
        await s.drain()
        message = await s.message(ref)
        assert (message.state, message.reason, s.messenger.sent) == ("skipped", "it was answered", [])
        assert await s.events(person) == [("skipped", "it was answered")]


async def test_withdrawn_messages_are_skipped_and_their_jobs_cancelled(backend: Backend) -> None:
    async with stage(backend) as s:
        person = await s.person()
        await s.sql_run(
            "INSERT INTO oncue_chat (id, conversation, channel, person, state, started_at, changed_at) "
            f"VALUES (7, 'trial', 'line', {person}, 'active', 1, 1)"
        )
        first = await s.queue(person, "r1", after=60, kind="reminder", chat=7, step="name")
        second = await s.queue(person, "r2", after=60, kind="reminder", chat=7, step="level")
        note = await s.queue(person, "note", after=60, kind="note")
        assert await s.change(lambda: s.outbox.withdraw(7, "name", "it was answered", s.now)) == 1
        assert [await s.state(ref) for ref in (first, second, note)] == ["skipped", "queued", "queued"]
        assert {job.state for job in await s.app.jobs.list(key=f"message-{first}")} == {"cancelled"}
        assert await s.change(lambda: s.outbox.withdraw_person(person, "they left", s.now)) == 1
        await s.advance(100)
        assert s.messenger.bodies == ["note"]
        assert await s.events(person) == [("skipped", "it was answered"), ("skipped", "they left")]


async def test_a_message_whose_job_is_gone_gets_another(backend: Backend) -> None:
    async with stage(backend) as s:
        ref = await s.queue(await s.person(), after=60)
        assert await s.outbox.sweep() == 0
        await s.app.cancel(key=f"message-{ref}")
        assert await s.outbox.sweep() == 1
        assert await s.outbox.sweep() == 0
        await s.advance(61)
        assert await s.state(ref) == "accepted"
        assert len(s.messenger.sent) == 1


async def test_only_so_many_people_a_day_are_reached_outside_their_windows(backend: Backend) -> None:
    async with stage(backend, unique_per_day=2) as s:
        people = [await s.person(heard=None) for _ in range(3)]
        inside = await s.person()
        for person in [*people, people[0], inside]:
            await s.queue(person, content=HELLO, kind="say")
            await s.advance(0.1)
        assert len(s.messenger.sent) == 4
        await s.advance(86_000)
        assert len(s.messenger.sent) == 4
        await s.advance(1_100)
        assert len(s.messenger.sent) == 5


async def test_two_rows_that_turned_out_to_be_one_person_share_a_lane(backend: Backend) -> None:
    async with stage(backend) as s:
        old, kept = await s.person(), await s.person()
        ref = await s.queue(old, after=1)
        await s.change(lambda: _repoint(old, kept))
        await s.advance(2)
        assert await s.state(ref) == "accepted"
        (job,) = [job for job in await s.app.jobs.list(key=f"message-{ref}") if job.group == f"line:{kept}"]
        assert job.state == "completed"
        assert len(s.messenger.sent) == 1


def _repoint(old: int, kept: int) -> Steps[None]:
    yield run("repoint_messages", **{"from": old, "to": kept})


async def test_what_people_write_counts_against_the_throughput(backend: Backend) -> None:
    messenger = Messenger()
    messenger.throughput = 20.0
    async with stage(backend, messenger, send_rate=10) as s:
        await s.change(lambda: s.outbox.charge(20, s.now))
        await s.queue(await s.person())
        # 20 messages of people, and we send 10 a second.
        await s.advance(1.9)
        assert messenger.sent == []
        await s.advance(0.1)
        assert len(messenger.sent) == 1


async def test_the_pair_limit_spaces_messages_to_one_person(backend: Backend) -> None:
    messenger = Messenger()
    messenger.pair = (1, 6, 3)
    async with stage(backend, messenger) as s:
        person = await s.person()
        for n in range(5):
            await s.queue(person, f"m{n}", kind="say")
        await s.queue(await s.person(), "other")
        await s.advance(0.1)
        assert messenger.bodies[:3] == ["m0", "m1", "m2"] or "other" in messenger.bodies
        assert len(messenger.bodies) == 4
        await s.advance(60)
        spaced = [t for t, m in zip(messenger.times, messenger.bodies, strict=True) if m in ("m2", "m3", "m4")]
        assert [(b - a).total_seconds() >= 5.9 for a, b in pairwise(spaced)] == [True, True]
