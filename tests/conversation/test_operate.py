"""Steering conversations: what a pause called off comes back, and what a human writes goes out."""

from __future__ import annotations

import contextlib

import pytest

from oncue.conversation import Chat, Remind
from oncue.conversation.care import People
from oncue.errors import InvalidJob
from oncue.operate import Operator
from oncue.transport import Answer, Template
from tests.conversation.engine_stage import ADA, Talk, talk
from tests.databases import USUAL, Backend

pytestmark = pytest.mark.parametrize("backend", USUAL, indirect=True)
HOUR = 3600


async def steps(chat: Chat) -> None:
    remind = [Remind(60, "first"), Remind(HOUR, "second")]
    await chat.ask("age", "Age?", check=int, retry="A number, please.", remind=remind)


async def held(t: Talk, how: str, seconds: float = 30) -> None:
    """Hold the conversation for a while."""
    chat = await t.chat()
    if how == "pause":
        await t.conversations.pause(chat.id)
        await t.advance(seconds)
        await t.conversations.resume(chat.id)
    else:
        await t.conversations.takeover(chat.person)
        await t.advance(seconds)
        await t.conversations.release(chat.person)
    await t.drain()


@pytest.mark.parametrize("how", ["pause", "takeover"])
async def test_reminders_that_are_still_to_come_come_once_after_a_pause(backend: Backend, how: str) -> None:
    async with talk(backend, steps) as t:
        await t.write("start")
        await t.advance(90)
        await held(t, how)
        await held(t, how)
        await t.advance(2 * HOUR)
        assert t.shown == ["Age?", "first", "second"]


@pytest.mark.parametrize("how", ["pause", "takeover"])
async def test_after_a_hint_they_count_from_the_hint(backend: Backend, how: str) -> None:
    async with talk(backend, steps) as t:
        await t.write("start")
        await t.advance(2 * HOUR)
        await t.write("old")
        await t.advance(10)
        await held(t, how)
        await t.advance(2 * HOUR)
        assert t.shown == ["Age?", "first", "second", "A number, please.", "first", "second"]


@pytest.mark.parametrize("how", ["pause", "takeover"])
async def test_a_hint_that_was_called_off_goes_out_with_its_reminders(backend: Backend, how: str) -> None:
    async def slow(chat: Chat) -> None:
        await chat.ask("age", "Age?", check=int, retry="A number, please.", delay=5, remind=[Remind(60, "first")])

    async with talk(backend, slow) as t:
        await t.write("start")
        await t.advance(10)
        await t.write("old")
        await held(t, how)
        assert t.shown == ["Age?", "A number, please."]
        await held(t, how, 1)
        await t.advance(HOUR)
        assert t.shown == ["Age?", "A number, please.", "first"]


async def test_a_number_that_is_none_is_no_answer(backend: Backend) -> None:
    async def weigh(chat: Chat) -> None:
        await chat.ask("weight", "Weight?", check=lambda text: {"kg": [float(text)]}, retry="A number, please.")

    async with talk(backend, weigh) as t:
        await t.write("start")
        for text in ("nan", "inf", "70.5"):
            await t.write(text)
        assert t.shown == ["Weight?", "A number, please.", "A number, please."]
        assert await t.values() == {"weight": {"kg": [70.5]}}
        assert (await t.state())[0] == "done"


async def test_a_human_writes_to_whom_they_have_taken_over(backend: Backend) -> None:
    async with talk(backend, steps) as t:
        await t.write("start")
        person = (await t.person()).id
        with pytest.raises(InvalidJob, match=f"takeover APP p{person}"):
            await t.conversations.note(person, "Hello, Jo here.")
        await t.conversations.takeover(person)
        await t.conversations.note(person, "Hello, Jo here.")
        await t.write("seven")
        assert t.shown == ["Age?", "Hello, Jo here."]
        (note,) = await t.messages("note")
        assert note.state == "accepted"
        await t.advance(25 * HOUR)
        with pytest.raises(InvalidJob, match="window of person .* is shut"):
            await t.conversations.note(person, "Still there?")
        await t.conversations.note(person, Template("hello"))
        await t.drain()
        assert t.shown[2:] == ["hello"]
        await t.write("stop")
        with pytest.raises(InvalidJob, match="has opted out"):
            await t.conversations.note(person, "Sorry.")


async def test_a_conversation_in_the_way_is_named_with_how_to_end_it(backend: Backend) -> None:
    async with talk(backend, steps) as t:
        await t.write("start")
        chat = await t.chat()
        with pytest.raises(InvalidJob, match=f"`oncue conversations stop APP {chat.id}`"):
            await t.app.conversations["trial"].start(ADA)


async def test_a_function_that_catches_all_is_told_what_to_write(backend: Backend) -> None:
    async def greedy(chat: Chat) -> None:
        with contextlib.suppress(BaseException):
            await chat.ask("age", "Age?")

    async with talk(backend, greedy) as t:
        await t.write("start")
        reason = (await t.chat()).reason or ""
        assert "write `except Exception`, not `except:` or `except BaseException`" in reason


async def test_refusals_and_waits_stand_in_the_timeline(backend: Backend) -> None:
    async with talk(backend, steps) as t:
        t.wire.answers = [
            Answer("wait_person", code=131056, reason="too fast for this person"),
            Answer("wait_channel", code=130429, reason="too many"),
            Answer("stop_channel", code=190, reason="the token has expired"),
        ]
        await t.write("start")
        await t.advance(60)
        person = (await t.person()).id
        told = [line.text for line in await People(t.app).timeline(person) if line.kind == "refused"]
        assert [text.partition(";")[0] for text in told] == [
            "attempt 1 (131056): too fast for this person",
            "attempt 2 (130429): too many",
            "attempt 3 (190): the token has expired",
        ]
        assert "again at " in told[0]
        assert "oncue queues resume line.send" in told[2]
        await t.app.store.set_queue("line.send", False)
        await t.drain()
        assert t.shown == ["Age?"] * 4, "at once, not at the next look"


async def test_a_message_that_is_skipped_is_told_once(backend: Backend) -> None:
    async with talk(backend, steps) as t:
        await t.write("start")
        await t.conversations.stop((await t.chat()).id, "the teacher is ill")
        lines = await People(t.app).timeline((await t.person()).id)
        assert [line.text for line in lines if "skipped" in line.kind] == [
            "reminder age #1 skipped: the teacher is ill",
            "reminder age #2 skipped: the teacher is ill",
        ]


async def test_redacted_a_timeline_has_no_names_and_no_words_of_errors(backend: Backend) -> None:
    async def failing(chat: Chat) -> None:
        name = await chat.ask("name", "Name?")
        raise KeyError(f"no {name}")

    async with talk(backend, failing) as t:
        await t.write("start")
        await t.write("Rumpelstiltskin")
        await t.advance(HOUR)
        chat = await t.chat()
        assert "Rumpelstiltskin" in (chat.reason or "")
        await t.conversations.resume(chat.id)
        await t.advance(HOUR)
        await t.write("stop")
        person = await t.person()
        sql = "INSERT INTO oncue_event (person, at, kind, text) VALUES ({}, {}, '{}', '{}')"
        for kind, text in (
            ("renamed", "the address changed from 4911 to 4922"),
            ("merged", "known as 4911 and as US.7"),
        ):
            backend.execute(sql.format(person.id, t.now, kind, text))
        lines = await People(t.app).timeline(person.id, redact=True)
        text = "\n".join(line.text for line in lines)
        assert not [word for word in ("Rumpel", ADA, "4911", "4922", "US.7", "'stop'") if word in text]
        assert "KeyError: (left out)" in text
        assert "the address or the id of the person changed" in text


async def test_redacted_neither_page_nor_list_says_what_an_error_quotes(backend: Backend) -> None:
    async def failing(chat: Chat) -> None:
        name = await chat.ask("name", "Name?")
        raise KeyError(f"no {name}")

    async with talk(backend, failing) as t:
        await t.write("start")
        await t.write("Rumpelstiltskin")
        await t.advance(HOUR)
        t.app.redact("text")
        operator = Operator(t.app, "cli:ana")
        (listed,) = (await operator.talks()).items
        shown = await operator.talk(listed.id)
        assert listed.reason is not None
        assert "KeyError: (left out)" in listed.reason
        assert "KeyError: (left out)" in shown.why
        assert "Rumpel" not in repr([listed, shown])


async def test_pages_of_conversations_hold_each_of_them_once(backend: Backend) -> None:
    async with talk(backend, steps) as t:
        for number in range(7):
            await t.write("start", address=f"1650555010{number}")
        operator = Operator(t.app, "cli:ana")
        for state, limit in (("active", 3), (None, 7), (None, 2)):
            seen: list[int] = []
            cursor: str | None = None
            while True:
                page = await operator.talks(state, cursor=cursor, limit=limit)
                seen += [one.id for one in page.items]
                cursor = page.next
                if cursor is None:
                    break
            assert seen == [7, 6, 5, 4, 3, 2, 1], (state, limit)


async def test_what_has_ended_is_found_behind_what_has_not(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.operate.talks._LOOKED_AT", 2)
    async with talk(backend, steps) as t:
        for number in range(5):
            await t.write("start", address=f"1650555010{number}")
        for number in (1, 2):
            await t.conversations.stop(number)
        seen, cursor = [], None
        operator = Operator(t.app, "cli:ana")
        for _ in range(3):
            page = await operator.talks("ended", cursor=cursor, limit=2)
            seen += [one.id for one in page.items]
            cursor = page.next
        assert (seen, cursor) == ([2, 1], None)


async def test_a_change_by_somebody_is_in_the_audit_and_one_by_code_is_not(backend: Backend) -> None:
    async with talk(backend, steps) as t:
        await t.write("start")
        chat = await t.chat()
        operator = Operator(t.app, "token:ana")
        await t.conversations.pause(chat.id)
        with pytest.raises(InvalidJob):
            await operator.steer_talk("pause", chat.id)
        await operator.steer_talk("resume", chat.id)
        await operator.steer_talk("takeover", chat.id)
        lines = (await operator.audit()).items[::-1]
        assert [(line.who, line.action, line.target) for line in lines] == [
            ("token:ana", "resume", f"conversation:{chat.id}"),
            ("token:ana", "takeover", f"person:{chat.person}"),
        ]


@pytest.mark.parametrize("why", ["looked after by a human", "has opted out"])
async def test_nothing_begins_anew_with_whom_nothing_may_be_sent_to(backend: Backend, why: str) -> None:
    async with talk(backend, steps) as t:
        await t.write("start")
        chat = await t.chat()
        if why == "has opted out":
            await t.write("stop")
        else:
            await t.conversations.takeover(chat.person)
        with pytest.raises(InvalidJob, match=why):
            await t.conversations.restart(chat.id)
        assert len(await t.conversations.list()) == 1
        if why != "has opted out":
            await t.conversations.release(chat.person)
            assert await t.state() == ("active", "age")
            await t.conversations.restart(chat.id)
            await t.drain()
            assert t.shown[-1] == "Age?"
