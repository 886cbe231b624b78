"""What is declared, and what a job of BullMQ becomes: without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oncue import NodeJob, OnCue, Scheduled, errors
from oncue.bridge import adopters
from oncue.bridge.nodejob import Refused, StaysWithNode, read, to_store
from oncue.job import NewJob
from oncue.task import Call

NOW = 1_800_000_000_000_000
FIELDS = {"name": "q", "data": '{"a": 1}', "opts": "{}", "timestamp": "1764000000000", "delay": "2500", "priority": "0"}


def app_of(**options: Any) -> OnCue:
    return OnCue("sqlite:///never-opened.db", **options)


def choose(job: NodeJob) -> None:
    return None


def stored(fields: dict[str, str], score: float | None = None, /, **options: Any) -> NewJob:
    app = app_of()

    @app.task(priority=-7)
    async def send() -> None: ...

    chosen: Call[Any] | Scheduled = Scheduled(send.call(), **options) if options else send.call()
    return to_store(read("q", "1", FIELDS | fields, score, is_parent=False), chosen, NOW)


def test_a_job_is_due_at_its_timestamp_and_delay() -> None:
    assert stored({}).scheduled_at == 1_764_000_002_500_000
    # The place among the delayed ones says it where changeDelay() has moved it: milliseconds x 4096 and a number.
    assert stored({"delay": "7"}, 1_764_000_009_000 * 4096.0 + 17).scheduled_at == 1_764_000_009_000_000
    at = datetime(2027, 3, 1, tzinfo=UTC)
    assert stored({}, at=at).scheduled_at == int(at.timestamp()) * 1_000_000
    assert stored({}, delay=timedelta(seconds=2)).scheduled_at == NOW + 2_000_000


@pytest.mark.parametrize(("theirs", "ours"), [(0, -7), (1, 1), (99, 99), (100, 100), (101, 100), (2_097_152, 100)])
def test_priorities_keep_their_order(theirs: int, ours: int) -> None:
    assert stored({"priority": str(theirs)}).priority == ours
    assert stored({"priority": str(theirs)}, priority=4).priority == 4


def test_attempts_are_what_the_producer_said_or_the_tasks() -> None:
    assert stored({}).max_attempts == 5
    assert stored({"opts": '{"attempts": 3}'}).max_attempts == 3
    assert stored({"opts": '{"attempts": 0}'}).max_attempts == 5
    assert stored({"opts": '{"attempts": 3}'}, max_attempts=9).max_attempts == 9


@pytest.mark.parametrize(
    "fields",
    [{"data": "{"}, {"opts": "[]"}, {"timestamp": "soon"}, {"timestamp": "-1", "delay": "0"}, {"delay": "9" * 30},
     {"priority": "high"}],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(Refused, match="can't be read"):
        read("q", "1", FIELDS | fields, None, is_parent=False)


@pytest.mark.parametrize("id", ["a\0b", "x" * 501])
def test_an_id_that_no_database_takes_is_refused(id: str) -> None:
    with pytest.raises(Refused, match="its id"):
        read("q", id, FIELDS, None, is_parent=False)


def test_parents_of_flows_stay_with_node() -> None:
    with pytest.raises(StaysWithNode, match="parents of a flow"):
        read("q", "1", FIELDS, None, is_parent=True)


def test_what_is_no_call_is_refused() -> None:
    job = read("q", "1", FIELDS, None, is_parent=False)
    with pytest.raises(errors.InvalidArguments, match=r"returned 'send'; it returns a call, a Scheduled or None"):
        to_store(job, "send", NOW)  # type: ignore[arg-type]


def test_the_server_is_the_declarations_the_wakes_or_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(app: OnCue) -> tuple[str, str]:
        (made,) = adopters(app)
        return made._link.url.dsn, made._link.name

    app = app_of()
    app.adopt("q")(choose)
    with pytest.raises(errors.ConfigError, match=r"No Redis is known for the BullMQ queue 'q'.*REDIS_URL"):
        adopters(app)
    monkeypatch.setenv("REDIS_URL", "redis://environment")
    assert name(app) == ("redis://environment", "bull:q")
    app = app_of(wake="redis://wake/3?prefix=ours&queue=oncue")
    app.adopt("q")(choose)
    assert name(app) == ("redis://wake/3", "ours:q")
    app = app_of(wake="redis://wake?prefix=ours")
    app.adopt("q", redis="redis://own", prefix="{theirs}")(choose)
    assert name(app) == ("redis://own", "{theirs}:q")


@pytest.mark.parametrize(
    ("queue", "options", "said"),
    [
        ("a:b", {}, "without ':'"),
        ("", {}, "printable characters"),
        ("q", {"redis": "http://host"}, "no Redis URL"),
        ("q", {"prefix": ""}, "prefix"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(queue: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(errors.ConfigError, match=said):
        app_of().adopt(queue, **options)(choose)


def test_a_queue_is_adopted_once_by_a_plain_function() -> None:
    app = app_of()

    async def later(job: NodeJob) -> None: ...

    with pytest.raises(errors.ConfigError, match="a plain function of a NodeJob, without async"):
        app.adopt("q")(later)  # type: ignore[arg-type]
    app.adopt("q")(choose)
    app.adopt("q", prefix="other")(choose)
    with pytest.raises(errors.ConfigError, match="'q' is adopted twice"):
        app.adopt("q")(choose)
