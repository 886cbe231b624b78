"""A declaration that can't work is refused where it is made, with what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from oncue import OnCue, errors
from oncue.worker import WorkerOptions
from tests.store.kit import HandClock


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retry": 3}, "Retry(max_attempts=3)"),
        ({"limit": 5}, "Limit(80, per=1)"),
        ({"group_limit": 5}, "group_limit is a Limit"),
        ({"timeout": 0}, "timeout is above 0"),
        ({"when_late": "drop"}, "'run', 'skip' or 'fail'"),
        ({"on_retry": "wait"}, "'hold' or 'yield'"),
        ({"concurrency": 0}, "concurrency is at least 1"),
    ],
)
def test_a_policy_of_the_wrong_kind(app: OnCue, options: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        app.task(**options)
    assert said in str(caught.value)


def test_a_task_without_parentheses(app: OnCue) -> None:
    bare: Any = app.task
    with pytest.raises(errors.ConfigError, match=r"@app\.task\(\)"):
        bare(lambda: None)


@pytest.mark.parametrize(
    "made",
    [
        lambda: WorkerOptions(concurrency=0),
        lambda: WorkerOptions(threads=0),
        lambda: WorkerOptions(lease=0),
        lambda: WorkerOptions(grace=-1),
        lambda: WorkerOptions(queues="mail"),
        lambda: WorkerOptions(queues=[1]),  # type: ignore[list-item]
        lambda: WorkerOptions(queues={"mail": 0}),
        lambda: WorkerOptions(queues={"mail": 1001}),
        lambda: WorkerOptions(queues={"mail": True}),
        lambda: WorkerOptions(queues={"": 1}),
        lambda: OnCue("sqlite:///x.db", sweep=0),
        lambda: OnCue("sqlite:///x.db", busy_timeout=-1),
    ],
)
def test_a_setting_that_cannot_work(made: Callable[[], object]) -> None:
    with pytest.raises(errors.ConfigError):
        made()


def test_a_file_name_in_the_place_of_a_url() -> None:
    with pytest.raises(errors.ConfigError, match="Did you mean sqlite:///trial.db"):
        OnCue("trial.db")


async def test_a_task_in_the_place_of_its_call_is_named(app: OnCue) -> None:
    @app.task(name="send")
    async def send() -> None: ...

    async with app:
        wrong: Any = send
        with pytest.raises(errors.InvalidJob, match="not <task send>"):
            await app.schedule(wrong)


async def test_schedules_are_previewed_paused_resumed_and_run_by_name(still: OnCue, clock: HandClock) -> None:
    @still.cron("0 9 * * *", timezone="Europe/Berlin", name="morning")
    async def morning() -> None: ...

    async with still:
        with pytest.raises(errors.UnknownSchedule, match="'morning'"):
            await still.recurring.preview("morning")
        await still.service(worker=False).planner.sync()
        clock.set(int(datetime(2026, 10, 24, 12, tzinfo=UTC).timestamp()) * 1_000_000)
        fires = await still.recurring.preview("morning", 2)
        assert fires == [datetime(2026, 10, 25, 8, tzinfo=UTC), datetime(2026, 10, 26, 8, tzinfo=UTC)]
        await still.recurring.pause("morning")
        assert [row.paused for row in await still.store.schedules()] == [1]
        await still.recurring.resume("morning")
        assert [row.paused for row in await still.store.schedules()] == [0]
        job = await still.jobs.get(await still.recurring.run_now("morning"))
        assert job is not None
        assert job.origin == "cron:morning"
