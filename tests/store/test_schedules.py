"""Schedules: what is stored of them, and the guarded step by which a fire happens once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from oncue.job import NewJob
from oncue.store import ScheduleRow, Store
from tests.store.kit import T0, Bench, S, job


def row(name: str = "nightly", next_at: int | None = T0, **changes: Any) -> ScheduleRow:
    made = ScheduleRow(name, "t", "{}", "0 0 * * *", "UTC", {"app": "a"}, next_at, None, 0, 0, T0)
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def fire(nominal: int = T0, name: str = "nightly") -> NewJob:
    return job((nominal - T0) / S, origin=f"cron:{name}", origin_ref=str(nominal))


async def test_a_schedule_is_stored_changed_and_dropped(bench: Bench) -> None:
    await bench.store.save_schedule(row("b"))
    await bench.store.save_schedule(row("a", options={"app": "x", "n": [1]}))
    assert [one.name for one in await bench.store.schedules()] == ["a", "b"]
    assert (await bench.store.schedules())[0].options == {"app": "x", "n": [1]}
    await bench.store.save_schedule(row("a", next_at=T0 + 5, expression="5 0 * * *", task="u"))
    found = (await bench.store.schedules())[0]
    assert (found.expression, found.task, found.next_at) == ("5 0 * * *", "u", T0 + 5)
    await bench.store.drop_schedule("a")
    await bench.store.drop_schedule("nobody")
    assert [one.name for one in await bench.store.schedules()] == ["b"]


async def test_a_fire_makes_its_job_and_moves_the_schedule_on(bench: Bench) -> None:
    await bench.store.save_schedule(row())
    assert await bench.store.advance_schedule(row(), T0 + 60 * S, 2, [fire()])
    (found,) = await bench.store.schedules()
    assert (found.next_at, found.last_at, found.missed) == (T0 + 60 * S, T0, 2)
    (made,) = await bench.store.list_jobs(limit=9)
    assert (made.origin, made.origin_ref, made.scheduled_at) == ("cron:nightly", str(T0), T0)


async def test_a_planner_that_lags_does_nothing(bench: Bench) -> None:
    await bench.store.save_schedule(row())
    assert await bench.store.advance_schedule(row(), T0 + 60 * S, 0, [fire()])
    assert not await bench.store.advance_schedule(row(), T0 + 60 * S, 1, [fire()])
    assert not await bench.store.advance_schedule(row(next_at=T0 - S), T0 + 60 * S, 0, [fire(T0 - S)])
    assert not await bench.store.advance_schedule(row("gone"), T0 + 60 * S, 0, [fire(name="gone")])
    assert len(await bench.store.list_jobs(limit=9)) == 1
    assert (await bench.store.schedules())[0].missed == 0


async def test_of_many_planners_one_fires(bench: Bench, opened: Callable[[], Awaitable[Store]]) -> None:
    await bench.store.save_schedule(row())
    stores = [bench.store, await opened(), await opened()]
    for n in range(20):
        at = T0 + n * 60 * S
        mine = row(next_at=at)
        done = await asyncio.gather(
            *[one.advance_schedule(mine, at + 60 * S, 0, [fire(at)]) for one in stores for _ in range(2)]
        )
        assert sum(done) == 1
    assert len(await bench.store.list_jobs(limit=99)) == 20


async def test_a_fire_that_is_skipped_moves_on_without_a_job(bench: Bench) -> None:
    await bench.store.save_schedule(row())
    assert await bench.store.advance_schedule(row(), T0 + 60 * S, 3, [])
    (found,) = await bench.store.schedules()
    assert (found.next_at, found.last_at, found.missed) == (T0 + 60 * S, None, 3)
    assert await bench.store.list_jobs(limit=9) == []


async def test_a_schedule_may_end(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.store.save_schedule(row())
    assert (await bench.ask(worker)).next_fire == T0
    assert await bench.store.advance_schedule(row(), None, 0, [fire()])
    assert (await bench.ask(worker, count=0)).next_fire is None


async def test_a_paused_schedule_does_not_fire_and_keeps_that_through_a_deploy(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.store.save_schedule(row())
    assert await bench.store.pause_schedule("nightly", True, T0)
    assert not await bench.store.pause_schedule("nobody", True, T0)
    assert (await bench.ask(worker)).next_fire is None
    assert not await bench.store.advance_schedule(row(), T0 + 60 * S, 0, [fire()])
    await bench.store.save_schedule(row(expression="1 0 * * *"))
    assert (await bench.store.schedules())[0].paused == 1
    assert await bench.store.pause_schedule("nightly", False, T0 + 60 * S)
    assert (await bench.ask(worker)).next_fire == T0 + 60 * S


async def test_a_fire_that_has_its_job_already_makes_no_other_and_holds_up_nothing(bench: Bench) -> None:
    """As after a clock that was set back, where the schedule changed meanwhile; whether the job waits or has ended."""
    worker = await bench.worker()
    times = [T0 - 2 * S, T0 - S, T0]
    await bench.store.save_schedule(row(next_at=times[0]))
    assert await bench.store.advance_schedule(row(next_at=times[0]), T0 + S, 0, [fire(one) for one in times[:2]])
    (ended, _) = await bench.claim(worker)
    await bench.done(worker, ended)
    await bench.store.save_schedule(row(next_at=times[0]))
    assert await bench.store.advance_schedule(row(next_at=times[0]), T0 + S, 0, [fire(one) for one in times])
    refs = [one.origin_ref for one in await bench.store.list_jobs(limit=9)]
    assert sorted(ref or "" for ref in refs) == [str(one) for one in times]
    assert (await bench.store.schedules())[0].next_at == T0 + S
