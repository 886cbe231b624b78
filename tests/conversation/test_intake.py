"""Updates are proved, stored and answered, whatever they are; and it does not matter how often or in which order."""

from __future__ import annotations

import asyncio
import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oncue import OnCue
from oncue.clock import SECOND
from oncue.conversation.intake import Heartbeat, Intake
from oncue.store.steps import inbox
from oncue.transport import Address, Batch, Inbound, Preference, Status
from tests.conversation.inbox_stage import PROOF, Plain, Stage, inbound, stage, update
from tests.databases import Backend, database
from tests.store.kit import T0
from tests.worker.conftest import until


async def test_the_update_and_its_jobs_are_stored_together(backend: Backend) -> None:
    batch = update(inbound("m1"), inbound("m2", user_id="U"), inbound("m3", ago=5), statuses=(Status("w", "read", T0),))
    async with stage(backend) as made:
        assert (await made.post(batch)).status == 200
        ((id, raw, note, expires),) = await made.rows("id, raw, note, expires_at FROM oncue_update")
        assert (raw, note) == (msgspec.json.encode(batch).decode(), None)
        assert expires > T0
        first, second = await made.people()
        assert await made.rows("task, args, group_name, queue FROM oncue_job ORDER BY id") == [
            ["line.receive", f'{{"update":{id},"person":{first.id}}}', f"line:{first.id}", "line"],
            ["line.receive", f'{{"update":{id},"person":{second.id}}}', f"line:{second.id}", "line"],
            ["line.status", f'{{"update":{id}}}', None, "line"],
        ]
        assert await made.rows("heard_at FROM oncue_channel") == [[T0]]


async def test_what_is_not_genuine_is_refused_and_said_once(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    async with stage(backend) as made:
        for _ in range(3):
            assert (await made.post(update(inbound("m1")), headers={})).status == 401
        assert await made.rows("count(*) FROM oncue_update") == [[0]]
        assert caplog.text.count("an update was refused") == 1
        await made.post(update(inbound("m1")))
        await made.post(update(inbound("m1")), headers={"x-proof": "no"})
        assert caplog.text.count("an update was refused") == 2


async def test_what_is_repeated_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "oncue.conversation")
    with database("sqlite", tmp_path) as backend:
        async with stage(backend) as made:
            await made.post(update(inbound("m1")))
            assert "repeats" not in caplog.text
            await made.post(update(inbound("m1"), inbound("m2")))
            assert "an update repeats 1 message:" in caplog.text


async def test_where_nothing_can_be_stored_the_messenger_is_to_send_it_again(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path}/away/jobs.db")
    intake = Intake(app, app.channel(Plain()))
    taken = await intake.take(PROOF, msgspec.json.encode(update(inbound("m1"))))
    assert taken.status == 503
    (tmp_path / "away").mkdir()
    assert (await intake.take(PROOF, msgspec.json.encode(update(inbound("m1"))))).status == 200


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\x00\xfe", b"base64:no", b"nothing", b'{"inbound": [{}]}', b"[" * 9999, b'"\0"']
)
async def test_what_cannot_be_read_is_kept_as_it_is(
    backend: Backend, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(backend) as made:
        assert (await made.intake.take(PROOF, raw)).status == 200
        ((id, note),) = await made.rows("id, note FROM oncue_update")
        assert await made.app.store.look(lambda: inbox.raw_update("line", id)) == raw
        assert note.startswith("update: ")
        assert "1 item of an update can't be used" in caplog.text
        assert await made.rows("count(*) FROM oncue_job") == [[0]]


async def test_a_bad_item_takes_no_good_one_with_it(backend: Backend) -> None:
    class Odd(Plain):
        def read(self, raw: bytes) -> Batch:
            bad = [
                Inbound("", Address("+1"), T0, "text"),
                Inbound("x" * 600, Address("+1"), T0, "text"),
                Inbound("nobody", Address(), T0, "text"),
                Inbound(
                    "nul\0", Address("+\0001", ""), 10**30, "te\0xt", "a\0b \ud800", raw={"x": "\ud800"}, name="\0"
                ),
                Inbound("deep", Address("+1"), -5, "text", raw={"x": float("nan")}),
            ]
            bad_statuses = [Status("", "read", T0), Status("w", "", T0), Status("v\0", "read", -1, echo="\ud800")]
            return Batch([*bad, inbound("good")], bad_statuses, [Preference(Address(""), T0, True)])

    async with stage(backend, Odd()) as made:
        await made.hear(Batch())
        found = await made.rows("external_id, kind, sent_at, note FROM oncue_inbound ORDER BY external_id")
        assert [row[:2] for row in found] == [["deep", "text"], ["good", "text"], ["nul", "text"]]
        assert found[0][2] == 0
        assert await made.rows("external_id FROM oncue_status") == [["v"]]
        ((note,),) = await made.rows("note FROM oncue_update")
        assert len(note.split("; ")) == 6
        # The one of 1970 is too old for a reply.
        assert sorted(text for _, text in made.flow.heard) == ["ab ?", "hello"]


async def test_a_transport_that_raises_loses_nothing(backend: Backend) -> None:
    class Breaks(Plain):
        def read(self, raw: bytes) -> Batch:
            raise RuntimeError("a mistake of a transport")

    async with stage(backend, Breaks()) as made:
        assert (await made.post(update(inbound("m1")))).status == 200
        assert "a mistake of a transport" in (await made.rows("note FROM oncue_update"))[0][0]


async def test_an_answer_can_hold_a_request_of_the_transports(backend: Backend) -> None:
    class Answers(Plain):
        def reply(self, raw: bytes) -> bytes:
            return b'{"method":"x"}'

    async with stage(backend, Answers()) as made:
        assert (await made.post(update())).body == b'{"method":"x"}'
        assert (await made.post(update(), headers={})).body == b""


async def test_the_intake_says_since_when_it_runs_without_a_gap(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(backend) as made:
        monkeypatch.setattr("oncue.conversation.intake.BEAT", 0.0)
        heartbeat = Heartbeat(made.app)

        async def beat(seconds: float) -> tuple[float, float]:
            made.clock.set(round(T0 + seconds * SECOND))
            await heartbeat.beat()
            ((up, seen),) = await made.rows("up_since, seen_at FROM oncue_channel")
            return (up - T0) / SECOND, (seen - T0) / SECOND

        assert [await beat(at) for at in (0, 5, 20, 35.1, 40)] == [
            (0, 0), (0, 5), (0, 20), (35.1, 35.1), (35.1, 40)
        ]  # fmt: skip
        # A clock that was set back, by a little and by much.
        assert [await beat(at) for at in (39, 10, 12)] == [(35.1, 40), (10, 10), (10, 12)]


async def test_trouble_with_the_heartbeat_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("oncue.conversation.intake.BEAT", 0.0)
    app = OnCue(f"sqlite:///{tmp_path}/away/jobs.db")
    app.channel(Plain())
    heartbeat = Heartbeat(app)
    await heartbeat.beat()
    await heartbeat.beat()
    assert caplog.text.count("can't say that it runs") == 1


async def test_a_heartbeat_goes_on_by_itself(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.conversation.intake.BEAT", 0.01)
    async with stage(backend) as made, Heartbeat(made.app).beating():
        for second in (1, 2):
            made.clock.move(1)
            async with asyncio.timeout(20):
                await until(made.app, partial(_seen, made, T0 + second * SECOND))


async def _seen(made: Stage, at: int) -> bool:
    return await made.rows("seen_at FROM oncue_channel") == [[at]]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(raws=st.lists(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)), max_size=5))
def test_no_bytes_crash_the_intake(raws: list[bytes]) -> None:
    async def take(made: Stage) -> None:
        for raw in raws:
            assert (await made.intake.take(PROOF, raw)).status == 200
        assert await made.rows("count(*) FROM oncue_update") == [[len(raws)]]
        await made.app.drain()

    _run(take)


_text = st.text(max_size=12) | st.sampled_from(["stop", "go", "\0", "\ud800", "x" * 600])
_times = st.integers(-(10**20), 10**20) | st.integers(T0 - 10**9, T0)
_names = st.builds(Address, st.none() | _text, st.none() | _text)
_json = st.recursive(st.none() | st.floats() | _text, lambda inner: st.dictionaries(_text, inner, max_size=3))
_batches = st.builds(
    Batch,
    st.lists(
        st.builds(
            Inbound, _text, _names, _times, _text, _text, st.none() | _text, st.none() | _text, st.none() | _text,
            st.dictionaries(_text, _json, max_size=2),
        ),
        max_size=4,
    ),
    st.lists(st.builds(Status, _text, _text, _times, st.none() | _text), max_size=4),
    st.lists(st.builds(Preference, _names, _times, st.booleans()), max_size=4),
    st.lists(_text, max_size=2),
)  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(batches=st.lists(_batches, min_size=1, max_size=3))
def test_nothing_that_a_transport_reads_crashes_the_intake_or_its_jobs(batches: list[Batch]) -> None:
    class Wild(Plain):
        def read(self, raw: bytes) -> Batch:
            return batches[int(raw)]

    async def take(made: Stage) -> None:
        for number in range(len(batches)):
            assert (await made.intake.take(PROOF, str(number).encode())).status == 200
        await made.app.drain()
        assert await made.rows("count(*) FROM oncue_job") == [[0]]
        assert await made.rows("count(*) FROM oncue_inbound WHERE handled_at IS NULL") == [[0]]

    _run(take, Wild())


# What happened, by the messenger's clock. People are known by either name or both, as the messenger likes.
_events = st.lists(
    st.tuples(
        st.sampled_from("ABC"),
        st.sampled_from(["both", "address", "user"]),
        st.sampled_from(["hello", "stop", "go", "yes wish", "no wish", "status"]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=_events, seed=st.integers(0, 10**6))
def test_neither_order_nor_duplicates_change_what_is_stored(events: list[tuple[str, str, str]], seed: int) -> None:
    # At last everybody shows both names, so that it is known who is who.
    told = [*events, *((who, "both", "hello") for who in "ABC")]
    batches = [_told(number, *event) for number, event in enumerate(told)]
    chance = random.Random(seed)
    mixed = chance.sample(batches, len(batches)) + chance.choices(batches, k=3)

    plain: list[Any] = []
    _run(lambda made: _stored(made, batches, plain))
    other: list[Any] = []
    _run(lambda made: _stored(made, mixed, other))
    assert plain == other


def _told(number: int, who: str, shows: str, what: str) -> Batch:
    address = None if shows == "user" else f"+{who}"
    user_id = None if shows == "address" else f"U{who}"
    at = 100 - number
    if what.endswith("wish"):
        wish = Preference(Address(address, user_id), round(T0 - at * SECOND), what.startswith("yes"))
        return update(preferences=(wish,))
    if what == "status":
        return update(statuses=(Status(f"w{who}", "delivered", round(T0 - at * SECOND)),))
    return update(inbound(f"m{number}", what, address=address, user_id=user_id, ago=at, name=who))


async def _stored(made: Stage, batches: list[Batch], into: list[Any]) -> None:
    for batch in batches:
        await made.hear(batch)
    people = {row.id: row for row in await made.people()}
    into.append(
        sorted(
            (row.address, row.user_id, row.name, row.heard_at, row.opted_out_at, row.no_marketing_at)
            for row in people.values()
        )
    )
    rows = await made.rows("external_id, person, kind, content, sent_at FROM oncue_inbound ORDER BY external_id")
    into += [[id, people[person].user_id, *rest] for id, person, *rest in rows]
    into.append(await made.rows("external_id, status, at FROM oncue_status ORDER BY 1, 2, 3"))
    wishes = await made.rows("person, at, text FROM oncue_event WHERE kind = 'marketing' ORDER BY at")
    into += [[people[person].user_id, at, text] for person, at, text in wishes]
    assert await made.rows("count(*) FROM oncue_inbound WHERE handled_at IS NULL") == [[0]]


def _run(work: Any, transport: Any = None) -> None:
    async def on_stage() -> None:
        with tempfile.TemporaryDirectory() as folder, database("sqlite", Path(folder)) as backend:
            async with stage(backend, transport) as made:
                await work(made)

    asyncio.run(on_stage())


@pytest.mark.parametrize("seed", range(3))
async def test_neither_order_nor_duplicates_matter_on_any_database(backend: Backend, seed: int) -> None:
    """The same at once: updates that are taken side by side."""
    chance = random.Random(seed)
    shapes = ("both", "address", "user")
    told = [(chance.choice("ABC"), chance.choice(shapes), "hello") for _ in range(12)] + [
        (who, "both", "hello") for who in "ABC"
    ]
    batches = [_told(number, *event) for number, event in enumerate(told)]
    mixed = chance.sample(batches, len(batches)) + batches[:4]
    async with stage(backend) as made:
        await asyncio.gather(*(made.post(batch) for batch in mixed))
        await made.app.drain()
        rows = await made.people()
        assert sorted((row.address, row.user_id) for row in rows) == [("+A", "UA"), ("+B", "UB"), ("+C", "UC")]
        whose = {row.id: row.name for row in rows}
        found = dict(await made.rows("external_id, person FROM oncue_inbound"))
        assert {id: whose[person] for id, person in found.items()} == {
            f"m{number}": who for number, (who, _, _) in enumerate(told)
        }
        # Each once, though some were heard before it was known who that is.
        assert len(made.flow.heard) == len(told)


def test_texts_of_updates_come_back_as_they_were() -> None:
    for raw in (b"", b"{}", b"base64:e30=", b"\xff", b"a\0b", "ü".encode()):
        assert inbox.as_bytes(inbox.as_text(raw)) == raw
        assert "\0" not in inbox.as_text(raw)
