"""Conversations from end to end: questions, answers, choices, checks, delays, fragments, reminders."""

from __future__ import annotations

import pytest

from oncue.clock import SECOND, from_us
from oncue.conversation import Chat, Remind, hours, minutes
from oncue.conversation.advance import MOST_HINTS
from oncue.transport import Choices, Option, Template, Text
from tests.conversation.engine_stage import ADA, Talk, Wire, talk
from tests.databases import Backend


async def trial(chat: Chat) -> None:
    name = await chat.ask("name", "Who are you?", delay=2)
    level = await chat.ask("level", f"Hello {name}. Level?", choices=["new", "some", "good"], delay=2)
    for i in range(8):
        await chat.ask(f"q{i}", f"{level} {i}?", delay=(2, 10))
    await chat.say("done", f"Bye {name}", delay=1)


async def test_ten_questions_come_once_and_in_order(backend: Backend) -> None:
    async with talk(backend, trial) as t:
        await t.write("Start!")
        assert t.shown == []
        await t.advance(2)
        assert t.shown == ["Who are you?"]
        await t.write("Ada")
        await t.advance(2)
        await t.tap("good")
        for i in range(8):
            await t.advance(10)
            assert t.shown[-1] == f"good {i}?"
            await t.write(f"answer {i}")
        await t.advance(1)
        assert t.shown == ["Who are you?", "Hello Ada. Level?", *(f"good {i}?" for i in range(8)), "Bye Ada"]
        assert await t.state() == ("done", None)
        assert await t.values() == {
            "name": "Ada", "level": "good", **{f"q{i}": f"answer {i}" for i in range(8)}, "done": None,
        }  # fmt: skip
        assert await t.jobs() == []


async def test_a_delay_counts_from_the_answer_and_typing_is_shown_during_it(backend: Backend) -> None:
    async def two(chat: Chat) -> None:
        await chat.ask("a", "A?")
        await chat.ask("b", "B?", delay=(3, 5))

    async with talk(backend, two, wire=Wire(typing=True)) as t:
        await t.write("start")
        answered = t.now
        inbound = await t.write("yes")
        (message,) = [m for m in await t.messages("question") if m.step == "b"]
        assert answered + 3 * SECOND <= message.due <= answered + 5 * SECOND + 1000
        assert t.wire.typed == [inbound.external_id]
        await t.advance(5)
        assert t.shown == ["A?", "B?"]
        assert t.wire.times[-1] == from_us(message.due)


async def test_each_message_follows_when_the_one_before_was_sent(backend: Backend) -> None:
    async def parts(chat: Chat) -> None:
        await chat.say("one", "1")
        await chat.say("two", "2", delay=4)
        await chat.sleep("rest", minutes(10))
        await chat.say("three", "3")

    async with talk(backend, parts) as t:
        await t.write("start")
        assert t.shown == ["1"]
        await t.advance(3.9)
        assert t.shown == ["1"]
        await t.advance(1)
        assert t.shown == ["1", "2"]
        await t.advance(599)
        assert t.shown == ["1", "2"]
        await t.advance(2)
        assert t.shown == ["1", "2", "3"]
        assert await t.state() == ("done", None)


async def test_a_delay_may_count_from_the_delivery_which_is_waited_for_30_seconds_at_most(backend: Backend) -> None:
    async def parts(chat: Chat) -> None:
        await chat.say("one", "1")
        await chat.say("two", "2", delay=1, after="delivered")
        await chat.say("three", "3", delay=1, after="delivered")

    async with talk(backend, parts) as t:
        await t.write("start")
        await t.advance(5)
        assert t.shown == ["1"]
        await t.status("delivered", t.wire.sent[0])
        await t.advance(1)
        assert t.shown == ["1", "2"]
        await t.advance(30)
        assert t.shown == ["1", "2"]
        await t.advance(1.1)
        assert t.shown == ["1", "2", "3"]


async def test_without_statuses_a_delivery_is_not_waited_for(backend: Backend) -> None:
    async def parts(chat: Chat) -> None:
        await chat.say("one", "1")
        await chat.say("two", "2", delay=1, after="delivered")

    async with talk(backend, parts, wire=Wire(statuses=False)) as t:
        await t.write("start")
        await t.advance(1)
        assert t.shown == ["1", "2"]


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("good", "g"),
        ("  GOOD! ", "g"),
        ("Quite good", "g"),
        ("2", "g"),
        ("1.", "n"),
        ("n", "n"),
        ("3", None),
        ("x", None),
    ],
)
async def test_a_typed_answer_counts_by_title_id_or_number(backend: Backend, answer: str, kept: str | None) -> None:
    options = [Option("n", "new"), Option("g", "good")] if "Quite" not in answer else [Option("g", "Quite good")]

    async def one(chat: Chat) -> None:
        await chat.ask("level", "Level?", choices=options)

    async with talk(backend, one) as t:
        await t.write("start")
        await t.write(answer)
        assert (await t.values()).get("level") == kept
        # What fits no answer is asked again, with the answers to tap.
        assert len(t.wire.sent) == (1 if kept else 2)
        assert isinstance(t.wire.sent[-1].content, Choices)


async def test_more_answers_than_can_be_tapped_are_numbered(backend: Backend) -> None:
    async def many(chat: Chat) -> None:
        await chat.ask("n", "Which?", choices=[f"c{i}" for i in range(12)])

    async with talk(backend, many) as t:
        await t.write("start")
        (sent,) = t.wire.sent
        assert isinstance(sent.content, Text)
        assert sent.content.body.splitlines()[:4] == ["Which?", "", "1. c0", "2. c1"]
        await t.write("12")
        assert await t.values() == {"n": "c11"}


async def test_a_tapped_answer_of_an_earlier_question_is_none_to_this_one(backend: Backend) -> None:
    async def two(chat: Chat) -> None:
        await chat.ask("a", "A?", choices=["yes", "no"])
        await chat.ask("b", "B?", choices=["yes", "no"])

    async with talk(backend, two) as t:
        await t.write("start")
        first = t.wire.sent[0].content
        assert isinstance(first, Choices)
        await t.tap("yes")
        assert t.shown == ["A?", "B?"]
        await t.write("no", kind="choice", choice=first.options[1].id)
        assert await t.state() == ("active", "b")
        assert (await t.heard("no")).note == "an answer to another question"
        await t.tap("no")
        assert await t.values() == {"a": "yes", "b": "no"}


async def test_a_check_cleans_or_refuses_with_words_for_the_person(backend: Backend) -> None:
    async def age(text: str) -> int:
        number = int(text)
        if number > 120:
            raise ValueError("Nobody is that old. How old are you?")
        return number

    async def ask(chat: Chat) -> None:
        number = await chat.ask("age", "How old?", check=age, retry="A number, please.")
        assert isinstance(number, int)
        await chat.say("then", f"In ten years: {number + 10}")

    async with talk(backend, ask) as t:
        await t.write("start")
        await t.write("old")
        await t.write("900")
        assert (await t.chat()).tries == 2
        await t.write("36")
        assert t.shown == ["How old?", "A number, please.", "Nobody is that old. How old are you?", "In ten years: 46"]
        assert (await t.values())["age"] == 36
        assert [m.nth for m in await t.messages("hint")] == [1, 2]


async def test_a_program_that_answers_hints_is_not_answered_for_ever(backend: Backend) -> None:
    async def ask(chat: Chat) -> None:
        await chat.ask("age", "How old?", check=int, retry="A number, please.", remind=[Remind(after=hours(1))])

    async with talk(backend, ask) as t:
        await t.write("start")
        for number in range(MOST_HINTS + 5):
            await t.write(f"Thank you for message {number}.")
            await t.advance(10)
        assert t.shown.count("A number, please.") == MOST_HINTS
        assert len(await t.events("silent")) == 1
        await t.advance(hours(2).total_seconds())
        assert [m.state for m in await t.messages("reminder")][-1] == "accepted"
        await t.write("36")
        assert (await t.chat()).state == "done"


async def test_what_is_no_text_gets_a_hint_and_a_reaction_nothing(backend: Backend) -> None:
    async def one(chat: Chat) -> None:
        await chat.ask("a", "A?")

    async with talk(backend, one) as t:
        await t.write("start")
        await t.write("", kind="reaction")
        assert len(t.wire.sent) == 1
        await t.write("", kind="audio")
        assert len(t.wire.sent) == 2
        assert await t.state() == ("active", "a")


async def test_what_comes_before_the_question_was_sent_is_no_answer_to_it(backend: Backend) -> None:
    async def two(chat: Chat) -> None:
        await chat.ask("a", "A?")
        await chat.ask("b", "B?", delay=5)

    async with talk(backend, two) as t:
        await t.write("start")
        await t.write("yes")
        await t.advance(1)
        await t.write("and more")
        assert (await t.heard("and more")).note == "it came before the question was sent"
        await t.advance(5)
        assert t.shown == ["A?", "B?"]
        await t.write("no")
        assert await t.values() == {"a": "yes", "b": "no"}


async def fragments(chat: Chat) -> None:
    await chat.ask("a", "A?", settle=5, settle_most=12, remind=[Remind(60)])
    await chat.say("b", "B")


async def test_fragments_are_one_answer(backend: Backend) -> None:
    async with talk(backend, fragments) as t:
        await t.write("start")
        await t.write("one")
        await t.advance(4)
        await t.write("two")
        await t.advance(4.9)
        assert t.shown == ["A?"]
        await t.advance(1)
        assert t.shown == ["A?", "B"]
        assert (await t.values())["a"] == "one\ntwo"


async def test_fragments_are_waited_for_so_long_and_no_longer(backend: Backend) -> None:
    async with talk(backend, fragments) as t:
        await t.write("start")
        for text in ("one", "two", "three", "four"):
            await t.write(text)
            await t.advance(3.9)
        assert (await t.values())["a"] == "one\ntwo\nthree\nfour"
        assert t.shown == ["A?", "B"]


async def test_the_first_fragment_ends_the_reminders(backend: Backend) -> None:
    async with talk(backend, fragments) as t:
        await t.write("start")
        (reminder,) = await t.messages("reminder")
        assert reminder.state == "queued"
        await t.advance(58)
        await t.write("one")
        (reminder,) = await t.messages("reminder")
        assert (reminder.state, reminder.reason) == ("skipped", "the person has written")
        await t.advance(100)
        assert t.shown == ["A?", "B"]


async def nagging(chat: Chat) -> None:
    await chat.ask("a", "A?", remind=[Remind(hours(2)), Remind(after=hours(3), text="Still there?")], delay=5)
    await chat.ask("b", "B?")


async def test_reminders_start_when_the_question_was_sent_and_end_with_the_answer(backend: Backend) -> None:
    async with talk(backend, nagging) as t:
        await t.write("start")
        assert await t.messages("reminder") == []
        await t.advance(5)
        asked = t.wire.times[0]
        await t.advance(7200)
        assert t.shown == ["A?", "A?"]
        assert (t.wire.times[1] - asked).total_seconds() == pytest.approx(7200, abs=0.01)
        await t.write("here")
        await t.advance(7200)
        assert t.shown == ["A?", "A?", "B?"]
        assert [m.state for m in await t.messages("reminder")] == ["accepted", "skipped"]
        assert not [job for job in await t.jobs() if job[0] == "line.send"]


async def test_reminders_begin_anew_after_a_hint(backend: Backend) -> None:
    async def one(chat: Chat) -> None:
        await chat.ask("a", "A?", check=str.isdecimal, remind=[Remind(60, "Still there?")])

    async with talk(backend, one) as t:
        await t.write("start")
        await t.write("what?")
        assert len(t.shown) == 2
        await t.advance(59)
        assert len(t.shown) == 2
        await t.advance(2)
        assert t.shown[2:] == ["Still there?"]


async def test_an_answer_tapped_in_a_reminder_is_an_answer(backend: Backend) -> None:
    async def one(chat: Chat) -> None:
        await chat.ask("a", "A?", choices=["yes", "no"], remind=[Remind(60)])

    async with talk(backend, one) as t:
        await t.write("start")
        await t.advance(61)
        first, second = (sent.content for sent in t.wire.sent)
        assert isinstance(first, Choices)
        assert isinstance(second, Choices)
        assert first.options[0].id != second.options[0].id
        await t.tap("yes")
        assert await t.values() == {"a": "yes"}


async def test_the_last_reminder_comes_before_the_window_shuts_and_later_ones_need_a_template(backend: Backend) -> None:
    late = Template("late")

    async def one(chat: Chat) -> None:
        reminders = [Remind(hours(25)), Remind(hours(26)), Remind(hours(27), template=late)]
        await chat.ask("a", "A?", remind=reminders)

    async with talk(backend, one) as t:
        await t.write("start")
        await t.advance(24 * 3600)
        assert t.shown == ["A?", "A?"]
        assert (t.wire.times[1] - t.wire.times[0]).total_seconds() == pytest.approx(24 * 3600 - 600, abs=1)
        await t.advance(4 * 3600)
        assert t.shown == ["A?", "A?", "late"]
        assert len(await t.events("skipped")) == 1


async def test_a_shut_window_sends_the_template_else_parks(backend: Backend) -> None:
    async def daily(chat: Chat) -> None:
        await chat.sleep("night", hours(30))
        await chat.say("a", "A", template=Template("again"))
        await chat.ask("b", "B?")

    async with talk(backend, daily) as t:
        await t.write("start")
        await t.advance(30 * 3600 + 1)
        assert t.shown == ["again"]
        chat = await t.chat()
        assert (chat.state, chat.step) == ("parked", "b")
        assert chat.reason is not None
        assert "window is shut" in chat.reason
        # The person writes, which opens it; an operator resumes.
        await t.write("hello?")
        assert (await t.heard("hello?")).note == "it came before the question was sent"
        await t.conversations.resume(chat.id)
        await t.drain()
        assert t.shown == ["again", "B?"]
        await t.write("yes")
        assert await t.values() == {"night": None, "a": None, "b": "yes"}


async def test_whoever_leaves_hears_nothing_more_and_may_come_back(backend: Backend) -> None:
    async with talk(backend, nagging) as t:
        await t.write("start")
        await t.advance(5)
        await t.write("STOP")
        assert (await t.chat()).state == "stopped"
        await t.advance(24 * 3600)
        assert t.shown == ["A?"]
        await t.write("start")
        await t.advance(5)
        assert t.shown == ["A?", "A?"]


async def _both(t: Talk) -> None:
    await t.write("start")
    await t.write("start", address="2")


async def test_people_do_not_wait_for_each_other(backend: Backend) -> None:
    async with talk(backend, trial) as t:
        await _both(t)
        await t.advance(2)
        await t.write("Bo", address="2")
        await t.advance(2)
        assert [sent.to.address for sent in t.wire.sent] == [ADA, "2", "2"]
