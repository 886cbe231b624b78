"""``oncue drain``, ``sweep``, ``migrate``, ``restored``, ``cron export`` and ``demo``."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from oncue.store.sqlite.schema import VERSION
from tests.cli.stage import TIME, Stage


def schedule(stage: Stage, *, delay: float = 0, count: int = 1) -> None:
    names = stage.load()

    async def work() -> None:
        async with names["app"] as app:
            for number in range(count):
                await app.schedule(names["greet"].call(f"number {number}"), delay=delay)

    asyncio.run(work())


def test_drain_does_what_is_due_within_its_budget(stage: Stage) -> None:
    schedule(stage, count=3)
    first = stage.json("drain", "trial:app", "--limit", "2")
    assert (first["ran"], first["failed"], first["skipped"], first["remaining"]) == (2, 0, 0, 1)
    done = stage.apart("drain", "trial:app", "--seconds", "30")
    assert done.returncode == 0
    assert done.stdout.startswith("ran 1, failed 0, skipped 0, remaining 0, next_due 20")
    assert TIME.fullmatch(first["next_due"])
    assert stage.here("drain", "trial:app", "--limit", "0").exit_code == 2


def test_sweep_tells_what_it_did(stage: Stage) -> None:
    told = stage.json("sweep", "trial:app")
    assert set(told) >= {"rescued", "planned", "reconciled", "pruned"}
    assert stage.here("sweep", "trial:app").stdout.startswith("rescued 0, ")
    assert [row[0] for row in stage.lines("schedules", "list")] == ["nightly"]


def test_migrate_makes_a_database_and_says_when_there_is_nothing_to_do(stage: Stage) -> None:
    done = stage.here("migrate", "--check")
    assert done.exit_code == 1
    assert "no database yet" in done.stdout
    sql = stage.here("migrate", "--sql").stdout
    assert not stage.database.exists()
    assert "migrated from version 0 to" in stage.here("migrate").stdout
    assert stage.here("migrate", "--check").exit_code == 0
    assert stage.here("migrate").stdout.endswith("nothing to do\n")
    by_hand = sqlite3.connect(":memory:")
    by_hand.executescript(sql)
    tables = "SELECT name FROM sqlite_master WHERE name LIKE 'oncue%' AND type = 'table' ORDER BY name"
    made = sqlite3.connect(stage.database)
    assert by_hand.execute(tables).fetchall() == made.execute(tables).fetchall() != []
    by_hand.close()
    made.close()


def test_migrate_says_in_json_what_was_there_and_what_was_done(stage: Stage) -> None:
    there = {"location": str(stage.database), "exists": False, "found": 0, "expected": VERSION, "good": False}
    assert stage.json("migrate", "--check", code=1) == {**there, "migrated": False}
    assert not stage.database.exists()
    assert stage.json("migrate") == {**there, "migrated": True}
    now = {**there, "exists": True, "found": VERSION, "good": True, "migrated": False}
    assert stage.json("migrate") == stage.json("migrate", "--check") == now
    assert stage.here("migrate", "--sql", "--json").exit_code == 2


@pytest.mark.parametrize("newer", [True, False])
def test_a_schema_of_another_version_is_told_of_and_left_alone(stage: Stage, newer: bool) -> None:
    if newer:
        assert stage.here("migrate").exit_code == 0
        conn = sqlite3.connect(stage.database)
        with conn:
            conn.execute("UPDATE oncue_counter SET value = 99 WHERE name = 'schema'")
        conn.close()
    else:
        sqlite3.connect(stage.database).close()
        stage.database.touch()
    before = stage.database.read_bytes()
    for command in (["jobs", "list"], ["schedules", "list"], ["workers"], ["queues", "pause", "default"], ["doctor"]):
        done = stage.here(*command)
        assert done.exit_code == 1, command
        assert ("schema version 99" if newer else "oncue migrate") in done.output
    assert stage.here("migrate", "--check").exit_code == 1
    assert stage.here("migrate").exit_code == (1 if newer else 0)
    assert (stage.database.read_bytes() == before) == newer


def test_after_a_restore_what_was_due_is_held_until_it_is_released(stage: Stage) -> None:
    schedule(stage, count=2)
    schedule(stage, delay=3600)
    assert stage.here("restored").stdout == "2 jobs held\n"
    assert [row[0] for row in stage.lines("restored", "--list")] == ["1", "2"]
    assert "restored" in stage.json("jobs", "show", "1")["why"]
    assert stage.json("drain", "trial:app")["ran"] == 0
    assert stage.here("jobs", "cancel", "1").stdout == "1\tprevented\n"
    assert stage.json("restored", "--release") == {"released": 1}
    lines = [(line["action"], line["target"], line["count"]) for line in stage.json("audit", "--target", "restore")]
    assert lines == [("release", "restore", 1), ("hold", "restore", 2)]
    assert stage.json("drain", "trial:app")["ran"] == 1
    assert stage.lines("restored", "--list") == []
    assert stage.here("restored", "--list", "--release").exit_code == 2


async def test_nothing_is_held_while_workers_are_alive(stage: Stage) -> None:
    async with stage.load()["app"].worker():
        done = await asyncio.to_thread(stage.apart, "restored")
        assert done.returncode == 1
        assert "Workers seem to be alive" in done.stderr
        assert (await asyncio.to_thread(stage.apart, "restored", "--force")).returncode == 0


def test_cron_export_writes_files_and_says_what_is_left_to_do(stage: Stage) -> None:
    export = ["cron", "export", "--target", "systemd", "--url", "https://example.com", "--output", "units"]
    done = stage.here(*export, "--schedule", "*/10 * * * * *", "--timezone", "Europe/Berlin")
    assert done.exit_code == 0
    files = {Path(line) for line in done.stdout.splitlines()}
    assert {file.suffix for file in files} == {".service", ".timer"}
    assert any("Europe/Berlin" in file.read_text() for file in files)
    assert "systemctl" in done.stderr
    again = stage.here(*export)
    assert again.exit_code == 1
    assert "There already" in again.stderr
    assert any("Europe/Berlin" in file.read_text() for file in files)
    assert stage.here(*export, "--force").exit_code == 0
    assert not any("Europe/Berlin" in file.read_text() for file in files)


def test_cron_export_prints_and_refuses_what_the_target_can_not_keep(stage: Stage) -> None:
    export = ["cron", "export", "--target", "vercel", "--url", "https://example.com"]
    assert json.loads(stage.here(*export).stdout)["crons"][0]["path"] == "/api/cron/process-scheduled"
    done = stage.here(*export, "--schedule", "*/10 * * * * *")
    assert done.exit_code == 1
    assert "Vercel starts at most once a minute" in done.stderr
    assert stage.here("cron", "export", "--target", "abacus", "--url", "https://example.com").exit_code == 2


def test_demo_hands_over_to_the_program(stage: Stage) -> None:
    done = stage.apart("demo", "--help")
    assert done.returncode == 0
    assert "--people" in done.stdout


def test_demo_says_what_is_missing(stage: Stage) -> None:
    """As on a machine with a plain install: Python is started without what the extras bring."""
    blocker = "import sys\nsys.modules.update(dict.fromkeys(('httpx', 'uvicorn')))\n"
    (stage.folder / "sitecustomize.py").write_text(blocker)
    done = stage.apart("demo", PYTHONPATH=str(stage.folder))
    assert done.returncode == 1
    assert done.stderr == "Error: The demo needs httpx, uvicorn: pip install 'oncue[web,whatsapp]'\n"
