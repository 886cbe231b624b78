"""``oncue bench`` measures in tables of its own, and leaves nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from oncue import OnCue
from oncue.cli import main
from oncue.cli.bench import _remarks
from tests.cli.stage import Stage
from tests.databases import NEWEST, database

FEW = ("bench", "--jobs", "20", "--timed", "3", "--json")


def check(answer: dict[str, object]) -> None:
    assert answer["jobs"] == 40
    for name in ("schedule_alone_per_s", "schedule_together_per_s", "jobs_per_s"):
        assert isinstance(answer[name], float)
        assert answer[name] > 0  # type: ignore[operator]
    late = answer["lateness"]
    assert isinstance(late, dict)
    assert late["jobs"] == 3
    assert late["p50_ms"] <= late["p99_ms"] <= late["max_ms"]
    remarks = answer["remarks"]
    assert isinstance(remarks, list)
    assert "A p99 of fewer than 100 jobs is their max: --timed 100 or more." in remarks


def test_on_sqlite_the_jobs_that_are_there_stay_untouched(stage: Stage) -> None:
    names = stage.load()

    async def fill() -> None:
        async with names["app"] as app:
            await app.schedule(names["greet"].call("Ana"))

    asyncio.run(fill())
    before = sorted(stage.folder.iterdir())
    check(json.loads(stage.here(*FEW).stdout))
    assert sorted(stage.folder.iterdir()) == before
    assert [row[:3] for row in stage.lines("jobs", "list")] == [["1", "scheduled", "greet"]]


def test_a_rate_of_too_few_jobs_is_said_to_tell_nothing(stage: Stage) -> None:
    assert _remarks(18_000.0, 0.6, 100) == []
    (short,) = _remarks(4_862.0, 0.04, 200)
    assert "within 0.04 s" in short
    assert "--jobs 10000." in short
    said = stage.here("bench", "--jobs", "1", "--timed", "1")
    assert "A p99 of fewer than 100 jobs is their max" in said.stderr
    assert said.stdout.splitlines()[2].startswith("2 jobs that did nothing\t")


def test_without_a_database_none_is_made(stage: Stage) -> None:
    rows = stage.lines("bench", "--jobs", "10", "--timed", "2")
    assert [row[0] for row in rows][:2] == ["schedule(), one after another", "schedule(), 50 callers at once"]
    assert not stage.database.exists()
    assert stage.here("bench", "--database", "sqlite:////no/such/folder/x.db").exit_code == 1


@pytest.mark.parametrize("kind", NEWEST)
def test_on_postgresql_in_a_schema_of_its_own(kind: str, tmp_path: Path) -> None:
    with database(kind, tmp_path) as backend:
        done = CliRunner().invoke(main, [*FEW, "--database", backend.url])
        assert done.exit_code == 0, done.output
        check(json.loads(done.stdout))
        with psycopg.connect(backend.url) as conn:
            schemas = conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'oncue%'").fetchall()

        async def there() -> list[object]:
            async with OnCue(backend.url) as app:
                return list(await app.jobs.list())

        assert schemas == [("oncue",)]
        assert asyncio.run(there()) == []
