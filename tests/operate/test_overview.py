"""How things are: counts, what comes, what was, and that looking stays cheap."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from oncue import OnCue
from oncue.clock import from_us
from oncue.errors import NotOpen, StoreUnavailable
from oncue.operate import Operator, checks, overview
from oncue.operate.overview import Kept, Look
from oncue.operate.shape import iso
from oncue.store.operating import MinuteRow
from oncue.store.steps import operate
from oncue.store.views import Check
from oncue.testing import TestClock

S = 1_000_000
MINUTE = 60 * S


async def test_counts_and_what_comes(operator: Operator, app: OnCue, clock: TestClock) -> None:
    note, fail = app.tasks["note"], app.tasks["fail"]
    for call in (note.call(), fail.call()):
        await app.schedule(call)
    await app.drain()
    await app.schedule(note.call())
    clock.advance(2)
    await app.schedule(note.call())
    for delay in (10, 40, 45, 3000):
        await app.schedule(note.call(), delay=delay)
    found = await operator.overview()
    assert (found.counts.due, found.counts.late, found.counts.scheduled) == (2, 1, 4)
    assert (found.counts.completed, found.counts.discarded, found.counts.running) == (1, 1, 0)
    assert [one.count for one in found.coming[:3]] == [1, 2, 0]
    assert len(found.coming) == 20
    assert found.now == iso(app.clock.now())
    workers = next(one for one in found.health if one.name == "workers")
    assert (workers.state, workers.remedy) == ("fail", "Start one: oncue worker module:app")


async def test_the_past_hour_is_what_workers_counted(operator: Operator, app: OnCue, clock: TestClock) -> None:
    now = app.clock.now()
    this = now - now % MINUTE
    rows = [
        MinuteRow(this, 1, "note", 10, 9, 1, 0, 0, S, '{"1000": 9, "50000": 1}'),
        MinuteRow(this, 2, "note", 10, 10, 0, 0, 0, S, '{"1000": 10}'),
        MinuteRow(this - MINUTE, 1, "fail", 4, 0, 0, 4, 0, S, '{"2000": 4}'),
        MinuteRow(this - 59 * MINUTE, 1, "note", 1, 1, 0, 0, 0, S, '{"1000": 1}'),
        MinuteRow(this - 60 * MINUTE, 1, "note", 7, 7, 0, 0, 0, S, '{"1000": 7}'),
    ]
    await app.store.change(lambda: operate.save_minutes(rows))
    found = await operator.overview()
    assert len(found.past) == 60
    assert [(one.started, one.completed, one.discarded) for one in found.past[-2:]] == [(4, 0, 4), (20, 19, 0)]
    assert found.past[0].started == 1
    assert found.past[-1].max_ms == 50.0
    assert found.lateness.max_ms == 50.0
    assert found.throughput_per_s == round(24 / found.lateness.window_s, 3)
    # A minute in which nothing started was not on time: nobody knows.
    assert {one.p50_ms for one in found.past[1:-2]} == {None}
    # What a worker adds to a minute that is hardly over is seen; time goes on.
    clock.advance(60)
    rows[0].started = 30
    await app.store.change(lambda: operate.save_minutes(rows[:1]))
    found = await operator.overview()
    assert [one.started for one in found.past[-3:]] == [4, 40, 0]
    assert found.past[-1].at == f"{from_us(this + MINUTE):%Y-%m-%dT%H:%M:%S.%f}Z"


async def test_the_history_is_counted_bit_by_bit(app: OnCue, operator: Operator) -> None:
    for _ in range(3):
        await app.schedule(app.tasks["note"].call())
    await app.drain()
    look = Look(app)
    assert await look._ask_final() == {"completed": 3}


class Asked:
    """A question that takes as long as it is told to, by a clock that is moved; it is answered with how often that was.

    While ``gate`` is closed no answer comes.
    """

    def __init__(self, took: float) -> None:
        self.took, self.time, self.times = took, 1000.0, 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> int:
        self.times += 1
        mine = self.times
        await self.gate.wait()
        self.time += self.took
        return mine

    def kept(self, patience: float | None = None) -> Kept[int]:
        return Kept(self, patience=patience, now=lambda: self.time)


async def test_what_takes_long_is_got_in_the_background() -> None:
    asked = Asked(took=1.0)
    kept = asked.kept()
    assert await kept.get() == 1
    asked.time += 49
    assert (await kept.get(), asked.times) == (1, 1)
    # Whoever asks every minute is told the old one at once, while the new one is on its way.
    for number in range(1, 4):
        asked.gate.clear()
        asked.time += 60
        assert await kept.get() == number
        asked.gate.set()
        assert kept._asking is not None
        assert await kept._asking == number + 1
        assert await kept.get() == number + 1


async def test_a_database_that_stalled_once_freezes_nothing_for_minutes() -> None:
    asked = Asked(took=9.0)
    kept = asked.kept()
    assert await kept.get() == 1
    asked.took = 0.02
    asked.time += 61
    assert await kept.get() == 1
    assert kept._asking is not None
    await kept._asking
    assert await kept.get() == 2


async def test_what_could_not_be_asked_is_asked_anew_by_the_next(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, away = 0.0, ["no answer in time"]

    async def schema(_: OnCue) -> Check:
        nonlocal seconds
        seconds += 10
        if away:
            raise StoreUnavailable(away.pop())
        return Check("schema", "ok", "it is back")

    monkeypatch.setitem(overview._REST, "schema", schema)
    monkeypatch.setattr(operator.look._checks, "_now", lambda: seconds)
    for state, found in (("fail", "no answer in time"), ("ok", "it is back")):
        assert [(one.state, one.found) for one in await operator.checks() if one.name == "schema"] == [(state, found)]
    # What all could tell is kept.
    await operator.checks()
    assert seconds == 20


async def test_a_silent_database_is_waited_for_once_and_not_by_every_check(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first(_: OnCue) -> Check:
        raise StoreUnavailable("no answer in time")

    async def asks(_: OnCue) -> Check:
        await asyncio.Event().wait()
        raise AssertionError

    async def knows(_: OnCue) -> Check:
        return Check("knows", "ok", "by itself")

    monkeypatch.setattr(overview, "_SILENT", 0.0)
    monkeypatch.setattr(overview, "_CHEAP", {"first": first, "asks": asks, "knows": knows})
    monkeypatch.setattr(overview, "_REST", {})
    async with asyncio.timeout(20):
        assert [(one.name, one.state, one.found) for one in await operator.checks()] == [
            ("first", "fail", "no answer in time"), ("asks", "fail", "no answer in time"), ("knows", "ok", "by itself"),
        ]  # fmt: skip


async def test_nobody_is_told_what_was_so_long_ago() -> None:
    asked = Asked(took=1.0)
    kept = asked.kept()
    assert await kept.get() == 1
    # Nobody asked for an hour: all who do now wait for the same new one.
    asked.time += 3600
    assert await asyncio.gather(*(kept.get() for _ in range(5))) == [2] * 5
    assert asked.times == 2
    # What is quick has always been got anew.
    asked.took = 0.02
    asked.time += 3600
    assert await kept.get() == 3
    asked.time += 3600
    assert await kept.get() == 4


async def test_who_has_acted_is_not_told_what_was_before() -> None:
    asked = Asked(took=1.0)
    kept = asked.kept()
    assert await kept.get() == 1
    kept.forget()
    assert await kept.get() == 2
    # What was being asked meanwhile comes late, and counts for nobody else.
    asked.time += 60
    asked.gate.clear()
    assert await kept.get() == 2
    await asyncio.sleep(0)
    assert asked.times == 3
    before = kept._asking
    kept.forget()
    asked.gate.set()
    assert await kept.get() == 4
    assert before is not None
    assert await before == 3
    assert await kept.get() == 4


async def test_it_is_asked_once_at_a_time_however_often_somebody_acts() -> None:
    """A script that acts on a thousand jobs, beside a page that looks, would have the whole table counted all the
    time, by several at once."""
    asked = Asked(took=1.0)
    kept = asked.kept()
    asked.gate.clear()
    getting = []
    for _ in range(5):
        getting.append(asyncio.create_task(kept.get()))
        while kept._asking is None or (len(getting) == 1 and not asked.times):  # noqa: ASYNC110 - it begins at once
            await asyncio.sleep(0)
        kept.forget()
    assert asked.times == 1
    asked.gate.set()
    assert await asyncio.gather(*getting) == [1, 2, 2, 2, 2]
    assert asked.times == 2


async def test_what_was_not_got_in_the_background_is_waited_for(tmp_path: Path) -> None:
    """Nobody but its requests keeps an application open that is mounted: it closes before what takes long has come."""
    app, time, gate = OnCue(f"sqlite:///{tmp_path / 'a.db'}"), [0.0], asyncio.Event()

    async def ask() -> int:
        await gate.wait()
        time[0] += 1
        return len(await app.store.queues(app.clock.now()))

    kept = Kept(ask, patience=0, now=lambda: time[0])
    gate.set()
    async with app:
        assert await kept.get() == 0
        await Operator(app, "cli:ana").pause("queue", "mail")
    gate.clear()
    time[0] += 3600
    async with app:
        assert await kept.get() == 0
    gate.set()
    assert kept._asking is not None
    with pytest.raises(NotOpen):
        await kept._asking
    async with app:
        assert await kept.get() == 1


async def test_nobody_waits_long_for_what_hardly_changes() -> None:
    asked = Asked(took=1.0)
    kept = asked.kept(patience=0.0)
    assert await kept.get() == 1
    asked.gate.clear()
    asked.time += 3600
    assert await kept.get() == 1
    asked.gate.set()
    assert kept._asking is not None
    await kept._asking
    assert await kept.get() == 2


async def test_what_takes_long_is_got_once_for_all_who_ask() -> None:
    gate, asked = asyncio.Event(), 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await gate.wait()
        return asked

    kept = Kept(ask)
    many = [asyncio.ensure_future(kept.get()) for _ in range(5)]
    await asyncio.sleep(0)
    # One who leaves takes nothing from the others.
    many[0].cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*many[1:]) == [1] * 4


async def test_a_million_jobs_are_not_counted_by_queue_for_each_who_asks(app: OnCue, operator: Operator) -> None:
    note = app.tasks["note"]
    await app.schedule(note.call(), delay=5)
    assert [lane.scheduled for lane in await operator.lanes("queues")] == [1]
    # As if that had taken long.
    operator.look._groups._until = float("inf")
    await app.schedule(note.call(), delay=5)
    await app.store.set_queue("default", True)
    (lane,) = await operator.lanes("queues")
    assert (lane.scheduled, lane.paused) == (1, True)
    # Who acts sees what came of it.
    await operator.pause("queue", "default", paused=False)
    (lane,) = await operator.lanes("queues")
    assert (lane.scheduled, lane.paused) == (2, False)


async def test_a_file_that_is_locked_is_said_to_take_no_writes(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path / 'a.db'}")
    async with app:
        assert (await checks.database(app)).level == "ok"
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            found = await checks.database(app)
            assert found.level == "FAIL"
            assert "takes no writes: a transaction has locked it" in found.found
            assert "fuser" in found.remedy
            # Who commits meanwhile, again and again, leaves no gap for us, and is no trouble.
            wal = tmp_path / "a.db-wal"
            looking = asyncio.create_task(checks.database(app))
            while not looking.done():
                os.utime(wal)
                await asyncio.sleep(0.01)
            assert (await looking).level == "ok"
            other.execute("ROLLBACK")
        assert (await checks.database(app)).level == "ok"


async def test_a_full_disk_is_on_the_overview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = OnCue(f"sqlite:///{tmp_path / 'a.db'}")
    async with app:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
        found = await checks.database(app)
        assert (found.level, "0.0 GB free" in found.found) == ("FAIL", True)
        assert found.remedy.startswith("Free space")


async def test_a_clock_that_was_set_back_is_on_the_overview(operator: Operator, app: OnCue, clock: TestClock) -> None:
    await app.schedule(app.tasks["note"].call())
    operator.look.forget()
    clock.set(from_us(app.clock.now() - 3600 * S))
    told = next(one for one in (await operator.overview()).health if one.name == "clock")
    assert told.state == "fail"
    assert "was set back" in str(told.remedy)
