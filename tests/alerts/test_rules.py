"""What each rule finds, and that it finds nothing where all is well. The clock is moved."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from oncue import OnCue
from oncue.alerts import Discards, Drift, Late, Paused, Rule, Workers
from oncue.errors import ConfigError
from oncue.retry import Discard
from oncue.store import Claim, WorkerRow
from oncue.testing import TestClock
from tests.clocked import Make
from tests.databases import Backend

HOUR = 3600.0


def nobody(_: object) -> None: ...


async def test_late_jobs_are_found_with_the_queue_of_the_first(app: OnCue, clock: TestClock) -> None:
    @app.task(name="send")
    async def send() -> None: ...

    late = Late(after=30)
    async with app:
        await app.schedule(send.call(), queue="mail")
        await app.schedule(send.call(), queue="slow", delay=20)
        assert await late.find(app) is None
        clock.advance(29)
        assert await late.find(app) is None
        clock.advance(22)

        assert await late.find(app) == "2 jobs late, the first for 51 s in queue mail"
        assert await Late(after=30, queue="slow").find(app) == "1 job late, the first for 31 s in queue slow"
        assert await Late(after=30, jobs=3).find(app) is None
        # Where somebody has paused it, that is told by another rule.
        await app.store.set_queue("mail", True)
        assert await late.find(app) == "1 job late, the first for 31 s in queue slow"


async def test_a_stuck_group_is_late_too_and_what_a_limit_or_a_restore_holds_is_not(
    app: OnCue, clock: TestClock
) -> None:
    @app.task(name="send")
    async def send() -> None:
        raise ValueError

    async with app:
        for _ in range(2):
            await app.schedule(send.call(), group="g")
        await app.drain(limit=1)
        # Between attempts the first holds its group, so the second stands behind it.
        clock.advance(0.1)
        await app.drain(limit=1)
        clock.advance(0.01)
        found = await Late(after=0.05).find(app)
        assert found is not None
        assert "wait behind others" in found
        await app.store.hold_due(clock.now())
        clock.advance(HOUR)
        await app.cancel(id=1)
        assert await Late().find(app) is None


async def test_discards_are_found_for_as_long_as_they_are_recent(app: OnCue, clock: TestClock) -> None:
    @app.task(name="send")
    async def send() -> None:
        raise Discard("no such person")

    discards = Discards(jobs=2, within=600)
    async with app:
        await app.schedule(send.call())
        await app.drain()
        assert await discards.find(app) is None
        job = await app.schedule(send.call())
        await app.drain()

        assert await discards.find(app) == f"2 jobs discarded in the last 10 min, the last one job {job.id} (send)"
        clock.advance(601)
        assert await discards.find(app) is None


async def test_workers_that_are_missing_or_dead_with_jobs_are_found(app: OnCue, clock: TestClock) -> None:
    async with app:
        assert await Workers().find(app) == "0 workers are alive, and there should be 1 at least"
        now = clock.now()
        row = WorkerRow(0, "one", "elsewhere", 1, None, now, now, now + 10_000_000)
        await app.store.register(row)
        assert await Workers().find(app) is None
        assert await Workers(at_least=2).find(app) == "1 worker is alive, and there should be 2 at least"
        clock.advance(121)
        assert await Workers().find(app) == "0 workers are alive, and there should be 1 at least"


async def test_a_worker_that_died_with_jobs_is_found_until_that_is_a_while_ago(app: OnCue, clock: TestClock) -> None:
    @app.task(name="send")
    async def send() -> None: ...

    async def register(name: str) -> int:
        now = clock.now()
        row = WorkerRow(0, name, "elsewhere", 1, None, now, now, now + 10_000_000)
        return (await app.store.register(row))[0]

    workers = Workers(within=600)
    async with app:
        await app.schedule(send.call())
        dies = await register("dies")
        found = await app.store.claim(Claim(dies, clock.now(), clock.now(), 10_000_000, 1))
        assert len(found.jobs) == 1
        clock.advance(11)
        await register("lives")
        assert await workers.find(app) is None
        await app.service(worker=False).sweep()
        assert await workers.find(app) == "a worker died or fell silent with jobs in hand, which run again"
        assert app.metrics.rescued == 1
        clock.advance(601)
        await register("lives on")
        assert await workers.find(app) is None


async def test_what_was_paused_for_too_long_is_found(app: OnCue, clock: TestClock) -> None:
    async with app:
        await app.store.set_queue("mail", True)
        clock.advance(HOUR - 1)
        assert await Paused(after=HOUR).find(app) is None
        clock.advance(2)
        assert await Paused(after=HOUR).find(app) == "queue mail is paused for 60 min"
        await app.store.set_queue("mail", False)
        assert await Paused(after=HOUR).find(app) is None


async def test_a_source_whose_rows_cant_be_read_is_found(make: Make, backend: Backend, clock: TestClock) -> None:
    if not backend.is_sqlite:
        pytest.skip("a source is the same to a rule on every database")
    path = backend.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE visit (id INTEGER PRIMARY KEY, due TEXT)")
        conn.execute("INSERT INTO visit VALUES (1, 'soon')")
        conn.commit()
    app = make()

    @app.task(name="remind")
    async def remind(id: int) -> None: ...

    app.source("visit", key="visit-{id}", due="due", task=remind)
    async with app:
        assert await Drift().find(app) is None
        service = app.service(worker=False)
        await service.sweep()
        assert await Drift().find(app) == "source visit finds rows that it can't make jobs of"
        with closing(sqlite3.connect(path)) as conn:
            conn.execute("DELETE FROM visit")
            conn.commit()
        await service.sweep()
        assert await Drift().find(app) is None
        clock.advance(601)
        assert await Drift().find(app) == "source visit was not swept for 10 min"


@pytest.mark.parametrize(
    ("rules", "to", "wrong"),
    [
        ([Late()], None, "nobody to tell"),
        ([Late(), Late(after=5)], nobody, "an alert 'late' already"),
        ([Late(to="ftp://example.com/x")], None, "a URL such as https"),
        ([Late(to="hooks.example.com/x")], None, "a URL such as https"),
        ([Late(to=5)], None, "a URL or a function, not 5"),  # type: ignore[arg-type]
    ],
)
def test_an_alert_that_cant_work_is_refused_where_it_is_declared(rules: list[Rule], to: object, wrong: str) -> None:
    app = OnCue("sqlite:///unused.db")
    with pytest.raises(ConfigError, match=wrong):
        app.alert(*rules, to=to)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"after": -1}, {"jobs": 0}, {"repeat": 0}, {"after": float("nan")}])
def test_a_rules_figures_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"takes {next(iter(wrong))} from"):
        Late(**wrong)  # type: ignore[arg-type]


def test_nobody_is_alerted_from_tests_of_an_application(tmp_path: object) -> None:
    app = OnCue("sqlite:///unused.db", alerts=[Late(to=nobody)])
    with app.bound_to(f"sqlite:///{tmp_path}/test.db", TestClock()):
        assert not app.alerts.rules
    assert list(app.alerts.rules) == ["late"]


def test_a_hooks_address_is_its_password_and_not_shown() -> None:
    assert "secret" not in repr(Late(to="https://example.com/secret"))
