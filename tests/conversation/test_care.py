"""What is kept of a person: shown as a timeline, handed over, erased."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from oncue import OnCue
from oncue.clock import SECOND
from oncue.conversation import Chat
from oncue.conversation.care import People
from oncue.conversation.timeline import Entry, duplicates, timeline
from oncue.errors import UnknownPerson
from oncue.store.chats import PersonFile, StatusRow
from oncue.store.postgres.run import qualified
from oncue.transport import Address, Batch
from tests.conversation.engine_stage import talk
from tests.databases import Backend

T0 = 1_900_000_000 * SECOND
AT = [T0 + second * SECOND for second in range(10)]
TEXT = '{"type":"text","body":"How old are you?"}'
ROWS = f"""
INSERT INTO oncue_person (id, channel, address, user_id, name, created_at)
  VALUES (1, 'wa', '1650', 'US.7', 'Ann', {T0}), (2, 'wa', '1651', NULL, 'Bob', {T0}),
         (3, 'tg', '1650', NULL, NULL, {T0});
INSERT INTO oncue_chat (id, conversation, channel, person, state, step, reason, started_at, changed_at)
  VALUES (1, 'trial', 'wa', 1, 'parked', 'age', 'the window is shut', {T0}, {T0 + 90 * SECOND}),
         (2, 'trial', 'wa', 2, 'active', 'age', NULL, {T0}, {T0});
INSERT INTO oncue_chat_step (chat, name, nth, kind, state, opened_at)
  VALUES (1, 'age', 0, 'ask', 'open', {T0}), (2, 'age', 0, 'ask', 'open', {T0});
INSERT INTO oncue_message
  (id, ref, channel, person, chat, step, kind, nth, content, state, attempt, due, sending_at, settled_at, created_at,
   reason)
  VALUES
  (1, 'q', 'wa', 1, 1, 'age', 'question', 0, '{TEXT}', 'accepted', 2, {T0}, {AT[1]}, {AT[2]}, {T0}, NULL),
  (2, 'r', 'wa', 1, 1, 'age', 'reminder', 1, '{TEXT}', 'queued', 0, {T0 + 99 * SECOND}, NULL, NULL,
   {AT[3]}, NULL),
  (3, 'x', 'wa', 2, 2, 'age', 'question', 0, '{TEXT}', 'skipped', 0, {T0}, NULL, {AT[1]}, {T0}, 'opted out');
INSERT INTO oncue_sent (channel, external_id, message, attempt, at)
  VALUES ('wa', 'w1', 1, 1, {AT[2]}), ('wa', 'w2', 1, 2, {AT[8]}), ('wa', 'w3', 1, 3, {AT[8]});
INSERT INTO oncue_status (channel, external_id, status, at, message, code, reason, heard_at)
  VALUES ('wa', 'w1', 'read', {T0}, 1, NULL, NULL, {AT[4]}),
         ('wa', 'w3', 'failed', {T0}, 1, 131026, 'no', {AT[9]}),
         ('wa', 'w9', 'sent', {T0}, NULL, NULL, NULL, {T0});
INSERT INTO oncue_inbound (channel, external_id, person, chat, step, kind, content, sent_at, heard_at, note)
  VALUES ('wa', 'i1', 1, NULL, NULL, 'text', '{{"text":"hello you"}}', {T0 - 300 * SECOND}, {AT[5]},
          'too old'),
         ('wa', 'i2', 2, NULL, NULL, 'text', '{{"text":"hi"}}', {T0}, {T0}, NULL);
INSERT INTO oncue_event (id, person, chat, at, kind, text)
  VALUES (1, 1, 1, {AT[7]}, 'skipped', 'quiet hours'), (2, 2, 2, {T0}, 'skipped', 'other');
INSERT INTO oncue_update (id, channel, raw, heard_at)
  VALUES (1, 'wa', '{{"from":"1650"}}', {T0}), (2, 'wa', '{{"user":"US.7"}}', {T0}),
         (3, 'wa', '{{"from":"1651"}}', {T0})
"""


def select(backend: Backend, what: str) -> list[tuple[Any, ...]]:
    with backend.connect() as conn:
        text = f"SELECT {what}"
        return [tuple(row) for row in conn.execute(text if backend.is_sqlite else qualified(text, "oncue"))]


def dump(backend: Backend) -> list[str]:
    """Every row of every table."""
    tables = "name FROM sqlite_master WHERE type = 'table'"
    if not backend.is_sqlite:
        ours = "relnamespace = 'oncue'::regnamespace"
        tables = f"relname FROM pg_class WHERE {ours} AND relkind IN ('r', 'p') AND NOT relispartition"
    return [repr(row) for (table,) in select(backend, tables) for row in select(backend, f"* FROM {table}")]


@pytest.fixture
async def app(backend: Backend) -> AsyncIterator[OnCue]:
    made = OnCue(backend.url)

    @made.task(name="wa.send")
    async def send(ref: str) -> None: ...

    async with made:
        for one in ROWS.split(";\n"):
            backend.execute(one)
        for ref in ("r", "x"):
            await made.schedule(send.call(ref), delay=60, key=f"message-{ref}")
        yield made


async def test_a_person_is_found_by_address_id_or_number(app: OnCue) -> None:
    people = People(app)
    assert [one.id for one in await people.find("+1650")] == [1, 3]
    assert [one.id for one in await people.find("1650", "tg")] == [3]
    assert [one.id for one in await people.find("US.7")] == [1]
    assert [one.id for one in await people.find("p2")] == [2]
    assert await people.find("Ann") == []


async def test_the_timeline_tells_everything_in_order_with_its_reasons(app: OnCue) -> None:
    lines = await People(app).timeline(1)
    assert lines == sorted(lines, key=lambda line: line.at)
    told = [f"{line.who}: {line.text}" for line in lines]
    assert told == [
        "oncue: trial began",
        'bot: question age for 2030-03-17 17:46:40: "How old are you?"',
        "bot: question age, attempt 2",
        "bot: question age accepted",
        'bot: reminder age #1 for 2030-03-17 17:48:19: "How old are you?"',
        "channel: question age read",
        'person: "hello you" (written at 17:41:40, heard 305 s later) - nothing followed: too old',
        "oncue: quiet hours",
        "channel: the same message once more",
        "channel: question age failed (131026): no",
        "oncue: trial is parked at age: the window is shut",
    ]


class _Looked(list[StatusRow]):
    """Statuses, and how often somebody went through them."""

    times = 0

    def __iter__(self) -> Iterator[StatusRow]:
        self.times += 1
        return super().__iter__()


async def test_statuses_are_gone_through_as_often_for_many_messages_as_for_few(app: OnCue) -> None:
    """A page that shows somebody of thousands of messages would keep the loop, and so the worker in it, for minutes."""
    file, looks = await People(app).file(1), []
    for copies in (1, 50):
        statuses = _Looked(file.statuses)
        many = msgspec.structs.replace(file, sent=file.sent * copies, statuses=statuses)
        duplicates(many)
        timeline(many)
        looks.append(statuses.times)
    assert looks[0] == looks[1]


async def test_redacted_it_tells_nothing_of_what_was_said(app: OnCue) -> None:
    lines: list[Entry] = await People(app).timeline(1, redact=True)
    text = " ".join(line.text for line in lines)
    assert "How old" not in text
    assert "hello" not in text
    assert "(9 characters)" in text


async def test_all_that_is_kept_is_handed_over(app: OnCue) -> None:
    told = await People(app).export(1)
    assert msgspec.json.decode(msgspec.json.encode(told)) == told
    assert told["duplicates"] == 1
    assert told["person"]["address"] == "1650"
    assert told["messages"][0]["content"] == {"type": "text", "body": "How old are you?"}
    assert told["messages"][0]["created_at"] == "2030-03-17T17:46:40.000000Z"
    sizes = {name: len(told[name]) for name in msgspec.structs.asdict(await People(app).file(1)) if name != "person"}
    assert sizes == {"chats": 1, "steps": 1, "messages": 2, "sent": 3, "statuses": 2, "inbound": 1, "events": 1}


async def test_erased_nothing_of_the_person_is_left_and_all_of_the_others(app: OnCue) -> None:
    people = People(app)
    kept = await people.file(2)
    gone = await people.erase(1)
    assert gone == {
        "statuses": 2, "sent": 3, "messages": 2, "inbound": 1, "steps": 1, "chats": 1, "events": 1, "person": 1,
        "updates": 0,
    }  # fmt: skip
    with pytest.raises(UnknownPerson, match="p1"):
        await people.timeline(1)
    after: PersonFile = await people.file(2)
    assert after == kept
    assert await app.cancel(key="message-r") == "too late", "nothing is sent to who was erased"
    assert await app.cancel(key="message-x") == "prevented"


async def test_raw_updates_of_the_person_go_once_they_are_worked_on(app: OnCue, backend: Backend) -> None:
    now = app.clock.now()
    backend.execute(f"UPDATE oncue_update SET heard_at = {now - 7200 * SECOND} WHERE id <> 2")
    backend.execute(f"UPDATE oncue_update SET heard_at = {now} WHERE id = 2")
    assert (await People(app).erase(1))["updates"] == 1


async def test_raw_updates_that_may_still_be_worked_on_go_an_hour_later(app: OnCue, backend: Backend) -> None:
    now = app.clock.now()
    for at, id in ((now, 1), (now - 60 * SECOND, 2), (now, 3)):
        backend.execute(f"UPDATE oncue_update SET heard_at = {at}, expires_at = NULL WHERE id = {id}")
    assert (await People(app).erase(1))["updates"] == 0
    kept = dict(select(backend, "id, expires_at FROM oncue_update"))
    assert kept[3] is None
    assert now < kept[1] == kept[2] <= app.clock.now() + 3600 * SECOND


async def test_erased_it_is_under_every_name_that_the_person_ever_had(backend: Backend) -> None:
    """The number and the words stand nowhere, whatever table one looks into."""
    secret = "my name is Zebulon"
    said = ("16505550100", "US.77", "16505550188", "DE.9", "16505550199")

    async def trial(chat: Chat) -> None:
        raise KeyError(await chat.ask("name", "What shall I call you?"))

    async with talk(backend, trial) as t:
        await t.write("start")
        await t.write(secret)
        await t.advance(8 * 600)
        assert (await t.chat()).state == "parked"
        for sender in (Address(said[0], said[1]), Address(said[2], said[1]), Address(said[2], said[3])):
            await t.post(Batch([t.inbound(secret, sender=sender)]))
            await t.drain()
        await t.post(Batch([t.inbound("", kind="system", sender=Address(said[2]), moved_to=Address(said[4]))]))
        await t.drain()
        other = await t.write("hello", address="16505550111")
        await t.advance(7200)
        (person,) = await People(t.app).find(said[4])
        await People(t.app).erase(person.id)
        rows = dump(backend)
        assert any(other.external_id in row for row in rows)
        assert [row for row in rows if any(word in row for word in (*said, secret, "Zebulon"))] == []
