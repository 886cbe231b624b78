"""Sources that are a function: what it lists becomes jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from oncue.clock import SECOND, from_us
from oncue.errors import ConfigError
from oncue.source import DueItem
from tests.databases import Backend
from tests.source.stage import START, Stage


class Elsewhere:
    """Another database: keys with their due times, in seconds from the start."""

    def __init__(self, stage: Stage, **options: Any) -> None:
        self.due: dict[str, float] = {}
        self.until: list[datetime] = []
        self.fails = False

        @stage.app.task(name="remind")
        async def remind(key: str) -> None:
            stage.ran.append(key)

        @stage.app.source_items(task=remind, name="elsewhere", **options)
        async def items(until: datetime) -> AsyncIterator[DueItem | tuple[Any, ...]]:
            self.until.append(until)
            for key, seconds in sorted(self.due.items()):
                yield DueItem(key, from_us(START + round(seconds * SECOND)), group=key)
            if self.fails:
                raise ConnectionError("the other database is away")


async def test_listed_items_run_once_move_and_go(stage: Stage) -> None:
    there = Elsewhere(stage)
    there.due = {"a": 0, "b": 30, "c": 40, "far": 500}
    assert await stage.sweep() == 3
    assert there.until == [from_us(START) + timedelta(seconds=120)]
    stage.clock.move(1)
    there.due |= {"b": 20}
    del there.due["c"]
    assert await stage.sweep() == 1
    stage.clock.move(49)
    for _ in range(2):
        await stage.work()
        await stage.sweep()
    assert sorted(stage.ran) == ["a", "b"]
    [gone] = await stage.jobs("cancelled")
    assert (gone.key, gone.reason) == ("c", "source elsewhere: it was not listed any more")


async def test_a_function_that_fails_changes_nothing(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    there = Elsewhere(stage)
    there.due = {"a": 30, "b": 30}
    await stage.sweep()
    stage.clock.move(1)
    there.due, there.fails = {"c": 30}, True
    assert await stage.sweep() == 0
    assert [job.key for job in await stage.jobs("scheduled")] == ["a", "b"]
    [status] = await stage.app.sources.status()
    assert "the other database is away" in str(status.drift)


async def test_an_item_that_cannot_be_read_is_reported_and_the_others_are_made(stage: Stage) -> None:
    @stage.app.source_items(task=stage.task)
    async def mixed() -> AsyncIterator[tuple[Any, ...]]:
        yield ("8", datetime(2026, 1, 1))  # noqa: DTZ001
        yield ("7", from_us(START))
        yield ("not a number", from_us(START))
        yield "x"  # type: ignore[misc]

    assert await stage.sweep() == 1
    await stage.work()
    assert stage.ran == [7]
    [status] = await stage.app.sources.status()
    assert status.unreadable == 3
    assert "no time zone" in str(status.drift)


async def test_an_older_listing_does_not_undo_a_newer_one(backend: Backend) -> None:
    """Two sweepers at once: one began to list before the change, and comes to apply its list after the other."""
    one = Stage(backend)
    two = Stage(backend, one.clock, schema="")
    there = Elsewhere(two)
    there.due = {"a": 50}

    @one.app.task(name="remind")
    async def remind(key: str) -> None:
        one.ran.append(key)

    @one.app.source_items(task=remind, name="elsewhere")
    async def slow() -> AsyncIterator[DueItem]:
        yield DueItem("a", from_us(START + 10 * SECOND))
        one.clock.move(1)
        await two.sweep()

    async with one.app, two.app:
        await one.sweep()
        [job] = await two.jobs()
        assert job.scheduled_at == START + 50 * SECOND
    one.db.close()
    two.db.close()


async def test_a_call_of_ones_own_and_no_call_at_all(stage: Stage) -> None:
    @stage.app.source_items()
    async def mine() -> AsyncIterator[DueItem]:
        yield DueItem("a", from_us(START), stage.task.call(3), "lane")
        yield DueItem("b", from_us(START))

    assert await stage.sweep() == 1
    [job] = await stage.jobs()
    assert (job.key, job.group, job.args) == ("a", "lane", {"trial_id": 3})
    [status] = await stage.app.sources.status()
    assert "no call" in str(status.drift)


def test_what_is_no_async_generator_is_refused(sqlite: Backend) -> None:
    stage = Stage(sqlite)

    async def listed() -> list[DueItem]:
        return []

    with pytest.raises(ConfigError, match="yields items"):
        stage.app.source_items(task=stage.task)(listed)  # type: ignore[type-var]
    stage.db.close()
