"""``oncue doctor`` finds what is wrong, says how to mend it, and is content where all is well."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oncue.errors import StoreBusy
from oncue.store.sqlite import SqliteStore
from oncue.store.sqlite.schema import VERSION
from oncue.store.views import Check
from tests.cli.conftest import Start
from tests.cli.stage import SECRET, Stage

SOURCE = """
app.source(name="trials", table="free_trials", key="question-{id}", due="due_at",
           task=greet, args=lambda row: greet.call("x"))
"""


def states(answer: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in answer["checks"]}


def found(answer: dict[str, Any], name: str) -> str:
    return next(f"{check['found']} {check['remedy']}" for check in answer["checks"] if check["name"] == name)


async def test_with_a_worker_alive_all_is_well(stage: Stage) -> None:
    app = stage.load()["app"]
    await app.drain()
    async with app.worker():
        done = await asyncio.to_thread(stage.apart, "doctor", "trial:app", "--json", CRON_SECRET=SECRET)
        plain = await asyncio.to_thread(stage.apart, "doctor", CRON_SECRET=SECRET)
    answer = json.loads(done.stdout)
    # The disk of the machine that runs the tests is its own affair.
    told = {name: state for name, state in states(answer).items() if name != "disk"}
    assert set(told.values()) == {"ok"}, answer
    expected = {"cron secret", "database", "journal", "durability", "writing", "wake", "workers", "schedules", "code"}
    expected |= {"sweeper", "queues", "paused tasks", "running long", "tokens"}
    assert set(told) >= expected
    assert done.returncode == (0 if answer["ok"] else 1)
    assert f"ok    schema: {stage.database}, schema version {VERSION}" in plain.stdout.splitlines()


def test_without_a_database_it_says_so_and_makes_none(stage: Stage) -> None:
    answer = stage.json("doctor", code=1)
    assert answer["ok"] is False
    assert f"no database at {stage.database}" in found(answer, "database")
    assert not stage.database.exists()


def test_where_no_database_was_named_that_is_said(stage: Stage, start: Start) -> None:
    assert "DATABASE_URL is not set" not in stage.here("doctor").stdout
    assert "(DATABASE_URL is not set)" in stage.apart("doctor", DATABASE_URL="").stdout
    start("worker", "trial:app", DATABASE_URL="").says("oncue.db (DATABASE_URL is not set), ")
    assert "oncue.db (DATABASE_URL is not set), schema version" in stage.apart("doctor", DATABASE_URL="").stdout


def test_due_jobs_without_a_worker_fail_and_say_what_to_do(stage: Stage) -> None:
    names = stage.load()

    async def schedule() -> None:
        async with names["app"] as app:
            await app.schedule(names["greet"].call("Ana"), at=datetime.now(UTC) - timedelta(minutes=1))

    asyncio.run(schedule())
    answer = stage.json("doctor", code=1)
    assert "1 job due" in found(answer, "workers")
    assert "oncue worker" in found(answer, "workers")
    assert "job 1 (greet)" in found(answer, "overdue jobs")
    assert states(answer)["overdue jobs"] == "fail"
    assert stage.here("queues", "pause", "default").exit_code == 0
    answer = stage.json("doctor", code=1)
    assert states(answer)["overdue jobs"] == "warn"
    assert states(answer)["queues"] == "warn"
    assert "default is paused since" in found(answer, "queues")
    assert "1 job of it due" in found(answer, "queues")
    assert "oncue queues resume" in found(answer, "queues")


async def test_jobs_given_up_lately_are_told(stage: Stage) -> None:
    names = stage.load()
    async with names["app"] as app:
        await app.schedule(names["fail"].call("luck"))
    await asyncio.to_thread(stage.apart, "drain", "trial:app")
    answer = json.loads((await asyncio.to_thread(stage.apart, "doctor", "--json")).stdout)
    assert states(answer)["discarded"] == "warn"
    assert "1 job in the last 24 hours; last job 1 (fail)" in found(answer, "discarded")
    assert "oncue jobs retry" in found(answer, "discarded")


def test_a_task_that_the_code_lacks_is_found(stage: Stage) -> None:
    names = stage.load()

    async def schedule() -> None:
        async with names["app"] as app:
            await app.schedule(names["greet"].call("Ana"), delay=3600)

    asyncio.run(schedule())
    trial = stage.folder / "trial.py"
    trial.write_text(trial.read_text().replace('name="greet"', 'name="welcome"'))
    answer = stage.json("doctor", "trial:app", code=1)
    assert "greet" in found(answer, "code")
    assert "aliases" in found(answer, "code")


@pytest.mark.parametrize(("delay", "state"), [(0, "fail"), (3600, "warn")])
async def test_a_task_that_no_worker_knows_is_named(stage: Stage, delay: float, state: str) -> None:
    names = stage.load()
    async with names["app"].worker():
        newer = stage.app()

        @newer.task(name="newest")
        async def newest() -> None: ...

        async with newer:
            handle = await newer.schedule(newest.call(), delay=delay)
            # One that is due is claimed first, and given back.
            while not delay and not ((row := await newer.jobs.get(handle.id)) and row.snoozes):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            why = await newer.jobs.why((await newer.jobs.list())[0])
        answer = json.loads((await asyncio.to_thread(stage.apart, "doctor", "--json")).stdout)
        shown = await asyncio.to_thread(stage.apart, "jobs", "show", str(handle.id))
    assert states(answer)["tasks"] == state
    assert "no worker knows task newest, which 1 job asked for" in found(answer, "tasks")
    assert "no worker knows task 'newest': start one with the code that declares it" in why
    assert "no worker knows task 'newest'" in shown.stdout


@pytest.mark.parametrize(("secret", "state"), [("", "warn"), ("short", "fail"), (f"{SECRET},{SECRET}2", "ok")])
def test_the_cron_secret(stage: Stage, monkeypatch: pytest.MonkeyPatch, secret: str, state: str) -> None:
    assert stage.here("migrate").exit_code == 0
    monkeypatch.setenv("CRON_SECRET", secret)
    answer = stage.json("doctor", code=1 if state == "fail" else 0)
    assert states(answer)["cron secret"] == state
    assert "short" not in found(answer, "cron secret")


def test_a_source_whose_rows_can_not_be_read_is_told_of(stage: Stage) -> None:
    trial = stage.folder / "trial.py"
    trial.write_text(trial.read_text() + SOURCE)
    conn = sqlite3.connect(stage.database)
    with conn:
        conn.execute("CREATE TABLE free_trials (id INTEGER PRIMARY KEY, due_at TEXT)")
        conn.execute("INSERT INTO free_trials VALUES (1, '2026-01-01T00:00:00Z'), (2, 'next tuesday')")
    assert stage.here("sweep", "trial:app").exit_code == 0
    assert "next tuesday" in found(stage.json("doctor", code=1), "source trials")
    with conn:
        conn.execute("DELETE FROM free_trials WHERE id = 2")
    conn.close()
    assert stage.here("sweep", "trial:app").exit_code == 0
    assert states(stage.json("doctor", code=1))["source trials"] == "ok"


def test_a_damaged_database_fails_without_a_traceback(stage: Stage) -> None:
    stage.database.write_text("no database at all, whatever its name says " * 50)
    answer = stage.json("doctor", code=1)
    assert states(answer)["database"] == "fail"
    assert str(stage.database) in found(answer, "database")


def test_an_app_names_its_own_database(stage: Stage) -> None:
    assert stage.here("doctor", "trial:app", "--database", stage.url).exit_code == 2


async def test_what_another_application_removed_is_missed(stage: Stage) -> None:
    (stage.folder / "other.py").write_text("from oncue import OnCue\napp = OnCue()\n")
    trial = stage.folder / "trial.py"
    trial.write_text(trial.read_text() + SOURCE)
    await asyncio.to_thread(stage.apart, "migrate")
    before = json.loads((await asyncio.to_thread(stage.apart, "doctor", "trial:app", "--json")).stdout)
    assert "not stored: schedule nightly, source trials A worker stores them at start." in found(before, "code")
    async with stage.load()["app"].worker():
        await asyncio.to_thread(stage.apart, "drain", "other:app")
        answer = json.loads((await asyncio.to_thread(stage.apart, "doctor", "trial:app", "--json")).stdout)
    assert states(answer)["code"] == "warn"
    assert "not stored: schedule nightly" in found(answer, "code")
    assert "OnCue(name=...); this one is 'default'" in found(answer, "code")


def test_a_locked_file_is_a_trouble_of_writing_and_says_what_follows(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stage.here("migrate").exit_code == 0

    def locked(store: SqliteStore) -> None:
        raise StoreBusy("it stayed locked by another process. Look for a long write transaction there.")

    monkeypatch.setattr(SqliteStore, "ping_sync", locked)
    answer = stage.json("doctor", code=1)
    assert states(answer)["writing"] == "fail"
    assert "long write transaction" in found(answer, "writing")
    assert "go on by themselves" in found(answer, "writing")
    assert "wake" not in states(answer)


def test_no_name_steers_the_terminal(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(*_: Any, **__: Any) -> list[Check]:
        # A worker, a group and a row may be called anything.
        return [Check("workers", "warn", "w\x1b[2J is silent", "Taken back at the next sweep: the jobs of w\x1b[2J.")]

    monkeypatch.setattr("oncue.cli.doctor._all", found)
    said = stage.here("doctor").output
    assert said.count("w\\x1b[2J") == 2
    assert "\x1b" not in said
