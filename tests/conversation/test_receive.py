"""What follows from a message: who leaves, who comes back, what is too old, and what is heard, once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from oncue import OnCue
from oncue.clock import SECOND
from oncue.conversation import ChannelOptions
from oncue.conversation.intake import MOST_BYTES, Intake
from oncue.conversation.outbox import NewMessage
from oncue.store.steps import Steps
from oncue.transport import Batch, Status, Text
from tests.conversation.inbox_stage import HOUR, PROOF, Plain, Stage, inbound, shown, stage, update
from tests.databases import NEWEST, Backend
from tests.store.kit import T0

REF = "f" * 32


async def asked(made: Stage, backend: Backend, person: int, *, state: str = "accepted", at: int | None = T0) -> None:
    """The person has a question that was accepted at ``at``, and waits to be answered."""
    sending = "NULL" if at is None else str(at)
    settled = sending if state == "accepted" else "NULL"
    backend.execute(
        "INSERT INTO oncue_message (ref, channel, person, chat, step, kind, content, due, created_at, state, attempt, "
        f"sending_at, settled_at, external_id) VALUES ('{REF}', 'line', {person}, 7, 'age', 'question', "
        f"""'{{"type":"text","body":"How old?"}}', {T0}, {T0}, '{state}', 1, {sending}, {settled}, 'wamid.q')"""
    )
    backend.execute(
        "INSERT INTO oncue_chat (id, conversation, channel, person, state, step, started_at, changed_at) "
        f"VALUES (7, 'trial', 'line', {person}, 'active', 'age', {T0}, {T0})"
    )
    id = (await made.rows("id FROM oncue_message"))[0][0]
    backend.execute(
        "INSERT INTO oncue_chat_step (chat, name, nth, kind, state, message, opened_at) "
        f"VALUES (7, 'age', 1, 'ask', 'open', {id}, {T0})"
    )


async def known(made: Stage, **names: Any) -> int:
    """A person who wrote two hours ago."""
    await made.hear(update(inbound("first", "hi", ago=1, **names)))
    made.flow.heard.clear()
    return (await made.people())[0].id


async def test_each_message_is_heard_once_in_order(backend: Backend) -> None:
    async with stage(backend) as made:
        one = update(inbound("m2", "b", ago=1), inbound("m1", "a", ago=2), inbound("m2", "b", ago=1))
        await made.hear(one, one)
        await made.hear(one)
        assert [text for _, text in made.flow.heard] == ["a", "b"]
        # An update that has nothing new has no jobs.
        await made.post(one)
        assert await made.rows("count(*) FROM oncue_job") == [[0]]
        assert await made.rows("count(*) FROM oncue_update") == [[4]]


async def test_what_failed_is_heard_again(backend: Backend) -> None:
    async with stage(backend) as made:
        made.flow.raises = [RuntimeError("a mistake")]
        await made.hear(update(inbound("m1", "a"), inbound("m2", "b", address="+2")))
        assert [text for _, text in made.flow.heard] in (["b"], ["a"])
        made.clock.move(600)
        await made.app.drain()
        assert sorted(text for _, text in made.flow.heard) == ["a", "b"]


@pytest.mark.parametrize("text", ["STOP", "Arrêt!", "стоп"])
async def test_who_leaves_is_sent_nothing_more(backend: Backend, text: str) -> None:
    async with stage(backend) as made:
        person = await known(made)
        await asked(made, backend, person)
        new = NewMessage(person=person, kind="reminder", content=Text("?"), due=T0 + 60 * SECOND, chat=7, step="age")
        await made.app.store.change(lambda: made.channel.outbox.queue(new, T0))

        await made.hear(update(inbound("m", text)))

        row = await made.person(person)
        assert row.opted_out_at == T0
        assert await made.rows("state, reason FROM oncue_chat") == [["stopped", "the person opted out"]]
        assert await made.rows("state, reason FROM oncue_message WHERE kind = 'reminder'") == [
            ["skipped", "the person opted out"]
        ]
        assert await made.rows("count(*) FROM oncue_job") == [[0]]
        assert "opted-out" in await made.events(person)
        await made.hear(update(inbound("m2", "hello?")))
        assert (made.flow.heard, (await made.notes())["m2"]) == ([], "the person has opted out")


async def test_a_start_word_and_an_opt_in_word_bring_back(backend: Backend) -> None:
    async with stage(backend) as made:
        person = await known(made)
        await made.hear(update(inbound("m1", "stop")), update(inbound("m2", "Subscribe!")))
        assert (await made.person(person)).opted_out_at is None
        assert (made.flow.heard, (await made.notes())["m2"]) == ([], "came back")
        await made.hear(update(inbound("m3", "stop")), update(inbound("m4", "Go")))
        assert (await made.person(person)).opted_out_at is None
        assert made.flow.heard == [(person, "Go")]
        # Who has not left writes words like all others.
        await made.hear(update(inbound("m5", "subscribe")))
        assert made.flow.heard[1:] == [(person, "subscribe")]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(("leaves_at", "out"), [(20, False), (10, True)])
async def test_the_last_word_counts_whatever_came_first(
    backend: Backend, order: tuple[int, int], leaves_at: int, out: bool
) -> None:
    async with stage(backend) as made:
        person = await known(made)
        both = update(inbound("s", "stop", ago=leaves_at)), update(inbound("g", "go", ago=15))
        await made.hear(*(both[number] for number in order))
        assert ((await made.person(person)).opted_out_at is not None) == out


async def test_the_words_are_the_applications(backend: Backend) -> None:
    async with stage(backend, opt_out=("basta",)) as made:
        person = await known(made)
        await made.hear(update(inbound("m1", "stop")))
        assert made.flow.heard == [(person, "stop")]
        await made.hear(update(inbound("m2", "¡Basta!")))
        assert (await made.person(person)).opted_out_at is not None


async def test_an_answer_of_ours_is_no_word_to_leave_by_but_a_templates_button_is(backend: Backend) -> None:
    async with stage(backend) as made:
        person = await known(made)
        await made.hear(update(inbound("m1", "Stop", kind="choice", choice=f"{REF}:stop")))
        assert made.flow.heard == [(person, "Stop")]
        await made.hear(update(inbound("m2", "Stop", kind="choice", choice="Stop")))
        assert (await made.person(person)).opted_out_at is not None


async def test_a_human_who_has_taken_over_is_not_disturbed(backend: Backend) -> None:
    async with stage(backend) as made:
        person = await known(made)
        backend.execute("UPDATE oncue_person SET human_since = 1")
        await made.hear(update(inbound("m1", "go")))
        assert (made.flow.heard, (await made.notes())["m1"]) == ([], "a human has taken over")
        await made.hear(update(inbound("m2", "stop")))
        assert (await made.person(person)).opted_out_at is not None


@pytest.mark.parametrize(
    ("ago", "state", "asked_ago", "more", "heard"),
    [
        (HOUR, None, None, {}, True),
        (HOUR + 1, None, None, {}, False),
        # The answer to an open question counts at any age, from the second in which that was accepted.
        (2 * HOUR, "accepted", 3 * HOUR, {}, True),
        (2 * HOUR, "accepted", 2 * HOUR - 0.9, {}, True),
        (2 * HOUR, "accepted", 2 * HOUR - 1, {}, False),
        (2 * HOUR, "accepted", 1 * HOUR, {}, False),
        (2 * HOUR, "unknown", 3 * HOUR, {}, True),
        (2 * HOUR, "queued", None, {}, False),
        # It names the question, whatever the clocks say.
        (2 * HOUR, "accepted", 1 * HOUR, {"choice": f"{REF}:18", "kind": "choice"}, True),
        (2 * HOUR, "accepted", 1 * HOUR, {"replies_to": "wamid.q"}, True),
        (2 * HOUR, "accepted", 1 * HOUR, {"replies_to": "wamid.other"}, False),
    ],
)
async def test_what_is_too_old_gets_no_reply(
    backend: Backend, ago: float, state: str | None, asked_ago: float | None, more: dict[str, Any], heard: bool
) -> None:
    async with stage(backend) as made:
        person = await known(made)
        if state is not None:
            at = None if asked_ago is None else round(T0 - asked_ago * SECOND)
            await asked(made, backend, person, state=state, at=at)
        await made.hear(update(inbound("m", "18", ago=ago, **more)))
        assert made.flow.heard == ([(person, "18")] if heard else [])
        note = (await made.notes())["m"]
        assert note is None if heard else str(note).startswith("too old")


async def test_who_leaves_late_leaves_all_the_same(backend: Backend) -> None:
    async with stage(backend) as made:
        await made.hear(update(inbound("m", "stop", ago=100 * HOUR)))
        assert (await made.people())[0].opted_out_at is not None


@pytest.mark.parametrize(
    ("more", "how"),
    [
        ({"kind": "choice", "choice": f"{REF}:18"}, "one of its answers was tapped"),
        ({"replies_to": "wamid.q"}, "the person replied to it"),
        ({"kind": "reaction", "replies_to": "wamid.q"}, "the person reacted to it"),
    ],
)
async def test_what_names_our_message_proves_that_it_was_sent(backend: Backend, more: dict[str, Any], how: str) -> None:
    async with stage(backend) as made:
        person = await known(made)
        await asked(made, backend, person, state="unknown")
        await asked_sent(made, backend)
        await made.hear(update(inbound("m", "18", **more)))
        assert await made.rows("state, resolution FROM oncue_message") == [["accepted", how]]
        assert made.flow.told == [f"accepted {REF}"]


async def asked_sent(made: Stage, backend: Backend) -> None:
    id = (await made.rows("id FROM oncue_message"))[0][0]
    backend.execute(f"UPDATE oncue_message SET unknown_at = {T0}")
    backend.execute(
        f"INSERT INTO oncue_sent (channel, external_id, message, attempt, at) VALUES ('line', 'wamid.q', {id}, 1, {T0})"
    )


@pytest.mark.parametrize("kind", ["reaction", "system", "unsupported"])
async def test_what_says_nothing_is_kept_and_answers_nothing(backend: Backend, kind: str) -> None:
    async with stage(backend) as made:
        await made.hear(update(inbound("m", "", kind=kind, raw={"type": kind, "odd": [1, {"x": None}]})))
        assert made.flow.heard == []
        ((content, note),) = await made.rows("content, note FROM oncue_inbound")
        assert '"odd":[1,{"x":null}]' in content
        assert note.startswith(kind)


async def test_other_kinds_are_for_the_conversation(backend: Backend) -> None:
    async with stage(backend) as made:
        await made.hear(update(inbound("m", "", kind="image"), inbound("n", "", kind="something-new")))
        assert len(made.flow.heard) == 2


async def test_who_could_not_be_reached_can_be_once_they_write(backend: Backend) -> None:
    async with stage(backend) as made:
        person = await known(made)
        backend.execute("UPDATE oncue_person SET stopped = 'undeliverable'")
        await made.hear(update(inbound("old", ago=9 * HOUR)))
        assert (await made.person(person)).stopped == "undeliverable"
        await made.hear(update(inbound("m", "go")))
        assert (await made.person(person)).stopped is None
        assert await made.events(person) == ["reached"]


async def test_the_window_opens_by_what_came_last(backend: Backend) -> None:
    async with stage(backend) as made:
        await made.hear(update(inbound("m1", ago=10, name="New")), update(inbound("m2", ago=99, name="Old")))
        (one,) = await made.people()
        assert (one.heard_at, one.name) == (T0 - 10 * SECOND, "New")
        # A messenger's clock that is ahead opens it no further than now.
        await made.hear(update(inbound("m3", ago=-500)))
        assert (await made.person(one.id)).heard_at == T0


async def test_a_status_that_fails_keeps_none_of_the_others(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(backend) as made:
        settle = made.channel.outbox.settle
        plain = settle.status
        fails = True

        def status(one: Status, now: int) -> Steps[None]:
            if fails and one.external_id == "bad":
                raise RuntimeError("a mistake")
            return plain(one, now)

        monkeypatch.setattr(settle, "status", status)
        await made.hear(update(statuses=tuple(Status(id, "delivered", T0) for id in ("a", "bad", "b"))))
        assert await made.rows("external_id FROM oncue_status ORDER BY 1") == [["a"], ["b"]]
        assert "a status 'delivered' of update 1 failed" in caplog.text
        fails = False
        made.clock.move(600)
        await made.app.drain()
        assert len(await made.rows("external_id FROM oncue_status")) == 3


class Counts(Plain):
    inbound_counts = True


WAITING = "1 FROM pg_locks JOIN pg_database AS d ON d.oid = database WHERE NOT granted AND datname = current_database()"
TAT = "tat FROM oncue_limit WHERE name = 'task:line.send'"


async def test_messages_count_against_the_numbers_throughput(backend: Backend) -> None:
    async with stage(backend, Counts(), send_rate=80.0) as made:
        one = update(*(inbound(f"m{number}", address=f"+{number}") for number in range(8)))
        await made.post(one, one)
        # They count from when they came, however late that is written.
        made.clock.move(2)
        await made.intake.settle()
        assert await made.rows(TAT) == [[T0 + SECOND // 10]]


async def test_of_charges_at_the_same_moment_none_is_lost(backend: Backend) -> None:
    async with stage(backend, Counts(), send_rate=80.0) as made, OnCue(backend.url, clock=made.clock) as other:
        room = other.channel(Counts(), send_rate=80.0)
        intakes = [Intake(app, channel) for app, channel in [(made.app, made.channel), (other, room)] * 4]
        one = [msgspec.json.encode(update(inbound(f"m{number}", address=f"+{number}"))) for number in range(40)]
        await asyncio.gather(*(intakes[number % 8].take(PROOF, raw) for number, raw in enumerate(one)))
        await asyncio.gather(*(intake.settle() for intake in intakes))
        assert await made.rows(TAT) == [[T0 + SECOND // 2]]


@pytest.mark.parametrize("backend", NEWEST, indirect=True)
async def test_a_charge_waits_for_a_claim_that_takes_of_the_same_limit(backend: Backend) -> None:
    async with stage(backend, Counts(), send_rate=80.0) as made:
        await made.post(update(inbound("m0")))
        await made.intake.settle()
        store: Any = made.app.store
        with backend.connect() as claim:
            claim.execute("SELECT pg_advisory_xact_lock(%s)", [store.lock])
            ((tat,),) = claim.execute("SELECT tat FROM oncue.oncue_limit").fetchall()
            await made.post(update(inbound("m1")))
            paying = made.intake._charging
            assert paying is not None
            while not paying.done() and not await made.rows(WAITING):
                pass
            claim.execute("UPDATE oncue.oncue_limit SET tat = %s", [tat + SECOND])
            claim.commit()
        await made.intake.settle()
        assert await made.rows(TAT) == [[T0 + SECOND + 2 * SECOND // 80]]


async def test_what_was_kept_long_enough_goes(backend: Backend) -> None:
    async with stage(backend, retention=1000, keep_updates=100) as made:
        person = await known(made)
        await asked(made, backend, person)
        await made.hear(update(inbound("m", "stop"), statuses=(Status("wamid.q", "read", T0),)))
        tables = ("update", "chat", "chat_step", "message", "status", "inbound", "event", "person")

        async def counts() -> dict[str, int]:
            return {name: (await made.rows(f"count(*) FROM oncue_{name}"))[0][0] for name in tables}

        backend.execute(f"UPDATE oncue_chat SET expires_at = {T0 + 1000 * SECOND} WHERE state = 'stopped'")
        before = await counts()
        assert all(before.values())
        made.clock.move(101)
        await made.app.drain()
        assert await counts() == before | {"update": 0}
        made.clock.move(1000)
        await made.app.drain()
        assert await counts() == dict.fromkeys(tables, 0) | {"person": 1}


def test_updates_are_kept_for_30_days_and_conversations_for_90() -> None:
    options = ChannelOptions()
    assert (options.keep_updates, options.retention) == (timedelta(days=30), timedelta(days=90))


async def test_a_channel_that_keeps_for_ever_keeps(backend: Backend) -> None:
    async with stage(backend, retention=None, keep_updates=None) as made:
        await made.hear(update(inbound("m", "stop")))
        made.clock.move(10 * 366 * 24 * HOUR)
        await made.app.drain()
        assert await made.rows("count(*) FROM oncue_update") == [[1]]
        assert await made.rows("count(*) FROM oncue_inbound") == [[1]]


class Slow(Plain):
    """Counts how often an update was read."""

    reads = 0

    def read(self, raw: bytes) -> Batch:
        self.reads += 1
        return super().read(raw)


async def test_an_update_about_many_people_is_not_read_for_each_of_them(backend: Backend) -> None:
    transport = Slow()
    async with stage(backend, transport) as made:
        for batch in range(6):
            many = [inbound(f"{batch}-{one}", f"{batch}", address=f"+{one}", ago=10 - batch) for one in range(200)]
            # Two of one person, the later one first.
            await made.post(update(inbound(f"{batch}-z", "z", address="+0"), *many))
        await made.app.drain()
        assert transport.reads <= 2 * 6 * 2
        assert len(made.flow.heard) == 6 * 201
        assert [text for person, text in made.flow.heard if person == 1] == [
            text for batch in range(6) for text in (str(batch), "z")
        ]
        assert len(made.channel.read) <= 4


async def test_a_batch_of_thousands(backend: Backend) -> None:
    async with stage(backend) as made:
        many = [inbound(f"m{number}", address=f"+{number % 700}", user_id=f"U{number % 700}") for number in range(3000)]
        assert len(str(shown(update(*many)))) < MOST_BYTES
        assert (await made.post(update(*many))).status == 200
        assert await made.rows("count(*), count(DISTINCT person) FROM oncue_inbound") == [[3000, 700]]
        assert await made.rows("count(*), count(DISTINCT group_name) FROM oncue_job") == [[700, 700]]
