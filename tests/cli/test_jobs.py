"""``oncue jobs``: what a person at 3 a.m. looks at and does."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import sqlite3
import subprocess
from contextlib import closing
from typing import Any

import pytest

from tests.cli.stage import COMMAND, Stage


@pytest.fixture
def filled(stage: Stage) -> Stage:
    """Job 1 completed, 2 discarded, 3 waiting with a key, 4 waiting in a group and another queue."""
    names = stage.load()

    async def fill() -> None:
        async with names["app"] as app:
            await app.schedule(names["greet"].call("Ana"))
            await app.schedule(names["fail"].call("Bo\tand \x1b[31mred"))
            await app.drain()
            await app.schedule(names["greet"].call("Cy"), delay=3600, key="key-3", metadata={"from": "web"})
            await app.schedule(names["hang"].call(), delay=7200, group="group-4", queue="slow")

    asyncio.run(fill())
    return stage


def ids(rows: list[list[str]]) -> list[str]:
    return [row[0] for row in rows]


def test_a_pipe_gets_a_line_for_each_job_the_newest_first(filled: Stage) -> None:
    rows = filled.lines("jobs", "list")
    assert ids(rows) == ["4", "3", "2", "1"]
    assert rows[3][:5] == ["1", "completed", "greet", '{"name":"Ana"}', "default"]
    assert all(len(row) == 10 for row in rows)
    assert not any("\x1b" in field for row in rows for field in row)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--state", "scheduled"], ["4", "3"]),
        (["--state", "completed", "--state", "discarded"], ["2", "1"]),
        (["--task", "greet"], ["3", "1"]),
        (["--queue", "slow"], ["4"]),
        (["--key", "key-3"], ["3"]),
        (["--group", "group-4"], ["4"]),
        (["--limit", "2"], ["4", "3"]),
        (["--before", "3", "--limit", "1"], ["2"]),
        (["--task", "greet", "--state", "running"], []),
    ],
    ids=" ".join,
)
def test_filters(filled: Stage, filters: list[str], found: list[str]) -> None:
    assert ids(filled.lines("jobs", "list", *filters)) == found


def test_json_holds_all_that_is_known_with_times_in_iso_8601(filled: Stage) -> None:
    (job,) = filled.json("jobs", "list", "--key", "key-3")
    assert job["id"] == 3
    assert job["args"] == {"name": "Cy"}
    assert job["metadata"] == {"from": "web"}
    assert job["key"] == "key-3"
    assert job["finished_at"] is None
    assert job["cancel_requested"] is False
    assert job["scheduled_at"].endswith("Z")
    assert job["scheduled_at"] > job["created_at"]


def test_show_tells_the_life_of_a_job_that_failed(filled: Stage) -> None:
    done = filled.here("jobs", "show", "2")
    assert done.exit_code == 0
    assert done.stdout.startswith("job 2: fail(name=")
    assert "\x1b" not in done.stdout
    for part in (
        "discarded",
        "its only attempt failed",
        "attempt 1: discarded",
        "RuntimeError: no Bo",
        "trial.py",
        "Traceback",
    ):
        assert part in done.stdout
    told = filled.json("jobs", "show", "2")
    assert told["job"]["state"] == "discarded"
    (attempt,) = told["attempts"]
    assert (attempt["attempt"], attempt["outcome"]) == (1, "discarded")
    assert attempt["started_at"] <= attempt["finished_at"]


def test_show_tells_why_a_job_waits(filled: Stage) -> None:
    told = filled.json("jobs", "show", "3")
    assert told["why"].startswith("it is due at ")
    assert told["attempts"] == []
    assert filled.here("queues", "pause", "default").exit_code == 0
    assert "its queue 'default' is paused" in filled.json("jobs", "show", "3")["why"]
    assert "paused" in filled.here("jobs", "show", "3").stdout


def test_show_of_no_job_fails(filled: Stage) -> None:
    for id in ("99", "99999999999999999999"):
        done = filled.here("jobs", "show", id)
        assert done.exit_code == 1
        assert f"There is no job {id}" in done.stderr


def test_cancel_says_what_came_of_each(filled: Stage) -> None:
    done = filled.here("jobs", "cancel", "4", "--key", "key-3")
    assert (done.exit_code, done.stdout) == (0, "4\tprevented\nkey-3\tprevented\n")
    done = filled.here("jobs", "cancel", "1", "--key", "nothing")
    assert (done.exit_code, done.stdout) == (1, "1\ttoo late\nnothing\ttoo late\n")
    assert filled.here("jobs", "cancel").exit_code == 2
    assert ids(filled.lines("jobs", "list", "--state", "cancelled")) == ["4", "3"]


def test_retry_and_run_now_do_what_they_can_and_fail_where_they_can_not(filled: Stage) -> None:
    done = filled.here("jobs", "retry", "1", "2", "99")
    assert done.exit_code == 1
    assert done.stdout == "2\tdue now\n"
    assert done.stderr.startswith("1\tJob 1 is completed")
    assert "99\t" in done.stderr
    assert filled.here("jobs", "run-now", "3").stdout == "3\tdue now\n"
    due = filled.json("jobs", "counts")
    assert (due["due"], due["scheduled"], due["completed"]) == (2, 1, 1)
    assert filled.here("drain", "trial:app").exit_code == 0
    assert filled.json("jobs", "show", "3")["job"]["state"] == "completed"
    assert filled.json("jobs", "show", "2")["job"]["attempt"] == 2


def test_counts_in_a_pipe(filled: Stage) -> None:
    counted = dict(filled.lines("jobs", "counts"))
    assert (counted["scheduled"], counted["completed"], counted["discarded"]) == ("2", "1", "1")
    assert counted["next_due"].endswith("Z")


def on_a_terminal(stage: Stage, *arguments: str) -> str:
    """What the command shows where its output is a terminal, with colours taken out."""
    ours, theirs = pty.openpty()
    environment = stage.environment | {"COLUMNS": "100", "TERM": "xterm"}
    with subprocess.Popen([*COMMAND, *arguments], cwd=stage.folder, env=environment, stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        while part := _read(ours):
            shown += part
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the other side has closed
        return b""


def test_a_terminal_gets_a_table_without_what_is_empty(filled: Stage) -> None:
    shown = on_a_terminal(filled, "jobs", "list", "--task", "greet")
    for part in ("state", "Ana", "completed", "key-3", "ago", "in 60 min"):
        assert part in shown
    assert "group" not in shown
    assert "\x1b[31mred" not in on_a_terminal(filled, "jobs", "list")
    assert "(no such jobs)" in on_a_terminal(filled, "jobs", "list", "--task", "none")


def test_a_worker_that_hears_late_leaves_room_for_the_other_columns(filled: Stage) -> None:
    with closing(sqlite3.connect(filled.database)) as conn, conn:
        conn.execute(
            "INSERT INTO oncue_worker (id, name, host, pid, started_at, seen_at, lease_until, wake, wake_since) "
            "SELECT 9, 'deaf-1', 'elsewhere', 1, now, now, now + 60000000, 'LISTEN failed: ' || hex(zeroblob(100)), "
            "now - 5000000 FROM (SELECT unixepoch() * 1000000 AS now)"
        )
    shown = on_a_terminal(filled, "workers").splitlines()
    assert re.search(r"9 +deaf-1 .*alive", "\n".join(shown))
    assert any(re.match(r"deaf-1 hears late, since \S+ s ago: LISTEN failed: 000", line) for line in shown)
    (row,) = filled.lines("workers")
    assert row[-1].startswith("LISTEN failed: 000")


def test_the_module_and_the_command_answer_alike(filled: Stage) -> None:
    answer: Any = json.loads(filled.apart("jobs", "counts", "--json").stdout)
    assert answer == filled.json("jobs", "counts")
