"""With trigger=True a change by any program is picked up at once; the triggers follow the declaration."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oncue import OnCue
from oncue.errors import ConfigError
from tests.databases import Backend
from tests.source.stage import TRIALS, Stage


async def test_changes_are_noted_and_handled_without_a_sweep(stage: Stage) -> None:
    stage.declare(trigger=True)
    await stage.app.sources.install()
    stage.put(1, stage.at(5))
    stage.put(2, stage.at(5))
    stage.put(3, None)
    assert stage.db.notes() == [("free_trials", 1), ("free_trials", 2)]
    assert await stage.app.sources.reconcile_changed() == 2
    assert stage.db.notes() == []
    stage.put(1, stage.at(9))
    stage.put(2, stage.at(5), "ended")
    assert await stage.app.sources.reconcile_changed() == 1
    stage.db.execute("DELETE FROM free_trials WHERE id = 1")
    await stage.app.sources.reconcile_changed()
    assert sorted((job.key, job.state) for job in await stage.jobs()) == [
        ("question-1", "cancelled"),
        ("question-2", "cancelled"),
    ]


async def test_the_triggers_do_not_disturb_the_statement_that_fires_them(sqlite: Backend) -> None:
    """SQLite's OR clauses reach into triggers."""
    stage = Stage(sqlite)
    stage.declare(trigger=True)
    async with stage.app:
        await stage.app.sources.install()
    for verb in ("INSERT OR FAIL", "INSERT OR REPLACE", "INSERT OR IGNORE", "REPLACE"):
        stage.db.execute(f"{verb} INTO free_trials (id, next_question_scheduled_for) VALUES (1, 'x')")
        stage.db.execute("UPDATE OR FAIL free_trials SET id = 9 WHERE id = 1")
        stage.db.execute("UPDATE OR ROLLBACK free_trials SET id = 1 WHERE id = 9")
    assert stage.db.notes() == [("free_trials", 1), ("free_trials", 9)]
    stage.db.close()


async def test_without_a_condition_only_the_due_column_and_the_id_are_watched(stage: Stage) -> None:
    stage.put(1, stage.at(5))
    stage.declare(trigger=True, where=None)
    await stage.app.sources.install()
    stage.db.execute("UPDATE free_trials SET name = 'Ann'")
    assert stage.db.notes() == []
    stage.db.execute("UPDATE free_trials SET next_question_scheduled_for = NULL")
    assert stage.db.notes() == [("free_trials", 1)]


async def test_triggers_follow_the_declaration(backend: Backend) -> None:
    found: list[list[tuple[str, str]]] = []
    for options in ({"trigger": True}, {"trigger": True}, {"trigger": True, "where": None}, {}, None):
        stage = Stage(backend, schema=TRIALS if not found else "")
        if options is not None:
            stage.declare(**options)
        else:
            stage.declare(name="renamed", trigger=True)
        async with stage.app:
            await stage.app.sources.install()
            await stage.sweep()
        found.append(stage.db.triggers())
        stage.db.close()
    first, again, changed, none, renamed = found
    assert len(first) == 3
    assert again == first
    assert len(changed) == 3
    assert changed != first
    assert none == []
    assert [source for _, source in renamed] == ["renamed"] * 3


async def test_another_applications_triggers_in_the_same_database_stay(backend: Backend) -> None:
    mine = Stage(backend)
    mine.declare(trigger=True)
    async with mine.app:
        await mine.app.sources.install()
        async with OnCue(backend.url, name="other") as other:
            await other.sources.install()
    assert len(mine.db.triggers()) == 3
    mine.db.close()


async def test_a_renamed_table_takes_no_triggers_along_for_ever(stage: Stage) -> None:
    stage.declare(trigger=True)
    await stage.app.sources.install()
    stage.db.execute("ALTER TABLE free_trials RENAME TO old_trials")
    stage.db.execute(TRIALS)
    await stage.sweep()
    stage.db.execute("INSERT INTO old_trials (next_question_scheduled_for) VALUES ('2026-01-01')")
    assert stage.db.notes() == []
    stage.put(1, stage.at(0))
    await stage.work()
    assert stage.ran == [1]


async def test_changes_of_a_table_that_went_away_do_not_stay(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.declare(trigger=True)
    await stage.app.sources.install()
    stage.put(1, stage.at(0))
    stage.db.execute("DROP TABLE free_trials")
    await stage.work()
    assert stage.db.notes() == []
    assert "no table 'free_trials'" in caplog.text


async def test_a_view_can_be_a_source_but_has_no_triggers(stage: Stage) -> None:
    stage.db.execute("CREATE VIEW active AS SELECT id, next_question_scheduled_for AS due FROM free_trials")
    stage.app.source("active", key="q-{id}", due="due", task=stage.task, name="seen")
    stage.put(1, stage.at(0))
    await stage.app.sources.install()
    await stage.sweep()
    await stage.work()
    assert stage.ran == [1]
    stage.app.source("active", key="q-{id}", due="due", task=stage.task, trigger=True)
    with pytest.raises(ConfigError, match="Views"):
        await stage.app.sources.install()


async def test_a_change_by_another_program_wakes_the_worker(tmp_path: Path) -> None:
    """Plain SQL from a process that has never heard of OnCue; the next sweep is an hour away."""
    path = tmp_path / "trial.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(TRIALS)
    app = OnCue(f"sqlite:///{path}", sweep=3600)
    ran: asyncio.Queue[tuple[int, float]] = asyncio.Queue()

    @app.task()
    async def send_question(trial_id: int) -> None:
        await ran.put((trial_id, time.time()))

    app.source(
        "free_trials", key="q-{id}", due="next_question_scheduled_for", where="status = 'active'", task=send_question,
        trigger=True,
    )  # fmt: skip
    program = (
        "import sqlite3, sys, time\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)\n"
        "due = time.time() + 0.5\n"
        "db.execute('INSERT INTO free_trials (id, next_question_scheduled_for) VALUES (4, ?)', (due,))\n"
    )
    async with app.worker() as service:
        # The first sweep is through, so that none can be what sees the change.
        while not await app.sources.status():  # noqa: ASYNC110 - a state of the file, not of this process
            await asyncio.sleep(0.01)
        began = time.time()
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, str(path)], check=True)
        trial, at = await asyncio.wait_for(ran.get(), 30)
        assert trial == 4
        assert at >= began + 0.5
        assert service.worker is not None
    db.close()
