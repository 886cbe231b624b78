"""The clock that tests move."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from oncue import OnCue
from oncue.clock import to_us
from oncue.errors import InvalidTime, NaiveDatetime
from oncue.testing import TestClock


def test_it_stands_still_until_it_is_moved() -> None:
    clock = TestClock(datetime(2025, 3, 1, 9, tzinfo=UTC))
    assert clock.now() == clock.now() == to_us(datetime(2025, 3, 1, 9, tzinfo=UTC))
    clock.advance(90)
    clock.advance(timedelta(hours=1))
    assert clock.moment == datetime(2025, 3, 1, 10, 1, 30, tzinfo=UTC)


def test_it_can_be_set_in_any_zone_and_back() -> None:
    clock = TestClock()
    clock.set(datetime(2025, 3, 1, 10, tzinfo=ZoneInfo("Europe/Berlin")))
    assert clock.moment == datetime(2025, 3, 1, 9, tzinfo=UTC)
    clock.set(datetime(2025, 3, 1, 8, tzinfo=UTC))
    assert clock.moment == datetime(2025, 3, 1, 8, tzinfo=UTC)


def test_it_refuses_what_is_no_instant() -> None:
    clock = TestClock()
    with pytest.raises(NaiveDatetime):
        clock.set(datetime(2025, 3, 1, 8))  # noqa: DTZ001 - the point
    with pytest.raises(InvalidTime):
        clock.advance(-1)
    with pytest.raises(NaiveDatetime):
        TestClock(datetime(2025, 3, 1, 8))  # noqa: DTZ001 - the point


def test_watchers_hear_each_move_until_they_stop() -> None:
    clock, heard = TestClock(), []
    stop = clock.watch(lambda: heard.append(clock.now()))
    clock.advance(1)
    clock.set(datetime(2025, 3, 1, tzinfo=UTC))
    stop()
    clock.advance(1)
    assert heard == [to_us(datetime(2030, 1, 1, 12, 0, 1, tzinfo=UTC)), to_us(datetime(2025, 3, 1, tzinfo=UTC))]


async def test_a_watcher_is_called_on_its_own_loop_when_another_thread_moves_the_clock() -> None:
    clock, heard = TestClock(), asyncio.Event()
    threads: list[threading.Thread] = []

    def moved() -> None:
        threads.append(threading.current_thread())
        heard.set()

    clock.watch(moved)
    await asyncio.to_thread(clock.advance, 1)
    await asyncio.wait_for(heard.wait(), 60)
    assert threads == [threading.current_thread()]


async def test_a_running_worker_follows_the_clock(tmp_path: object) -> None:
    clock = TestClock()
    app = OnCue(f"sqlite:///{tmp_path}/jobs.db", clock=clock)

    @app.task(name="note")
    async def note() -> int:
        return clock.now()

    async with app.worker():
        handle = await app.schedule(note.call(), delay=7200)
        clock.advance(7199)
        clock.advance(1)
        assert await handle.result(timeout=60) == to_us(handle.scheduled_at)
