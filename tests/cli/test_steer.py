"""``oncue jobs cancel``, ``retry``, ``run-now`` and ``reschedule``: on one, or on all that match a filter."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
from datetime import UTC, datetime

import pytest

from oncue.clock import SystemClock
from oncue.operate.shape import from_iso
from tests.cli.stage import COMMAND, Stage


@pytest.fixture
def filled(stage: Stage) -> Stage:
    """Jobs 1 to 3 discarded; 4 to 6 wait: for an hour, two and three, in the queue slow."""
    names = stage.load()

    async def fill() -> None:
        async with names["app"] as app:
            for name in ("Ana", "Bo", "Cy"):
                await app.schedule(names["fail"].call(name))
            await app.drain()
            for hours in (1, 2, 3):
                await app.schedule(names["greet"].call(f"n{hours}"), delay=3600 * hours, queue="slow")

    asyncio.run(fill())
    return stage


def states(stage: Stage) -> list[str]:
    return [row[1] for row in reversed(stage.lines("jobs", "list"))]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--due-after", "+90m"], ["6", "5"]),
        (["--due-before", "+90m", "--state", "scheduled"], ["4"]),
        (["--due-after", "+90m", "--due-before", "+150m"], ["5"]),
        (["--finished-after", "-1h"], ["3", "2", "1"]),
        (["--finished-before", "-1h"], []),
        (["--text", "n2"], ["5"]),
        (["--text", "no Bo"], ["2"]),
        (["--late"], []),
        (["--state", "due"], []),
        (["--state", "blocked", "--state", "scheduled", "--limit", "1"], ["6"]),
    ],
    ids=" ".join,
)
def test_filters_of_a_list(filled: Stage, filters: list[str], found: list[str]) -> None:
    assert [row[0] for row in filled.lines("jobs", "list", *filters)] == found


def test_a_time_may_be_absolute(filled: Stage) -> None:
    (job,) = filled.json("jobs", "list", "--text", "n2")
    at = job["scheduled_at"]
    assert [row[0] for row in filled.lines("jobs", "list", "--due-after", at)] == ["6", "5"]
    for wrong in ("tomorrow", "2026-11-30T10:00:00", "5m", "-5y", "-999999999d"):
        done = filled.here("jobs", "list", "--due-after", wrong)
        assert done.exit_code == 2, wrong
        assert "Traceback" not in done.stderr


def test_a_filtered_many_needs_yes_where_nobody_can_be_asked(filled: Stage) -> None:
    done = filled.here("jobs", "cancel", "--queue", "slow", "--due-after", "+90m")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "2 jobs match, and nothing was done" in done.stderr
    assert "--yes" in done.stderr
    assert states(filled) == ["discarded"] * 3 + ["scheduled"] * 3
    done = filled.here("jobs", "cancel", "--queue", "slow", "--due-after", "+90m", "--yes")
    assert (done.exit_code, done.stdout) == (0, "cancel: 2 done.\n")
    assert states(filled) == ["discarded"] * 3 + ["scheduled"] + ["cancelled"] * 2


def test_retry_of_all_that_were_given_up_is_one_line_of_the_audit(filled: Stage) -> None:
    assert filled.json("jobs", "retry", "--task", "fail", "--yes") == {
        "done": 3,
        "refused": [],
        "text": "retry: 3 done.",
    }
    assert states(filled) == ["scheduled"] * 6
    (entry,) = filled.json("audit")
    assert (entry["action"], entry["target"], entry["count"]) == ("retry", "jobs", 3)
    assert entry["detail"]["filter"] == {"task": "fail"}
    done = filled.here("jobs", "retry", "--task", "fail", "--yes")
    assert (done.exit_code, done.stdout) == (0, "retry: no job matches that it could be done to.\n")


def test_reschedule_by_id_and_by_filter(filled: Stage) -> None:
    assert filled.here("jobs", "reschedule", "4", "--at", "2031-05-01T12:00:00+02:00").stdout == (
        "4\tdue at 2031-05-01T10:00:00.000000Z\n"
    )
    before = SystemClock().now()
    assert filled.here("jobs", "reschedule", "--queue", "slow", "--delay", "60", "--yes").exit_code == 0
    for job in filled.json("jobs", "list", "--queue", "slow"):
        assert 60 <= (from_iso(job["scheduled_at"]) - before) / 1e6 < 120
    done = filled.here("jobs", "reschedule", "1", "4", "--at", "+1h")
    assert done.exit_code == 1
    assert done.stdout.startswith("4\tdue at ")
    assert done.stderr.startswith("1\tJob 1 is discarded")
    refused, moved = filled.json("jobs", "reschedule", "1", "4", "--at", "+1h", code=1)
    assert (refused["id"], refused["done"], moved["done"]) == (1, False, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["cancel"],
        ["retry"],
        ["retry", "1", "--task", "fail"],
        ["run-now", "--yes"],
        ["cancel", "--key", "a", "--key", "b", "--task", "fail"],
        ["reschedule", "4"],
        ["reschedule", "4", "--at", "+1h", "--delay", "3"],
        ["retry", "--task", ""],
        ["retry", "0"],
    ],
    ids=" ".join,
)
def test_what_names_no_jobs_or_two_ways_is_refused(filled: Stage, arguments: list[str]) -> None:
    assert filled.here("jobs", *arguments).exit_code == 2
    assert filled.json("audit") == []


def test_cancel_by_key_and_filter_takes_the_key_as_one(stage: Stage) -> None:
    names = stage.load()

    async def fill() -> None:
        async with names["app"] as app:
            for key in ("one", "two"):
                await app.schedule(names["greet"].call(key), delay=3600, key=key)

    asyncio.run(fill())
    assert stage.here("jobs", "cancel", "--key", "one", "--task", "greet", "--yes").stdout == "cancel: 1 done.\n"
    assert stage.json("jobs", "cancel", "2", "--key", "one", code=1) == [
        {"id": 2, "done": True, "text": "It is cancelled, and will not run.", "answer": "prevented"},
        {"key": "one", "done": False, "text": "Nothing that waits or runs has that key.", "answer": "too late"},
    ]


def test_an_id_that_no_job_can_have_is_no_job(filled: Stage) -> None:
    huge = "9" * 30
    assert filled.here("jobs", "cancel", huge).stdout == f"{huge}\ttoo late\n"
    done = filled.here("jobs", "retry", huge, "1")
    assert (done.exit_code, done.stdout) == (1, "1\tdue now\n")
    assert "There is no job" in done.stderr
    assert filled.here("jobs", "list", "--before", huge).exit_code == 1
    assert filled.here("jobs", "list", "--task", "\udcff").exit_code == 2
    assert filled.here("queues", "pause", "\udcff").exit_code == 1


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1)])
def test_a_person_is_asked_with_the_count(filled: Stage, answer: bytes, code: int) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "jobs", "run-now", "--queue", "slow"], cwd=filled.folder, env=filled.environment,
        stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(ours, 4096)
        assert b"Run now: 3 jobs." in shown
        os.write(ours, answer)
        assert process.stdout is not None
        said = process.stdout.read()
    os.close(ours)
    assert (process.returncode, said) == (code, "run-now: 3 done.\n" if code == 0 else "")
    due = [from_iso(job["scheduled_at"]) for job in filled.json("jobs", "list", "--queue", "slow")]
    now = datetime.now(UTC).timestamp() * 1e6
    assert all((at <= now) is (code == 0) for at in due)


def test_a_paused_task_waits_for_all_workers(filled: Stage) -> None:
    assert filled.here("tasks", "pause", "greet").stdout == "greet\tpaused\n"
    assert filled.here("tasks", "pause", "greet").stdout == "greet\tpaused\n"
    assert filled.here("jobs", "run-now", "4").exit_code == 0
    assert filled.json("drain", "trial:app")["ran"] == 0
    task = {row["name"]: row for row in filled.json("tasks", "list")}["greet"]
    # What a claim met of it is parked, and no more due until it is resumed.
    assert (task["paused"], task["due"], task["scheduled"], task["blocked"]) == (True, 0, 2, 1)
    assert "greet is paused" in filled.here("doctor").stdout
    assert filled.here("tasks", "resume", "greet").stdout == "greet\tresumed\n"
    assert filled.here("tasks", "resume", "greet").stdout == "greet\twas not paused\n"
    assert filled.json("drain", "trial:app")["ran"] == 1
    said = "No worker and no job knows a task 'great'; tasks that are known: fail, greet."
    unknown = filled.here("tasks", "pause", "great")
    assert (unknown.exit_code, unknown.stdout, unknown.stderr) == (0, "great\tpaused\n", f"{said}\n")
    assert said in filled.json("tasks", "pause", "great")["text"]
    assert [(one["action"], one["target"]) for one in filled.json("audit", "--target", "task:greet")] == [
        ("resume", "task:greet"),
        ("pause", "task:greet"),
    ]
