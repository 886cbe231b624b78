"""Logs: one JSON object a line whatever was logged, and each line about a job says which."""

from __future__ import annotations

import io
import json
import logging
import logging.handlers
import queue
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oncue import JobContext, OnCue, Retry
from oncue.logs import JobFilter, JsonFormatter, TextFormatter, about, to_stderr
from oncue.testing import TestClock
from tests.cli.stage import Running, environment
from tests.metrics.test_recorder import claimed

APP = """
import logging
from oncue import OnCue, Retry

app = OnCue()

@app.task(name="send", retry=Retry.never())
async def send() -> None:
    logging.getLogger("mine").info("sending")
    raise ValueError("no such person")
"""


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """What is logged while the test runs, as JSON."""
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(JsonFormatter())
    root, before = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler.stream
    root.removeHandler(handler)
    root.setLevel(before)


def lines(said: io.StringIO, logger: str = "") -> list[dict[str, Any]]:
    return [line for line in map(json.loads, said.getvalue().splitlines()) if line["logger"].startswith(logger)]


def record(message: object = "hello", *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("mine", logging.WARNING, "file.py", 1, message, args, None)
    made.__dict__ |= extra
    return made


async def test_each_line_about_a_job_says_job_task_attempt_and_key(
    app: OnCue, clock: TestClock, said: io.StringIO
) -> None:
    @app.task(name="send", retry=Retry(max_attempts=2))
    async def send(job: JobContext) -> None:
        logging.getLogger("mine").info("from a coroutine")
        raise ValueError("no")

    @app.task(name="call")
    def call() -> None:
        logging.getLogger("mine").info("from a thread")

    async with app:
        job = await app.schedule(send.call(), key="send-ana")
        other = await app.schedule(call.call())
        await app.drain(limit=2)
        clock.advance(3600)
        await app.drain()

    first = {"job": job.id, "task": "send", "attempt": 1, "key": "send-ana"}
    second = first | {"attempt": 2}
    found = [
        (line["message"], {name: line[name] for name in first}) for line in lines(said, "mine") + lines(said, "oncue")
    ]
    told = dict.fromkeys(message for message, _ in found)
    assert [facts for message, facts in found if message == "from a coroutine"] == [first, second]
    assert [facts for message, facts in found if "attempt 1 of 2 failed" in message] == [first]
    assert [facts for message, facts in found if "discarded" in message] == [second]
    thread = {"job": other.id, "task": "call", "attempt": 1, "key": None}
    assert [facts for message, facts in found if message == "from a thread"] == [thread]
    assert len(told) == 4


def test_a_line_outside_a_job_is_about_none() -> None:
    text = JsonFormatter().format(record("hello\nthere \udcff"))

    line = json.loads(text)
    assert sorted(line) == ["level", "logger", "message", "time"]
    assert line["message"] == "hello\nthere \udcff"
    assert line["time"].endswith("Z")
    assert len(line["time"]) == len("2026-11-30T17:20:01.123456Z")
    assert text.isascii()


def test_an_exception_and_what_the_call_gave_are_told_too(said: io.StringIO) -> None:
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("mine").exception("it failed", extra={"order": 17, "who": object, **about(claimed(5))})

    (line,) = lines(said)
    assert (line["level"], line["error"], line["job"]) == ("error", "ValueError: no", 5)
    assert line["traceback"].endswith("ValueError: no")
    assert line["extra"] == {"order": 17, "who": "<class 'object'>"}


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize(
    "made",
    [
        record("%s and %s", 1),
        record("%d", "x"),
        record(Unspeakable()),
        record("hello", what=Unspeakable()),
        record("hello", what=float("nan")),
        record("hello", what={1: {2}}),
        record("hello", exc_info=(Unspeakable, Unspeakable(), None)),
    ],
    ids=range(7),
)
def test_whatever_was_logged_is_one_line_of_json(made: logging.LogRecord) -> None:
    line = JsonFormatter().format(made)

    assert "\n" not in line
    assert json.loads(line, parse_constant=pytest.fail)["level"] == "warning"


async def test_a_line_that_is_formatted_elsewhere_still_knows_its_job(app: OnCue) -> None:
    passed: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(passed)
    handler.addFilter(JobFilter())
    logger = logging.getLogger("mine.queued")
    logger.addHandler(handler)

    @app.task(name="send")
    async def send() -> None:
        logger.warning("sending")

    try:
        async with app:
            job = await app.schedule(send.call(), key="k")
            await app.drain()
    finally:
        logger.removeHandler(handler)

    made = passed.get_nowait()
    assert json.loads(JsonFormatter().format(made))["job"] == job.id
    assert TextFormatter().format(made).endswith(f"mine.queued: sending [job={job.id} task=send attempt=1 key=k]")


def test_an_application_that_logs_by_itself_is_left_alone() -> None:
    before = list(logging.getLogger().handlers)
    to_stderr("info", "json")

    assert logging.getLogger().handlers == before


@pytest.mark.parametrize("format", ["json", "text"])
async def test_a_worker_logs_in_the_format_that_it_is_told(tmp_path: Path, format: str) -> None:
    (tmp_path / "trial.py").write_text(APP)
    worker = Running(tmp_path, environment(tmp_path / "trial.db"), ["worker", "trial:app", "--log-format", format])
    try:
        ready = worker.says("ready")
        app = OnCue(f"sqlite:///{tmp_path / 'trial.db'}")

        @app.task(name="send", retry=Retry.never())
        async def send() -> None: ...

        async with app:
            job = await app.schedule(send.call(), key="k")
        found = [worker.says("sending"), worker.says("discarded")]
        if format == "json":
            facts = {"job": job.id, "task": "send", "attempt": 1, "key": "k"}
            assert all(json.loads(line).items() >= facts.items() for line in found)
            assert json.loads(ready)["message"].startswith("oncue: worker ")
        else:
            assert all(line.endswith(f"[job={job.id} task=send attempt=1 key=k]") for line in found)
            assert ready.startswith("oncue: worker ")
        before = len(worker.said)
        assert worker.ends(signal.SIGTERM) == 0
        rest = "".join(worker.said[before:]).splitlines()
        assert any("SIGTERM: stopping" in line for line in rest)
        assert format == "text" or all(json.loads(line)["level"] for line in rest)
    finally:
        worker.close()


async def test_an_error_forges_no_line_and_tells_nothing_hidden(app: OnCue, caplog: pytest.LogCaptureFixture) -> None:
    app.redact("phone")

    @app.task(name="send", retry=Retry(2))
    async def send(phone: str) -> None:
        raise ValueError(f"nobody at {phone}\n2026-12-01 ERROR all is lost \x1b[2J\u202e")

    async with app:
        await app.schedule(send.call("+49 170 1"), key="k")
        await app.drain()
    (line,) = [TextFormatter().format(record) for record in caplog.records if "nobody" in record.getMessage()]
    assert line.isprintable()
    assert "nobody at •••\\n2026-12-01" in line
    assert line.endswith("key=k]")
