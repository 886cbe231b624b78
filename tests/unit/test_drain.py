"""The drain: a bounded worker's life, truthful in its counts, safe beside workers and other drains."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from oncue import Discard, JobContext, Limit, OnCue, Retry, Scheduled, Snooze
from oncue.clock import from_us
from oncue.errors import ConfigError, StoreError
from oncue.worker import WorkerOptions
from tests.databases import sqlite_of


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


async def test_a_drain_runs_what_is_due_and_leaves_the_rest(url: str) -> None:
    app, ran = OnCue(url), []

    @app.task(name="note")
    async def note(n: int) -> None:
        ran.append(n)

    async with app:
        later = await app.schedule(note.call(9), delay=3600)
        await app.schedule_many([note.call(n) for n in range(5)])
        done = await app.drain()
    assert (done.ran, done.failed, done.skipped, done.remaining) == (5, 0, 0, 0)
    assert sorted(ran) == [0, 1, 2, 3, 4]
    assert done.next_due == later.scheduled_at
    assert done.next_due.tzinfo is UTC


async def test_an_empty_database_drains_to_nothing(url: str) -> None:
    done = await OnCue(url).drain()
    assert (done.ran, done.failed, done.skipped, done.remaining, done.next_due) == (0, 0, 0, 0, None)


async def test_the_count_budget_is_exact_and_the_rest_is_counted(url: str) -> None:
    app, ran = OnCue(url), []

    @app.task(name="note")
    async def note(n: int) -> None:
        ran.append(n)

    async with app:
        await app.schedule_many([note.call(n) for n in range(10)])
        first = await app.drain(limit=3)
        assert (first.ran, first.remaining, len(ran)) == (3, 7, 3)
        assert first.next_due is not None
        assert first.next_due <= datetime.now(UTC)
        second = await app.drain(limit=100)
    assert (second.ran, second.remaining, second.next_due) == (7, 0, None)
    assert sorted(ran) == list(range(10))


async def test_each_outcome_is_counted_where_it_belongs(url: str) -> None:
    app = OnCue(url)

    @app.task(name="fine")
    async def fine() -> None: ...

    @app.task(name="again", retry=Retry(max_attempts=3))
    async def again() -> None:
        raise ValueError("no")

    @app.task(name="never", retry=Retry.never())
    async def never() -> None:
        raise ValueError("no")

    @app.task(name="give_up")
    async def give_up() -> None:
        raise Discard("pointless")

    @app.task(name="later")
    async def later() -> None:
        raise Snooze(3600)

    @app.task(name="late", max_late=1, when_late="skip")
    async def late() -> None:
        raise AssertionError("must be skipped")

    async with app:
        await app.schedule_many([fine.call(), again.call(), never.call(), give_up.call(), later.call()])
        await app.schedule(late.call(), at=datetime.now(UTC) - timedelta(minutes=1))
        # One attempt each: the retry comes due in a second or more, or is what this drain leaves.
        done = await app.drain(limit=6)
        counts = await app.jobs.counts()
    assert (done.ran, done.failed, done.skipped) == (1, 3, 1)
    assert (counts.completed, counts.discarded, counts.cancelled, counts.running) == (1, 2, 1, 0)


async def test_jobs_that_come_due_by_what_a_drain_runs_are_run_too(url: str) -> None:
    app, ran = OnCue(url), []

    @app.task(name="step")
    async def step(n: int) -> None:
        ran.append(n)
        if n:
            await app.schedule(step.call(n - 1), key="step", group="chain")

    async with app:
        await app.schedule(step.call(4), key="step", group="chain")
        done = await app.drain()
    assert ran == [4, 3, 2, 1, 0]
    assert (done.ran, done.remaining, done.next_due) == (5, 0, None)


async def test_a_handler_may_await_a_job_that_the_same_drain_runs(url: str) -> None:
    app = OnCue(url)

    @app.task(name="inner")
    async def inner() -> int:
        return 42

    @app.task(name="outer")
    async def outer() -> int:
        return await (await app.schedule(inner.call())).result(timeout=60)

    async with app:
        handle = await app.schedule(outer.call())
        done = await app.drain()
        assert await handle.result(timeout=1) == 42
    assert done.ran == 2


async def test_a_drain_plans_cron_first(url: str) -> None:
    app, ran = OnCue(url), []

    @app.cron("* * * * * *", name="tick")
    async def tick() -> None:
        ran.append(1)

    async with app:
        first = await app.drain()
        assert first.next_due is not None, "the schedule was stored, and its fire is what comes next"
        await sqlite_of(app).write(lambda conn: conn.execute("UPDATE oncue_schedule SET next_at = next_at - 60000000"))
        second = await app.drain()
    assert second.ran >= 1
    assert ran


async def test_limits_and_groups_hold_in_a_drain_and_what_waits_is_counted(url: str) -> None:
    app, ran = OnCue(url), []

    @app.task(name="paced", limit=Limit(1, per=3600, burst=2))
    async def paced(n: int) -> None:
        ran.append(n)

    async with app:
        await app.schedule_many([paced.call(n) for n in range(5)])
        done = await app.drain()
    assert (done.ran, done.remaining) == (2, 3)
    assert done.next_due is not None
    assert done.next_due > datetime.now(UTC)


async def test_a_handler_that_outlives_the_budget_is_given_back_and_runs_later(url: str) -> None:
    app, events, slow = OnCue(url), [], [True]

    @app.task(name="long")
    async def long(ctx: JobContext) -> str:
        events.append(f"start {ctx.attempt}")
        try:
            if slow[0]:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append("told to stop")
            raise
        return "done"

    async with app:
        handle = await app.schedule(long.call())
        first = await app.drain(seconds=0.2, options=WorkerOptions(grace=0.1))
        assert events == ["start 1", "told to stop"]
        assert (first.ran, first.failed, first.skipped, first.remaining) == (0, 0, 0, 1)
        row = await app.jobs.get(handle.id)
        assert row is not None
        assert row.state == "scheduled"
        assert row.snoozes == 1, "being given back uses up no attempt"
        slow[0] = False
        second = await app.drain(seconds=60)
        assert await handle.result(timeout=1) == "done"
    assert (second.ran, second.remaining) == (1, 0)


async def test_a_handler_that_ends_within_the_grace_is_not_cut(url: str) -> None:
    app, started = OnCue(url), asyncio.Event()
    gate = asyncio.Event()

    @app.task(name="long")
    async def long() -> None:
        started.set()
        await gate.wait()

    async with app:
        await app.schedule(long.call())
        draining = asyncio.create_task(app.drain(seconds=0.1, options=WorkerOptions(grace=60)))
        await started.wait()
        worker = (await app.store.workers())[0]
        assert worker.running == 1
        asyncio.get_running_loop().call_later(0.3, gate.set)
        done = await draining
        assert await app.store.workers() == [], "a drain signs off"
    assert (done.ran, done.remaining) == (1, 0)


async def test_what_was_claimed_and_can_not_start_in_the_budget_is_given_back(url: str) -> None:
    app, gate, started = OnCue(url), threading.Event(), []

    @app.task(name="block")
    def block(n: int) -> None:
        started.append(n)
        gate.wait(60)

    async with app:
        await app.schedule_many([block.call(n) for n in range(4)])
        done = await app.drain(seconds=0.2, options=WorkerOptions(threads=1, grace=0.2))
        counts = await app.jobs.counts()
        assert (done.ran, done.remaining, counts.running) == (0, 4, 0)
        gate.set()
        for thread in threading.enumerate():
            if thread.name.startswith("oncue-job"):
                await asyncio.to_thread(thread.join)
        assert len(started) == 1, "what waited for a thread was given back, so it must not run any more"
        assert (await app.drain()).ran == 4


async def test_paused_queues_and_unserved_ones_do_not_keep_the_caller_coming(url: str) -> None:
    app = OnCue(url)

    @app.task(name="note")
    async def note() -> None: ...

    async with app:
        await app.schedule(note.call(), queue="paused")
        await app.schedule(note.call(), queue="other")
        await app.store.set_queue("paused", True)
        done = await app.drain(options=WorkerOptions(queues=frozenset({"default", "paused"})))
        assert (done.ran, done.remaining, done.next_due) == (0, 0, None)
        await app.store.set_queue("paused", False)
        done = await app.drain()
    assert (done.ran, done.remaining) == (2, 0)


async def test_a_job_of_an_unknown_task_stays_and_ends_no_drain(url: str) -> None:
    app = OnCue(url)

    @app.task(name="gone")
    async def gone() -> None: ...

    async with app:
        handle = await app.schedule(gone.call())
    other = OnCue(url)
    async with other:
        done = await other.drain()
        row = await other.jobs.get(handle.id)
    assert (done.ran, done.failed, done.skipped) == (0, 0, 0)
    assert row is not None
    assert row.state == "scheduled"


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3"])
async def test_a_limit_that_can_not_work_is_refused(url: str, limit: object) -> None:
    with pytest.raises(ConfigError, match="limit is a whole number"):
        await OnCue(url).drain(limit=limit)  # type: ignore[arg-type]


async def test_trouble_with_the_database_is_raised(url: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match=r"jobs\.db"):
        await OnCue(url).drain()


async def test_remaining_counts_jobs_that_wait_behind_a_group_but_not_what_a_restore_holds(url: str) -> None:
    app = OnCue(url)

    @app.task(name="note")
    async def note() -> None: ...

    async with app:
        await app.schedule_many([Scheduled(note.call(), group="g") for _ in range(4)])
        done = await app.drain(limit=1)
        assert (done.ran, done.remaining) == (1, 3)
        await app.store.hold_due(app.clock.now())
        left = await app.store.backlog(app.clock.now(), None)
        assert (left.remaining, left.next_due) == (0, None)


async def test_the_backlog_of_many_far_jobs_reads_no_far_row(url: str) -> None:
    app = OnCue(url)

    @app.task(name="note")
    async def note() -> None: ...

    async with app:
        far = datetime.now(UTC) + timedelta(days=30)
        await app.schedule_many([Scheduled(note.call(), at=far) for _ in range(2000)])
        await app.schedule(note.call())
        steps = 0

        def look(conn: sqlite3.Connection) -> None:
            from oncue.store.sqlite.run import perform
            from oncue.store.steps.read import backlog

            def step() -> int:
                nonlocal steps
                steps += 1
                return 0

            conn.set_progress_handler(step, 10)
            left = perform(conn, backlog(app.clock.now(), None))
            conn.set_progress_handler(None, 0)
            assert left.remaining == 1
            assert left.next_due is not None
            assert from_us(left.next_due) <= datetime.now(UTC)

        await sqlite_of(app).read(look)
    assert steps < 100
