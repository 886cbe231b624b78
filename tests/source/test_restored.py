"""After a backup was restored, rows and schedules of before the restore make jobs that wait for a person."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import oncue.testing
from oncue import OnCue
from oncue.store.sqlite.connection import path_of


async def test_what_came_due_before_a_restore_is_held_for_sources_and_schedules_too(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path / 'declared.db'}")
    sent: list[int] = []
    fired: list[int] = []

    @app.task(name="send")
    async def send(trial_id: int) -> None:
        sent.append(trial_id)

    @app.every(60, name="tick")
    async def tick() -> None:
        fired.append(1)

    app.source(table="free_trials", key="question-{id}", due="next_at", task=send)
    async with oncue.testing.run(app) as t:
        with closing(sqlite3.connect(path_of(app.url))) as db:
            db.execute("CREATE TABLE free_trials (id INTEGER PRIMARY KEY, next_at INTEGER)")
            db.execute("INSERT INTO free_trials VALUES (7, ?)", (app.clock.now() - 5_000_000,))
            db.commit()
        await t.drain()
        assert sent == [7], "without a restore the row is sent"
        before = len(fired)
        with closing(sqlite3.connect(path_of(app.url))) as db:
            # The backup knows of the row, but not that it was sent, and of a fire that it did not see run.
            db.execute("DELETE FROM oncue_source_row")
            db.execute("DELETE FROM oncue_finished")
            db.execute("UPDATE oncue_schedule SET next_at = next_at - 120000000")
            db.commit()
        await app.store.hold_due(app.clock.now())
        await t.drain()
        assert sent == [7]
        assert len(fired) == before
        held = [job for job in await app.jobs.list(state=["scheduled"]) if job.blocked_by == "restore"]
        assert {job.task for job in held} >= {"send"}
        assert await app.store.release_held() == len(held)
        await t.drain()
        assert sent == [7, 7], "a person let it go"
