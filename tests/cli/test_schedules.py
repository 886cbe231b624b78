"""``oncue schedules``, ``queues`` and ``workers``."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

import oncue
from tests.cli.stage import Stage
from tests.worker.conftest import until_state

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def planned(stage: Stage) -> Stage:
    """A database that knows the application's schedule."""
    asyncio.run(stage.load()["app"].drain())
    return stage


def test_list(planned: Stage) -> None:
    ((name, expression, timezone, following, last, paused, missed, task),) = planned.lines("schedules", "list")
    assert (name, expression, timezone, last, paused, missed) == ("nightly", "30 2 * * *", "Europe/Berlin", "", "", "0")
    assert task == "nightly"
    at = datetime.fromisoformat(following)
    assert at > datetime.now(UTC)
    assert at.astimezone(BERLIN).strftime("%H:%M") in {"02:30", "03:00"}
    (record,) = planned.json("schedules", "list")
    assert (record["name"], record["paused"], record["next"]) == ("nightly", False, following)


def test_preview_of_a_stored_schedule_begins_with_its_next_fire(planned: Stage) -> None:
    (stored,) = planned.json("schedules", "list")
    rows = planned.lines("schedules", "preview", "nightly", "-n", "3")
    assert len(rows) == 3
    assert datetime.fromisoformat(rows[0][1]) == datetime.fromisoformat(stored["next"])


@pytest.mark.parametrize(
    ("timezone", "change"), [("Europe/Berlin", "30 * * 10 SUNL"), ("America/New_York", "30 * * 11 SUN#1")]
)
def test_preview_marks_the_clock_changes(stage: Stage, timezone: str, change: str) -> None:
    """The night hours of more than a year, and all hours of the day of the change; Python's own zone tells the time."""
    rows = stage.json("schedules", "preview", "--cron", "30 1,2 * * *", "--timezone", timezone, "-n", "1000")
    rows += stage.json("schedules", "preview", "--cron", change, "--timezone", timezone, "-n", "25")
    for row in rows:
        local = datetime.fromisoformat(row["at"]).astimezone(ZoneInfo(timezone))
        assert (row["local"], row["offset"]) == (f"{local:%a %Y-%m-%d %H:%M:%S}", local.isoformat()[-6:])
        repeated = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
        assert ("the repeated hour" in row.get("shift", "")) == repeated
    notes = {row.get("shift", "") for row in rows}
    for note in ("right after the hour that the clock leaves out", "the repeated hour, first time"):
        assert note in notes
    assert "the repeated hour, second time" in notes
    assert any(note.startswith("the clock went back by 1:00:00") for note in notes)


def test_a_pipe_gets_the_clock_changes_as_the_third_field(stage: Stage) -> None:
    rows = stage.lines("schedules", "preview", "--cron", "30 2 * 3,10 SUNL", "--timezone", "Europe/Berlin", "-n", "2")
    assert {note: local[-14:] for local, _, note in rows} == {
        "right after the hour that the clock leaves out": "03:00:00+02:00",
        "the repeated hour, first time": "02:30:00+02:00",
    }


def test_preview_without_a_zone_is_in_utc_and_needs_no_database(stage: Stage) -> None:
    rows = stage.lines("schedules", "preview", "--cron", "0 12 * * *", "-n", "2")
    assert [row[0][-14:] for row in rows] == ["12:00:00+00:00"] * 2
    assert not stage.database.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "NAME"),
        (["nightly", "--cron", "* * * * *"], 2, "one of them"),
        (["nightly", "--timezone", "UTC"], 2, "--timezone goes with --cron"),
        (["--cron", "61 * * * *"], 2, "61"),
        (["--cron", "0 0 30 2 *"], 2, "never fires"),
        (["--cron", "* * * * *", "--timezone", "Mars/Base"], 2, "Mars/Base"),
        (["weekly"], 1, "There is no schedule 'weekly'. Stored are: nightly."),
    ],
)
def test_preview_refuses(planned: Stage, arguments: list[str], code: int, told: str) -> None:
    done = planned.here("schedules", "preview", *arguments)
    assert done.exit_code == code
    assert told in done.stderr


def test_pause_resume_and_run_now(planned: Stage) -> None:
    assert planned.here("schedules", "pause", "nightly").stdout == "nightly\tpaused\n"
    assert planned.lines("schedules", "list")[0][5] == "yes"
    assert planned.here("schedules", "resume", "nightly").stdout == "nightly\tresumed\n"
    assert planned.lines("schedules", "list")[0][5] == ""
    name, made = planned.lines("schedules", "run-now", "nightly")[0]
    assert name == "nightly"
    job = planned.json("jobs", "show", made.removeprefix("job "))["job"]
    assert (job["task"], job["state"]) == ("nightly", "scheduled")
    for command in ("pause", "resume", "run-now"):
        done = planned.here("schedules", command, "weekly")
        assert done.exit_code == 1
        assert "There is no schedule 'weekly'" in done.stderr


def test_a_paused_queue_keeps_its_jobs(stage: Stage) -> None:
    names = stage.load()

    async def schedule() -> None:
        async with names["app"] as app:
            await app.schedule(names["greet"].call("Ana"))

    asyncio.run(schedule())
    paused = stage.here("queues", "pause", "default")
    assert (paused.stdout, paused.stderr) == ("default\tpaused\n", "")
    ((*fields, since),) = stage.lines("queues", "list")
    assert fields == ["default", "yes", "0", "1", "0", "0"]
    assert stage.here("queues", "pause", "default").exit_code == 0
    (queue,) = stage.json("queues", "list")
    assert queue["paused_at"] == since, "a queue that is paused already stays paused since then"
    assert stage.json("drain", "trial:app")["ran"] == 0
    assert stage.here("queues", "resume", "default").stdout == "default\tresumed\n"
    (queue,) = stage.json("queues", "list")
    assert (queue["name"], queue["paused"], queue["paused_at"], queue["due"]) == ("default", False, None, 1)
    assert stage.here("queues", "resume", "default").stdout == "default\twas not paused\n"
    assert stage.here("queues", "resume", "nope").stdout == "nope\twas not paused\n"
    assert [queue["name"] for queue in stage.json("queues", "list")] == ["default"]
    unknown = stage.here("queues", "pause", "defualt")
    said = "No job is in, and no worker names, a queue 'defualt'; queues that are known: default."
    assert (unknown.exit_code, unknown.stderr) == (0, f"{said}\n")
    assert stage.json("queues", "pause", "defualt")["text"] == f"Queue defualt is paused already. {said}"
    assert stage.json("drain", "trial:app")["ran"] == 1


async def test_workers_shows_who_runs_what(stage: Stage) -> None:
    names = stage.load()
    async with names["app"] as app, app.worker():
        handle = await app.schedule(names["hang"].call())
        await until_state(app, handle.id, "running")
        done = await asyncio.to_thread(stage.apart, "workers", "--json")
        assert done.returncode == 0, done.stderr
        plain = await asyncio.to_thread(stage.apart, "workers")
        assert await app.cancel(id=handle.id) == "requested"
        await until_state(app, handle.id, "cancelled")
    (worker,) = json.loads(done.stdout)
    assert (worker["state"], worker["queues"]) == ("alive", None)
    (job,) = worker["jobs"]
    assert (job["id"], job["task"]) == (handle.id, "hang")
    assert worker["started_at"] <= job["started_at"] <= worker["lease_until"]
    assert worker["tasks"] == ["fail", "greet", "hang", "nightly"]
    assert (worker["host"], worker["pid"]) == (socket.gethostname(), os.getpid())
    assert worker["version"] == oncue.__version__
    assert plain.stdout.rstrip("\n").split("\t")[-2:] == [f"{handle.id} hang since {job['started_at']}", ""]
