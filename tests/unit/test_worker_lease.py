"""What must never leave a worker asleep beside a due job: a lost life, and hints that come while it looks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oncue import OnCue
from oncue.handle import JobHandle
from oncue.store.sqlite.run import SQL
from tests.databases import sqlite_of


@pytest.mark.parametrize("round", range(5))
async def test_a_worker_that_was_signed_off_by_others_still_runs_what_is_due(tmp_path: Path, round: int) -> None:
    app = OnCue(f"sqlite:///{tmp_path}/jobs.db")

    @app.task(name="note")
    async def note() -> int:
        return round

    async with app.worker() as service:
        assert service.worker is not None
        before = service.worker.id
        await sqlite_of(app).write(lambda conn: conn.execute(SQL["drop_worker"], {"worker": before}))
        handle = await app.schedule(note.call())
        assert await handle.result(timeout=20) == round
        assert service.worker.id != before


async def test_a_hint_that_comes_while_the_worker_follows_a_claim_is_kept(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path}/jobs.db")
    made: list[JobHandle[int]] = []
    scheduled = asyncio.Event()

    @app.task(name="note")
    async def note() -> int:
        return 1

    async def changed() -> int:
        await sqlite_of(app).write(lambda conn: conn.execute("DELETE FROM oncue_source_change"))
        if not made:
            made.append(await app.schedule(note.call()))
            scheduled.set()
        return 0

    app.sources.reconcile_changed = changed  # type: ignore[method-assign]
    async with app.worker() as service:
        assert service.worker is not None
        note_of = "INSERT INTO oncue_source_change (source, row_key) VALUES ('s', '1')"
        await sqlite_of(app).write(lambda conn: conn.execute(note_of))
        service.worker._arm(app.clock.now())
        await scheduled.wait()
        assert await made[0].result(timeout=20) == 1
