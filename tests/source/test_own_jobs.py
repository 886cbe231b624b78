"""What the application schedules itself under a row's key is the row's job, and the other way round."""

from __future__ import annotations

import pytest

from oncue.clock import SECOND, from_us
from tests.source.stage import START, Stage


@pytest.mark.parametrize("offset", [0.0, 0.004, -0.004, 0.7])
@pytest.mark.parametrize("when", ["waiting", "final"])
async def test_the_applications_own_job_under_the_same_key_is_the_rows_job(
    stage: Stage, offset: float, when: str
) -> None:
    """The webhook schedules in the transaction that sets the due column, which is written in whole seconds."""
    stage.declare()
    stage.db.execute("BEGIN")
    stage.put(5, stage.at(10))
    at = from_us(START + round((10 + offset) * SECOND))
    await stage.app.schedule(stage.task.call(5), at=at, key="question-5", connection=stage.db.connection)
    stage.db.execute("COMMIT")
    if when == "waiting":
        assert await stage.sweep() == 0
    stage.clock.move(20)
    await stage.work()
    for _ in range(2):
        assert await stage.sweep() == 0
        await stage.work()
    assert stage.ran == [5]
    stage.put(5, stage.at(11))
    await stage.sweep()
    await stage.work()
    assert stage.ran == [5, 5], "the next second is another due time"


async def test_the_applications_own_job_is_recognised_while_it_runs_and_between_attempts(stage: Stage) -> None:
    stage.declare()
    stage.put(5, stage.at(0))
    stage.fails = 1
    await stage.app.schedule(stage.task.call(5), key="question-5")
    await stage.work()
    assert await stage.sweep() == 0
    stage.clock.move(10)
    await stage.work()
    assert await stage.sweep() == 0
    assert stage.ran == [5, 5]
    assert len(await stage.jobs()) == 1


async def test_the_row_moves_the_applications_own_waiting_job(stage: Stage) -> None:
    stage.declare()
    stage.put(5, stage.at(30))
    await stage.app.schedule(stage.task.call(5), delay=30, key="question-5")
    await stage.sweep()
    stage.put(5, stage.at(20))
    assert await stage.sweep() == 1
    [job] = await stage.jobs()
    assert (job.scheduled_at, job.origin) == (START + 20 * SECOND, None)
    stage.clock.move(60)
    await stage.work()
    await stage.sweep()
    await stage.work()
    assert stage.ran == [5]


async def test_scheduling_after_the_sweep_folds_into_the_rows_job(stage: Stage) -> None:
    stage.declare()
    stage.put(5, stage.at(30))
    await stage.sweep()
    handle = await stage.app.schedule(stage.task.call(5), delay=30, key="question-5")
    assert handle.status == "kept"
    stage.clock.move(30)
    await stage.work()
    assert stage.ran == [5]


async def test_the_applications_own_job_may_be_moved_before_it_runs(stage: Stage) -> None:
    stage.declare()
    for due in (30, 10):
        stage.put(5, stage.at(due))
        await stage.app.schedule(stage.task.call(5), delay=due, key="question-5", on_conflict="replace")
        if due == 30:
            await stage.sweep()
    stage.clock.move(60)
    for _ in range(2):
        await stage.work()
        await stage.sweep()
    assert stage.ran == [5]


async def test_a_job_that_the_application_replaces_is_its_own_from_then_on(stage: Stage) -> None:
    stage.declare()
    stage.put(5, stage.at(30))
    await stage.sweep()
    await stage.app.schedule(stage.task.call(6), delay=30, key="question-5", on_conflict="replace")
    await stage.sweep()
    stage.db.execute("DELETE FROM free_trials")
    stage.clock.move(30)
    await stage.work()
    assert stage.ran == [6], "it is not read again when it starts"


async def test_what_the_application_cancels_stays_cancelled_for_that_due_time(stage: Stage) -> None:
    stage.declare()
    stage.put(5, stage.at(30))
    await stage.sweep()
    assert await stage.app.cancel(key="question-5") == "prevented"
    await stage.sweep()
    stage.clock.move(60)
    await stage.work()
    assert stage.ran == []
    stage.put(5, stage.at(61))
    await stage.sweep()
    stage.clock.move(2)
    await stage.work()
    assert stage.ran == [5]
