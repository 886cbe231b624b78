"""Sweepers, workers and an editor of the rows at the same time: no due value runs twice, none that stays is lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from oncue import JobContext
from oncue.clock import SECOND, from_us
from tests.databases import Backend
from tests.source.stage import START, Stage

ROUNDS, IDS = 30, 6


@pytest.mark.parametrize("trigger", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
async def test_rows_are_edited_while_two_processes_sweep_and_work(backend: Backend, seed: int, trigger: bool) -> None:
    chance = random.Random(seed)
    one = Stage(backend)
    two = Stage(backend, one.clock, schema="")
    done: Counter[tuple[int, int]] = Counter()
    for stage in (one, two):

        @stage.app.task(name="send")
        async def send(ctx: JobContext, trial_id: int) -> None:
            due = round(ctx.scheduled_at.timestamp() * SECOND) - START
            await asyncio.sleep(0)
            done[trial_id, due] += 1

        stage.declare(task=send, trigger=trigger)
    rows: dict[int, tuple[int, str]] = {}
    # Each is another due value, so that one that ran twice is one that was handled twice.
    numbers = iter(range(1, 1_000_000))

    async def edit() -> None:
        for _ in range(4):
            id, ahead = chance.randint(1, IDS), chance.choice([0, 1, 2, 60])
            due = one.clock.now() - START + ahead * SECOND + next(numbers)
            status = chance.choice(["active", "active", "paused"])
            rows[id] = due, status
            at = from_us(START + due).replace(tzinfo=None).isoformat(" ")
            await asyncio.to_thread(put, backend, id, at, status)

    async with one.app, two.app:
        await one.app.sources.install()
        for _ in range(ROUNDS):
            await asyncio.gather(one.sweep(), edit(), two.work(), two.sweep(), one.work())
            one.clock.move(1)
        for _ in range(4):
            one.clock.move(30)
            await one.sweep()
            await two.work()
    for stage in (one, two):
        stage.db.close()
    assert [pair for pair, count in done.items() if count > 1] == []
    assert [id for id, (due, status) in rows.items() if status == "active" and done[id, due] != 1] == []


def put(backend: Backend, id: int, due: str, status: str) -> None:
    """Edit a row over a connection of the thread's own, as another process does."""
    mark = "?" if backend.is_sqlite else "%s"
    sql = (
        f"INSERT INTO free_trials (id, status, next_question_scheduled_for) VALUES ({mark}, {mark}, {mark}) "
        "ON CONFLICT (id) DO UPDATE SET (status, next_question_scheduled_for) = "
        "(excluded.status, excluded.next_question_scheduled_for)"
    )
    with backend.connect() as conn:
        conn.execute(sql, (id, status, due))
        conn.commit()
