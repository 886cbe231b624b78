"""Schedules at work: fires, overlap, missed fires, jitter, and what a deploy changes."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest

from oncue import OnCue, errors
from oncue.clock import from_us
from oncue.cron import jitter_us
from tests.databases import Backend
from tests.store.kit import T0, HandClock, S
from tests.worker.conftest import Make, until_state

MINUTE = 60 * S


async def fired(app: OnCue) -> list[tuple[str, float]]:
    """State and nominal time (minutes after T0) of each fire, in order."""
    jobs = await app.jobs.list(limit=500)
    made = [(int(one.origin_ref), one.state) for one in jobs if one.origin and one.origin_ref is not None]
    return [(state, (nominal - T0) / MINUTE) for nominal, state in sorted(made)]


async def plan(app: OnCue) -> int:
    return await app.service(worker=False).planner.run_once()


async def test_each_fire_runs_at_its_time(still: OnCue, clock: HandClock) -> None:
    ran: list[float] = []

    @still.every(timedelta(minutes=1))
    async def tick() -> None:
        ran.append((clock.now() - T0) / S)

    async with still:
        for _ in range(5):
            await still.drain()
            clock.move(60)
        await still.drain()
    assert ran == [60, 120, 180, 240, 300]


async def test_a_schedule_may_run_a_task_that_is_also_called(still: OnCue, clock: HandClock) -> None:
    ran: list[str] = []

    @still.cron("* * * * *", name="by-cron")
    @still.task(queue="q", priority=3)
    async def work(who: str = "cron") -> None:
        ran.append(who)

    async with still:
        await still.drain()
        clock.move(60)
        await still.drain()
        (made,) = await still.jobs.list(limit=9)
        assert (made.queue, made.priority, made.origin) == ("q", 3, "cron:by-cron")
    assert ran == ["cron"]


async def start_one_and_hold(app: OnCue, clock: HandClock, go: asyncio.Event, **options: Any) -> list[float]:
    """Let the first fire run on while two more come; return when each run started, in minutes after T0."""
    ran: list[float] = []
    started: asyncio.Queue[None] = asyncio.Queue()

    @app.cron("* * * * *", name="long", **options)
    async def long() -> None:
        ran.append((clock.now() - T0) / MINUTE)
        started.put_nowait(None)
        await go.wait()

    async with app.worker() as service:
        for n in (1, 2, 3):
            clock.set(T0 + n * MINUTE)
            await service.planner.run_once()
            (newest, *_) = await app.jobs.list(limit=1)
            if n == 1 or options["overlap"] == "allow":
                await started.get()
            else:
                await until_state(app, newest.id, {"skip": "cancelled", "queue": "scheduled"}[options["overlap"]])
        go.set()
        for one in await app.jobs.list(limit=9):
            if one.state != "cancelled":
                await until_state(app, one.id, "completed")
    return ran


async def test_overlap_skip_leaves_out_what_comes_while_one_runs(still: OnCue, clock: HandClock) -> None:
    assert await start_one_and_hold(still, clock, asyncio.Event(), overlap="skip") == [1]
    async with still:
        assert await fired(still) == [("completed", 1), ("cancelled", 2), ("cancelled", 3)]
        skipped = await still.jobs.list(state=["cancelled"])
        assert [one.reason for one in skipped] == ["skipped: blocked by group:cron:long"] * 2


async def test_overlap_queue_runs_one_after_the_other(still: OnCue, clock: HandClock) -> None:
    assert await start_one_and_hold(still, clock, asyncio.Event(), overlap="queue") == [1, 3, 3]
    async with still:
        assert await fired(still) == [("completed", 1), ("completed", 2), ("completed", 3)]


async def test_overlap_allow_runs_side_by_side(still: OnCue, clock: HandClock) -> None:
    assert await start_one_and_hold(still, clock, asyncio.Event(), overlap="allow") == [1, 2, 3]


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
@pytest.mark.parametrize(
    ("missed", "most", "wanted", "dropped"),
    [
        ("skip", 10, [], 10),
        ("once", 10, [10], 9),
        ("all", 100, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0),
        ("all", 3, [8, 9, 10], 7),
    ],
)
async def test_fires_that_nobody_was_there_for(
    still: OnCue,
    clock: HandClock,
    missed: Any,
    most: int,
    wanted: list[int],
    dropped: int,
    overlap: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @still.cron("* * * * *", name="s", missed=missed, max_missed=most, overlap=overlap)
    async def tick() -> None: ...

    async with still:
        await still.drain()
        clock.move(10 * 60 + 30)
        await still.drain()
        assert await fired(still) == [("completed", n) for n in wanted]
        (row,) = await still.store.schedules()
        assert (row.missed, row.next_at) == (dropped, T0 + 11 * MINUTE)
        assert (f"{dropped} missed fires were dropped" in caplog.text) == (dropped > 0)
        clock.move(30)
        await still.drain()
        assert (await fired(still))[-1] == ("completed", 11)


async def test_jitter_moves_the_start_and_not_the_fire(still: OnCue, clock: HandClock) -> None:
    @still.cron("* * * * *", name="j", jitter=20)
    async def tick() -> None: ...

    async with still:
        await still.drain()
        for n in range(1, 6):
            clock.set(T0 + n * MINUTE)
            assert await plan(still) == 1
        jobs = sorted(await still.jobs.list(limit=9), key=lambda one: one.id)
    waits = [one.scheduled_at - (T0 + n * MINUTE) for n, one in enumerate(jobs, 1)]
    assert waits == [jitter_us("j", T0 + n * MINUTE, 20) for n in range(1, 6)]
    assert all(0 <= wait <= 20 * S for wait in waits)
    assert len(set(waits)) > 1
    assert [int(one.origin_ref or 0) for one in jobs] == [T0 + n * MINUTE for n in range(1, 6)]


async def test_a_deploy_changes_adds_and_removes_schedules_and_says_so(
    make: Make, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "oncue.planner")
    first, second, other = make(clock=clock), make(clock=clock), make(clock=clock, name="other")

    async def tick() -> None: ...

    first.cron("0 * * * *", name="same")(tick)
    first.cron("0 * * * *", name="moves")(first.tasks["same"])
    first.cron("0 * * * *", name="goes")(first.tasks["same"])
    other.cron("0 * * * *", name="of another application")(tick)
    second.cron("0 * * * *", name="same")(tick)
    second.cron("30 * * * *", name="moves", overlap="queue")(second.tasks["same"])
    second.every(60, name="comes")(second.tasks["same"])
    async with first, second, other:
        await first.drain()
        await other.drain()
        before = {row.name: row for row in await first.store.schedules()}
        caplog.clear()
        await second.drain()
        after = {row.name: row for row in await first.store.schedules()}
    assert set(before) == {"same", "moves", "goes", "of another application"}
    assert set(after) == {"same", "moves", "comes", "of another application"}
    assert after["same"] == before["same"]
    assert after["moves"].expression == "30 * * * *"
    assert from_us(after["moves"].next_at or 0).minute == 30
    assert [record.getMessage() for record in caplog.records if record.name == "oncue.planner"] == [
        "schedule moves changed: 30 * * * *",
        "schedule comes added: @every 60s",
        "schedule goes is no longer in the code: removed",
    ]


async def test_a_change_of_policy_keeps_the_next_fire(make: Make, clock: HandClock) -> None:
    first, second = make(clock=clock), make(clock=clock)

    async def tick() -> None: ...

    first.cron("0 * * * *", name="s")(tick)
    second.cron("0 * * * *", name="s", missed="all")(tick)
    async with first, second:
        await first.drain()
        (before,) = await first.store.schedules()
        clock.move(2 * 3600)
        await second.drain()
        jobs = await second.jobs.list(limit=9)
    assert before.next_at is not None
    assert len(jobs) == 2, "the fires of the time between are not lost"


async def test_a_paused_schedule_waits_and_is_resumed(still: OnCue, clock: HandClock) -> None:
    @still.cron("* * * * *", name="s", missed="skip")
    async def tick() -> None: ...

    async with still:
        await still.drain()
        assert await still.store.pause_schedule("s", True, None)
        clock.move(300)
        await still.drain()
        assert await fired(still) == []
        assert await still.store.pause_schedule("s", False, clock.now() + MINUTE)
        clock.move(60)
        await still.drain()
        assert await fired(still) == [("completed", 6)]


async def test_run_now_makes_one_job_apart_from_the_fires(still: OnCue, clock: HandClock) -> None:
    ran: list[int] = []

    @still.cron("0 0 1 1 *", name="yearly")
    async def yearly() -> None:
        ran.append(1)

    async with still:
        await still.drain()
        (before,) = await still.store.schedules()
        planner = still.service(worker=False).planner
        assert await planner.run_now("yearly") is not None
        assert await planner.run_now("nobody") is None
        await still.drain()
        assert ran == [1]
        assert (await still.store.schedules())[0].next_at == before.next_at


async def test_a_schedule_of_every_second_keeps_its_beat_in_real_time(app: OnCue) -> None:
    seen: asyncio.Queue[int] = asyncio.Queue()

    @app.cron("* * * * * *", name="beat")
    async def beat() -> None:
        seen.put_nowait(app.clock.now())

    async with app.worker():
        times = [await seen.get() for _ in range(2)]
        jobs = sorted(await app.jobs.list(limit=9), key=lambda one: one.id)
    for at, one in zip(times, jobs, strict=False):
        assert one.scheduled_at % S == 0
        assert at >= one.scheduled_at
    assert jobs[1].scheduled_at - jobs[0].scheduled_at == S


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"overlap": "maybe"}, "overlap is one of"),
        ({"missed": "maybe"}, "missed is one of"),
        ({"max_missed": 0}, "max_missed"),
        ({"jitter": -1}, "jitter"),
        ({"timezone": "Mars/Base"}, "Mars/Base"),
    ],
)
def test_schedules_that_cannot_work_are_refused(still: OnCue, options: dict[str, Any], said: str) -> None:
    with pytest.raises((errors.ConfigError, ValueError), match=said):
        still.cron("* * * * *", **options)
    assert still.schedules == {}


def test_two_schedules_of_one_name_are_refused(still: OnCue) -> None:
    async def one() -> None: ...

    async def two() -> None: ...

    still.cron("* * * * *", name="s")(one)
    with pytest.raises(errors.ConfigError, match="named 's'"):
        still.cron("* * * * *", name="s")(two)


async def test_a_schedule_that_this_version_cannot_read_rests_and_holds_up_no_other(
    still: OnCue, backend: Backend, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    @still.every(60, name="good")
    async def good() -> None: ...

    @still.every(60, name="newer")
    async def newer() -> None: ...

    async with still:
        planner = still.service(worker=False).planner
        await planner.sync()
        backend.execute("UPDATE oncue_schedule SET expression = '@solstice' WHERE name = 'newer'")
        clock.move(61)
        assert await planner.run_once() == 1
        assert "newer can't be read by this version" in caplog.text
        assert {row.name: row.next_at is None for row in await still.store.schedules()} == {
            "good": False,
            "newer": True,
        }
        await planner.sync()
        assert all(row.next_at is not None for row in await still.store.schedules())


async def test_a_schedule_that_another_program_removes_is_missed_loudly_and_once(
    make: Make, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    live, other = make(clock=clock), make(clock=clock)

    @live.every(60, name="nightly")
    async def nightly() -> None: ...

    async with live, other:
        planner = live.service(worker=False).planner
        await planner.sync()
        await planner.run_once()
        assert "was removed" not in caplog.text
        await other.service(worker=False).planner.sync()
        await planner.run_once()
        await planner.run_once()
        told = [one for one in caplog.records if "nightly was removed from the database" in one.getMessage()]
        assert len(told) == 1
        assert told[0].levelname == "ERROR"
