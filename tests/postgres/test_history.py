"""Finished jobs by day: partitions made ahead, dropped whole when all in them is over, by any number of sweepers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from oncue.clock import to_us
from oncue.store import open_store
from oncue.store.postgres import PostgresStore
from tests.postgres.conftest import Base
from tests.store.kit import DAY, T0, HandClock, S

TODAY = datetime.fromtimestamp(T0 / S, UTC).replace(hour=0, minute=0, second=0)
PARTITIONS = "SELECT relid::text FROM pg_partition_tree('oncue.oncue_finished') WHERE isleaf ORDER BY 1"
Open = Callable[[], "asyncio.Future[PostgresStore]"]


def name(day: int) -> str:
    return f"oncue.oncue_finished_{TODAY + timedelta(days=day):%Y%m%d}"


def midnight(day: int) -> int:
    return to_us(TODAY + timedelta(days=day))


def finish(base: Base, id: int, at: int, expires: int | None) -> None:
    base.run(f"""
        INSERT INTO oncue.oncue_finished (id, scheduled_at, created_at, finished_at, expires_at, priority, attempt,
            snoozes, max_attempts, folded, task, args, queue, state, outcome, when_late)
        VALUES ({id}, 1, 1, {at}, {"NULL" if expires is None else expires}, 0, 2, 0, 5, 0, 't', '{{}}', 'default',
            'completed', 'completed', 'run');
        INSERT INTO oncue.oncue_attempt (job, scheduled_at, started_at, finished_at, attempt, outcome)
        VALUES ({id}, 1, 1, 1, 1, 'failed')""")


def left(base: Base) -> tuple[list[object], list[object]]:
    finished = base.rows("SELECT id FROM oncue.oncue_finished ORDER BY 1")
    return [row[0] for row in finished], [row[0] for row in base.rows("SELECT job FROM oncue.oncue_attempt ORDER BY 1")]


def partitions(base: Base) -> list[object]:
    return [row[0] for row in base.rows(PARTITIONS)]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def store(base: Base, clock: HandClock) -> AsyncIterator[PostgresStore]:
    made = open_store(base.url, clock)
    assert isinstance(made, PostgresStore)
    await made.open()
    yield made
    await made.close()


async def test_partitions_are_made_three_days_ahead_and_once_a_day(
    base: Base, store: PostgresStore, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.prune(clock.now(), 10)
    assert partitions(base) == [*(name(day) for day in (1, 2, 3)), "oncue.oncue_finished_rest"]
    finish(base, 1, midnight(2) + 5, None)
    assert base.value("SELECT tableoid::regclass::text FROM oncue.oncue_finished") == name(2)
    asked: list[int] = []
    monkeypatch.setattr(store._history, "_make", lambda *given: asked.append(1))
    await store.prune(clock.now() + 3600 * S, 10)
    await store.prune(midnight(1) - 1, 10)
    assert not asked
    monkeypatch.undo()
    await store.prune(midnight(1), 10)
    assert partitions(base) == [*(name(day) for day in (1, 2, 3, 4)), "oncue.oncue_finished_rest"]


async def test_a_day_goes_as_a_whole_with_its_attempts_once_all_of_it_is_over(
    base: Base, store: PostgresStore, clock: HandClock
) -> None:
    await store.prune(clock.now(), 10)
    finish(base, 1, midnight(1), midnight(8))
    finish(base, 2, midnight(2) - 1, midnight(9) - 1)
    finish(base, 3, midnight(2), midnight(9) + DAY)
    # Today's are in the default partition, and go one by one.
    finish(base, 4, T0, midnight(7))
    assert await store.prune(midnight(8) + 3600 * S, 10) == 1
    assert left(base) == ([1, 2, 3], [1, 2, 3])
    assert name(1) in partitions(base)
    # The next look is due when the day is over: no earlier, and not only at midnight.
    await store.prune(midnight(9) - 1, 10)
    assert left(base) == ([3], [3])
    assert name(1) not in partitions(base)
    assert name(2) in partitions(base)


async def test_what_is_kept_for_ever_keeps_its_day_and_the_rest_goes_row_by_row(
    base: Base, store: PostgresStore, clock: HandClock
) -> None:
    await store.prune(clock.now(), 10)
    finish(base, 1, midnight(1), None)
    finish(base, 2, midnight(1), midnight(8))
    assert await store.prune(midnight(10) - 1, 10) == 0
    assert await store.prune(midnight(10), 10) == 1
    assert left(base) == ([1], [1])
    assert name(1) in partitions(base)


async def test_a_drop_that_would_wait_is_tried_again_at_the_next_sweep(
    base: Base, store: PostgresStore, clock: HandClock
) -> None:
    await store.prune(clock.now(), 10)
    finish(base, 1, midnight(1), midnight(8))
    with psycopg.connect(base.url) as reader:
        reader.execute("SELECT count(*) FROM oncue.oncue_finished")
        await store.prune(midnight(9), 10)
        assert name(1) in partitions(base)
        assert left(base) == ([1], [1])
    await store.prune(midnight(9) + 60 * S, 10)
    assert name(1) not in partitions(base)


async def test_what_a_dead_sweeper_left_detached_is_finished_and_nothing_in_it_lost(
    base: Base, store: PostgresStore, clock: HandClock
) -> None:
    await store.prune(clock.now(), 10)
    finish(base, 1, midnight(1), midnight(8))
    finish(base, 2, midnight(1), midnight(30))
    finish(base, 3, midnight(1), None)
    base.run(f"ALTER TABLE oncue.oncue_finished DETACH PARTITION {name(1)}")
    await store.prune(midnight(9), 10)
    assert left(base) == ([2, 3], [2, 3])
    assert base.value(f"SELECT to_regclass('{name(1)}')") is None


async def test_two_sweepers_at_once(base: Base, store: PostgresStore, clock: HandClock) -> None:
    others = [open_store(base.url, clock) for _ in range(4)]
    await asyncio.gather(*(one.open() for one in others))
    sweepers = [store, *others]
    await asyncio.gather(*(one.prune(clock.now(), 10) for one in sweepers))
    # One may have found another at it, and looks again at its next sweep.
    for hours in (1, 2, 3):
        await asyncio.gather(*(one.prune(clock.now() + hours * 3601 * S, 10) for one in sweepers))
    assert partitions(base) == [*(name(day) for day in (1, 2, 3)), "oncue.oncue_finished_rest"]
    finish(base, 1, midnight(1), midnight(8))
    for later in (0, 60, 120):
        await asyncio.gather(*(one.prune(midnight(9) + later * S, 10) for one in sweepers))
    assert left(base) == ([], [])
    await asyncio.gather(*(one.close() for one in others))


async def test_a_role_that_owns_no_tables_leaves_all_in_the_default_partition(
    base: Base, store: PostgresStore, clock: HandClock, role: Callable[[], str]
) -> None:
    name = role()
    base.run(f"GRANT USAGE ON SCHEMA oncue TO {name}; GRANT ALL ON ALL TABLES IN SCHEMA oncue TO {name}")
    restricted = open_store(base.url_of(name), clock)
    await restricted.open()
    finish(base, 1, T0, T0 + DAY)
    assert await restricted.prune(T0 + DAY, 10) == 1
    assert partitions(base) == ["oncue.oncue_finished_rest"]
    await restricted.close()


async def test_a_day_that_has_rows_in_the_default_partition_is_left_there(
    base: Base, store: PostgresStore, clock: HandClock
) -> None:
    finish(base, 1, midnight(2), None)
    await store.prune(clock.now(), 10)
    assert partitions(base) == [name(1), name(3), "oncue.oncue_finished_rest"]
