"""What was done in which minute stands in the database, whichever process did it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from oncue import OnCue
from oncue.clock import SECOND
from oncue.metrics import MINUTE, merged
from oncue.minutes import write, writing_minutes
from oncue.store.operating import MinuteRow
from oncue.store.steps.operate import minutes
from oncue.store.steps.watch import last
from oncue.testing import TestClock
from tests.clocked import Make
from tests.databases import Backend
from tests.metrics.test_recorder import NOW, settled

WEEK = 7 * 86_400 * SECOND


async def stored(app: OnCue) -> list[MinuteRow]:
    return await app.store.look(lambda: minutes(0, 1 << 62))


async def test_what_a_drain_did_stands_by_minute_and_task(app: OnCue, clock: TestClock) -> None:
    @app.task(name="send")
    async def send(number: int) -> None:
        clock.advance(0.25)
        if number == 2:
            raise ValueError("no")

    async with app:
        for number in (1, 2):
            await app.schedule(send.call(number))
        clock.advance(3)
        await app.drain(limit=2)
        (row,) = await stored(app)

    assert (row.task, row.started, row.completed, row.retried, row.discarded, row.skipped) == ("send", 2, 1, 1, 0, 0)
    assert row.minute == clock.now() // MINUTE * MINUTE
    assert row.worker > 0
    assert 3 * SECOND <= merged([row.lateness]).max <= 4 * SECOND
    assert row.ran_us >= SECOND // 2


async def test_a_worker_writes_while_it_works_and_nothing_while_it_idles(app: OnCue, clock: TestClock) -> None:

    async def count() -> int:
        return sum(row.completed for row in await stored(app))

    async with app:
        async with writing_minutes(app.store, app.clock, app.metrics, every=0.01):
            for round in (1, 2):
                app.metrics.acked(1, clock.now(), [settled(id=round)])
                async with asyncio.timeout(20):
                    while await count() < round:  # noqa: ASYNC110 - nothing tells of it
                        await asyncio.sleep(0.01)
            writes = app.store.writes
            for _ in range(10):
                await asyncio.sleep(0.01)
            assert app.store.writes == writes
            app.metrics.acked(1, clock.now(), [settled(id=3)])
        # What came since the last write is written at the end.
        assert await count() == 3


async def test_two_processes_add_up(make: Make) -> None:
    first, second = make(), make()
    async with first, second:
        first.metrics.acked(1, NOW, [settled()])
        second.metrics.acked(2, NOW, [settled(id=2), settled(id=3)])
        assert await write(first.store, first.clock, first.metrics)
        assert await write(second.store, second.clock, second.metrics)

        assert sorted((row.worker, row.completed) for row in await stored(first)) == [(1, 1), (2, 2)]


async def test_a_database_that_is_locked_gets_the_figures_later(make: Make, backend: Backend) -> None:
    if not backend.is_sqlite:
        pytest.skip("its writers wait for nobody here")
    app = make(busy_timeout=0.0)
    async with app:
        app.metrics.acked(1, NOW, [settled()])
        with backend.locked():
            assert not await write(app.store, app.clock, app.metrics)
        assert await stored(app) == []
        assert await write(app.store, app.clock, app.metrics)
        assert [row.completed for row in await stored(app)] == [1]


async def test_a_sweep_forgets_minutes_after_a_week_and_leaves_word_that_it_was_here(
    app: OnCue, clock: TestClock
) -> None:
    async with app:
        app.metrics.acked(1, clock.now(), [settled()])
        await write(app.store, clock, app.metrics)
        service = app.service(worker=False)
        assert await app.store.look(lambda: last("swept_at")) is None
        clock.advance(WEEK / SECOND - 120)
        await service.sweep()
        assert len(await stored(app)) == 1
        clock.advance(240)
        await service.sweep()

        assert await stored(app) == []
        assert await app.store.look(lambda: last("swept_at")) == clock.now()
        assert (app.metrics.sweeps["ok"], app.metrics.swept_at) == (2, clock.now())


async def test_a_sweep_that_fails_counts_as_failed(app: OnCue) -> None:
    async def broken() -> int:
        raise RuntimeError("no")

    async with app:
        service = app.service(worker=False)
        service.sweeper._plan = broken
        with contextlib.suppress(RuntimeError):
            await service.sweeper.run_once()

    assert (app.metrics.sweeps["failed"], app.metrics.swept_at) == (1, None)
