"""Rows become jobs, move them and take them back; what was handled is not handled again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from oncue.clock import SECOND
from oncue.operate import checks
from oncue.operate.flows import Flows
from oncue.operate.shape import iso
from oncue.service import Service
from oncue.worker import Worker
from tests.databases import Backend
from tests.source.stage import START, Stage


async def test_a_due_row_becomes_a_job_that_runs_at_its_time_with_the_rows_id(stage: Stage) -> None:
    stage.declare(group="trial-{id}")
    stage.put(5, stage.at(30))
    assert await stage.sweep() == 1
    [job] = await stage.jobs()
    assert (job.key, job.group, job.scheduled_at, job.args) == (
        "question-5",
        "trial-5",
        START + 30 * SECOND,
        {"trial_id": 5},
    )
    await stage.work()
    assert stage.ran == []
    stage.clock.move(30)
    await stage.work()
    assert stage.ran == [5]


async def test_a_row_that_was_handled_is_not_handled_again(stage: Stage) -> None:
    stage.declare()
    stage.put(5, stage.at(-1))
    for _ in range(3):
        await stage.sweep()
        await stage.work()
        stage.clock.move(60)
    assert stage.ran == [5]
    stage.put(5, stage.at(200))
    await stage.sweep()
    stage.clock.move(60)
    await stage.work()
    assert stage.ran == [5, 5]


async def test_the_same_instant_written_otherwise_is_the_same_due_time(stage: Stage) -> None:
    stage.declare()
    stage.put(5, stage.at(-1))
    await stage.sweep()
    await stage.work()
    stage.put(5, stage.at(-1, "T") + "Z")
    assert await stage.sweep() == 0
    await stage.work()
    assert stage.ran == [5]


async def test_a_due_time_that_comes_back_after_another_is_not_run_twice(stage: Stage) -> None:
    stage.declare()
    stage.put(5, stage.at(-1))
    await stage.sweep()
    await stage.work()
    stage.put(5, stage.at(90))
    await stage.sweep()
    stage.put(5, stage.at(-1))
    await stage.sweep()
    stage.clock.move(100)
    await stage.work()
    assert stage.ran == [5]


async def test_far_rows_are_left_to_later_sweeps(stage: Stage) -> None:
    stage.declare()
    stage.put(1, stage.at(119))
    stage.put(2, stage.at(121))
    await stage.sweep()
    assert [job.key for job in await stage.jobs()] == ["question-1"]
    stage.clock.move(60)
    await stage.sweep()
    assert [job.key for job in await stage.jobs()] == ["question-1", "question-2"]


@pytest.mark.parametrize("to", [10, 100, 5000])
async def test_a_moved_due_time_moves_the_waiting_job(stage: Stage, to: int) -> None:
    stage.declare(group="trial-{id}")
    stage.put(5, stage.at(50))
    await stage.sweep()
    [before] = await stage.jobs()
    stage.put(5, stage.at(to))
    assert await stage.sweep() == 1
    [after] = await stage.jobs()
    assert (after.id, after.scheduled_at, after.eligible_at) == (before.id, *[START + to * SECOND] * 2)
    assert await stage.sweep() == 0
    stage.clock.move(to)
    await stage.work()
    assert stage.ran == [5]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("DELETE FROM free_trials", "it is gone"),
        ("UPDATE free_trials SET status = 'ended'", "it no longer matches (status = 'active')"),
        ("UPDATE free_trials SET next_question_scheduled_for = NULL", "is empty"),
        ("UPDATE free_trials SET next_question_scheduled_for = 'soon'", "can't be read"),
    ],
)
@pytest.mark.parametrize("swept", [True, False])
async def test_a_row_that_does_not_match_any_more_does_not_run(
    stage: Stage, change: str, reason: str, swept: bool
) -> None:
    """By the sweep where one comes between, else at the claim, where the row is read again."""
    stage.declare()
    stage.put(5, stage.at(10))
    await stage.sweep()
    stage.db.execute(change)
    if swept:
        await stage.sweep()
    stage.clock.move(20)
    await stage.work()
    assert stage.ran == []
    [job] = await stage.jobs()
    assert (job.state, job.outcome) == ("cancelled", "withdrawn" if swept else "skipped")
    assert reason in job.reason
    assert "source free_trials" in job.reason


@pytest.mark.parametrize("swept", [True, False])
async def test_a_row_that_matches_again_runs_after_all(stage: Stage, swept: bool) -> None:
    stage.declare()
    stage.put(5, stage.at(10))
    await stage.sweep()
    stage.put(5, stage.at(10), "paused")
    stage.clock.move(20)
    await (stage.sweep() if swept else stage.work())
    stage.put(5, stage.at(10))
    await stage.sweep()
    await stage.work()
    await stage.sweep()
    await stage.work()
    assert stage.ran == [5]


async def test_a_due_time_moved_after_the_claims_last_sweep_is_seen_at_the_claim(stage: Stage) -> None:
    stage.declare()
    stage.put(5, stage.at(10))
    await stage.sweep()
    stage.put(5, stage.at(40))
    stage.clock.move(20)
    await stage.work()
    assert stage.ran == []
    skipped, moved = await stage.jobs()
    assert "moved to" in skipped.reason
    assert moved.scheduled_at == START + 40 * SECOND
    stage.clock.move(20)
    await stage.work()
    assert stage.ran == [5]


async def test_a_handler_that_moves_its_row_gets_the_next_run(stage: Stage) -> None:
    @stage.app.task()
    async def ask(trial_id: int) -> None:
        stage.ran.append(trial_id)
        stage.put(trial_id, stage.at(30 * len(stage.ran)) if len(stage.ran) < 3 else None)

    stage.declare(task=ask)
    stage.put(7, stage.at(0))
    for _ in range(6):
        await stage.sweep()
        await stage.work()
        stage.clock.move(30)
    assert stage.ran == [7, 7, 7]


async def test_a_failed_attempt_is_retried_and_its_row_is_not_made_anew(stage: Stage) -> None:
    stage.declare()
    stage.put(5, stage.at(0))
    stage.fails = 2
    for _ in range(4):
        await stage.sweep()
        await stage.work()
        stage.clock.move(6)
    assert stage.ran == [5, 5, 5]
    [job] = await stage.jobs()
    assert (job.state, job.attempt) == ("completed", 3)


async def test_a_row_moved_between_attempts_runs_at_the_new_time(stage: Stage) -> None:
    stage.declare()
    stage.put(5, stage.at(0))
    stage.fails = 1
    await stage.sweep()
    await stage.work()
    stage.put(5, stage.at(60))
    await stage.sweep()
    old, new = await stage.jobs()
    assert (old.state, old.attempt, new.state) == ("cancelled", 1, "scheduled")
    stage.clock.move(70)
    await stage.work()
    await stage.sweep()
    await stage.work()
    assert stage.ran == [5, 5]


async def test_rows_that_share_a_key_run_one_after_the_other_and_none_is_lost(stage: Stage) -> None:
    stage.declare(key="question-{name}")
    for id in (1, 2, 3):
        stage.db.execute(
            "INSERT INTO free_trials (id, name, next_question_scheduled_for) VALUES (?, 'one', ?)", (id, stage.at(id))
        )
    for _ in range(4):
        await stage.sweep()
        stage.clock.move(10)
        await stage.work()
    assert stage.ran == [1, 2, 3]


async def test_two_sweepers_at_once_make_each_job_once(backend: Backend) -> None:
    one = Stage(backend)
    two = Stage(backend, one.clock, schema="")
    for stage in (one, two):
        stage.declare()
    async with one.app, two.app:
        one.db.execute("BEGIN")
        for id in range(1200):
            one.put(id, one.at(id % 50))
        one.db.execute("COMMIT")
        counts = await asyncio.gather(one.sweep(), two.sweep(), one.sweep(), two.sweep())
        assert sum(counts) == 1200
        one.db.execute("UPDATE free_trials SET next_question_scheduled_for = ? WHERE id < 600", (one.at(55),))
        assert sum(await asyncio.gather(one.sweep(), two.sweep())) == 600
        one.clock.move(60)
        await asyncio.gather(one.work(), two.work())
        assert sorted(one.ran + two.ran) == list(range(1200))
    one.db.close()
    two.db.close()


async def test_unreadable_values_are_reported_and_disturb_no_other_row(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.declare()
    values: list[Any] = ["tomorrow", "31/12/2026", "", "2026-02-30 10:00", "20260131", "2nd of May"]
    if stage.backend.is_sqlite:
        values += [b"\x00\x01"]
        stage.db.execute("INSERT INTO free_trials VALUES (20, NULL, 'active', CAST(x'ff41' AS TEXT))")
    for id, value in enumerate(values, 1):
        stage.put(id, value)
    count = len(values) + stage.backend.is_sqlite
    stage.put(30, stage.at(1))
    assert await stage.sweep() == 1
    [status] = await stage.app.sources.status()
    assert (status.name, status.made, status.unreadable) == ("free_trials", 1, count)
    assert status.swept_at == START
    assert status.drift is not None
    assert "tomorrow" in str(status.drift) or "31/12/2026" in str(status.drift)
    assert f"{count} rows can't be read" in caplog.text
    stage.clock.move(90)
    stage.db.execute("DELETE FROM free_trials WHERE id = 2")
    await stage.sweep()
    [status] = await stage.app.sources.status()
    assert (status.unreadable, status.swept_at, status.drift_since) == (count - 1, START + 90_000_000, START)
    [check] = await checks.sources(stage.app)
    assert check.found.endswith("; found first 90 s ago")
    [shown] = await Flows(stage.app).sources()
    assert shown.since == iso(START)
    stage.db.execute("DELETE FROM free_trials WHERE id < 30")
    await stage.sweep()
    [status] = await stage.app.sources.status()
    assert (status.unreadable, status.drift, status.drift_since) == (0, None, None)


async def test_a_job_that_cannot_be_made_is_reported_and_the_others_are_made(stage: Stage) -> None:
    def call(row: Any) -> Any:
        if row["name"] == "bad":
            raise RuntimeError("no such person")
        return stage.task.call(row["id"])

    stage.declare(args=call)
    stage.put(1, stage.at(1))
    stage.put(2, stage.at(1))
    stage.db.execute("UPDATE free_trials SET name = 'bad' WHERE id = 1")
    assert await stage.sweep() == 1
    [status] = await stage.app.sources.status()
    assert "no such person" in str(status.drift)


async def test_a_dropped_table_is_reported_and_harms_nothing_else(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.declare()
    stage.put(1, stage.at(1))
    await stage.sweep()
    stage.db.execute("ALTER TABLE free_trials RENAME TO paid_trials")
    sweeps = [stage.sweep(), *(stage.app.schedule(stage.task.call(9), delay=90) for _ in range(20))]
    await asyncio.gather(*sweeps)
    assert "no table 'free_trials' in this database" in caplog.text
    assert "There are: paid_trials." in caplog.text
    stage.db.execute("ALTER TABLE paid_trials RENAME TO free_trials")
    await stage.sweep()
    stage.clock.move(2)
    await stage.work()
    assert stage.ran == [1]


async def test_what_was_handled_is_forgotten_only_once_its_row_has_gone_on(stage: Stage) -> None:
    stage.declare()
    stage.put(1, stage.at(0))
    stage.put(2, stage.at(0))
    await stage.sweep()
    await stage.work()
    stage.put(2, None)
    stage.clock.move(timedelta(days=8).total_seconds())
    for _ in range(2):
        await stage.sweep()
        await stage.work()
    assert sorted(stage.ran) == [1, 2]
    assert stage.db.keys("oncue_source_row") == [("free_trials", 1)]


async def _claimed_and_skipped(stage: Stage) -> tuple[Service, Worker]:
    """A worker that has read the row and skips its job, which is not recorded yet."""
    service = Service(stage.app)
    worker = service.worker
    assert worker is not None
    await worker.start()
    assert len((await worker.run_once()).jobs) == 1
    while not worker.places.acks:  # noqa: ASYNC110 - nothing tells that an outcome waits to be handed in
        await asyncio.sleep(0.001)
    return service, worker


async def test_a_worker_that_died_before_its_ack_leaves_nothing_handled_that_was_not(stage: Stage) -> None:
    """The row was read, the job would be skipped, and the process died before that was recorded."""
    stage.declare()
    stage.put(5, stage.at(0))
    await stage.sweep()
    stage.put(5, stage.at(0), "paused")
    service, worker = await _claimed_and_skipped(stage)
    stage.put(5, stage.at(0))
    assert await stage.sweep() == 0, "its job is still held"
    assert worker._life is not None
    assert worker._heart is not None
    worker._life.release()
    await worker._heart.close()
    service.runner.close()
    stage.clock.move(60)
    for _ in range(2):
        await stage.sweep()
        await stage.work()
    assert stage.ran == [5]


async def test_a_due_time_that_comes_back_while_its_job_is_being_skipped_is_not_lost(stage: Stage) -> None:
    stage.declare()
    stage.put(5, stage.at(0))
    await stage.sweep()
    stage.put(5, stage.at(40))
    service, worker = await _claimed_and_skipped(stage)
    stage.put(5, stage.at(0))
    await stage.sweep()
    await worker.run_once()
    await worker.stop()
    service.runner.close()
    for _ in range(2):
        await stage.sweep()
        await stage.work()
        stage.clock.move(30)
    assert stage.ran == [5]
    assert [job.outcome for job in await stage.jobs()] == ["skipped", "withdrawn", "completed"]


@pytest.mark.parametrize("change", ["status = 'paused'", "next_question_scheduled_for = NULL", "name = 'other'"])
async def test_a_row_that_changes_while_its_job_is_being_made_is_left_for_another_look(
    stage: Stage, change: str
) -> None:
    """The user's function runs between the reading of the row and the transaction that makes its job."""
    changes = [change]

    def call(row: Any) -> Any:
        if changes:
            stage.db.execute(f"UPDATE free_trials SET {changes.pop()}")
        return stage.task.call(row["id"])

    stage.declare(args=call, trigger=True)
    await stage.app.sources.install()
    stage.put(5, stage.at(0))
    assert await stage.app.sources.reconcile_changed() == 0
    assert await stage.jobs() == []
    assert stage.db.notes() == [("free_trials", 5)]
    await stage.work()
    assert stage.ran == ([5] if change.startswith("name") else [])
