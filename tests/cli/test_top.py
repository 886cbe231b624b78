"""``oncue status`` and ``oncue top``: how things are, once or live."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import subprocess
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from oncue.cli import overview
from oncue.operate.views import Overview
from tests.cli.stage import COMMAND, Stage


@pytest.fixture
def late(stage: Stage) -> Stage:
    """Job 1 completed, 2 was discarded, 3 is late, 4 comes in a minute."""
    names = stage.load()

    async def fill() -> None:
        async with names["app"] as app:
            await app.schedule(names["greet"].call("Ana"))
            await app.schedule(names["fail"].call("luck"))
            await app.drain()
            await app.schedule(names["greet"].call("Bo"), at=datetime.now(UTC) - timedelta(minutes=1))
            await app.schedule(names["greet"].call("Cy"), delay=60)

    asyncio.run(fill())
    return stage


def test_status_tells_counts_what_comes_and_what_is_not_well(late: Stage) -> None:
    rows = late.lines("status")
    counts = {row[1]: row[2] for row in rows if row[0] == "count"}
    assert (counts["completed"], counts["late"], counts["due"], counts["scheduled"]) == ("1", "1", "1", "1")
    assert [row[2] for row in rows if row[0] == "coming"] == ["1"]
    assert ["2", "1", "0", "1"] in [row[2:6] for row in rows if row[0] == "past"]
    health = {row[1]: row[2:] for row in rows if row[0] == "health"}
    assert health["workers"] == ["fail", "none is registered; 1 job due", "Start one: oncue worker module:app"]
    assert health["wake"][0] == "ok"
    assert health["sweeper"][0] == "ok"


def test_status_names_the_jobs_that_are_late_and_those_given_up_and_says_why(late: Stage) -> None:
    assert late.here("queues", "pause", "default").exit_code == 0
    rows = {row[0]: row[1:] for row in late.lines("status") if row[0] in ("late", "discarded")}
    assert rows["late"][:2] == ["3", "greet"]
    assert "its queue 'default' is paused" in rows["late"][3]
    assert rows["discarded"][:2] == ["2", "fail"]
    assert rows["discarded"][3] == "its only attempt failed; RuntimeError: no luck"


def test_where_nothing_started_nothing_is_said_to_be_on_time(stage: Stage) -> None:
    names = stage.load()

    async def fill() -> None:
        async with names["app"] as app:
            await app.schedule(names["greet"].call("Ana"))

    asyncio.run(fill())
    assert {"p50=-", "p99=-"} <= set(stage.lines("top", "--count", "1")[0])
    assert ["lateness", "p50_ms", ""] in stage.lines("status")
    assert stage.json("drain", "trial:app")["ran"] == 1
    found = msgspec.convert(stage.json("status"), Overview, strict=False)
    # One in five minutes rounds to hardly anything a second, and is not nothing.
    assert found.lateness.max_ms is not None
    assert overview._lateness(found).startswith("lateness p50 ")


def test_status_without_a_database_is_one_line(stage: Stage) -> None:
    done = stage.here("status")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: There is no database")
    assert not stage.database.exists()


def test_top_in_a_pipe_is_a_line_or_an_object_each_time(late: Stage) -> None:
    lines = late.lines("top", "--count", "2", "--every", "0.1")
    assert len(lines) == 2
    assert "late=1" in lines[0]
    assert lines[0][-1] == "late,discarded,workers"
    done = late.here("top", "--json", "--count", "2", "--every", "0.1")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["counts"] == second["counts"] == late.json("status")["counts"]
    assert first["now"] < second["now"]
    assert late.here("jobs", "retry", "2").exit_code == 0
    assert "discarded" not in late.lines("top", "--count", "1")[0][-1], "it was put back"


def test_top_in_a_pipe_goes_on_until_it_is_told(late: Stage) -> None:
    process = subprocess.Popen(
        [*COMMAND, "top", "--json", "--every", "0.1"], cwd=late.folder, env=late.environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        for _ in range(3):
            assert json.loads(process.stdout.readline())["counts"]["late"] == 1
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert (process.returncode, error) == (0, "")


def test_top_on_a_terminal_shows_the_trouble_and_ends_with_q(late: Stage) -> None:
    ours, theirs = pty.openpty()
    environment = late.environment | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(
        [*COMMAND, "top", "--every", "0.1"], cwd=late.folder, env=environment, stdin=theirs, stdout=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while b"Start one: oncue worker" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, b"q")
        with contextlib.suppress(OSError):  # Linux says so when the other side has closed
            while more := os.read(ours, 4096):
                shown += more
    os.close(ours)
    assert process.returncode == 0
    for part in (
        "1 job late. 1 job discarded in the past hour. 1 check needs you.",
        "past hour",
        "next 10 min",
        "none is registered",
        "job 3 (greet), due ",
        "RuntimeError: no luck",
    ):
        assert part in shown.decode()
