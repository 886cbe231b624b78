"""A handler completes its job in its own transaction: its writes and the completion commit together, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from oncue import JobContext, OnCue, Retry
from oncue.completion import Completion
from oncue.errors import InvalidJob, JobCancelled, LeaseLost
from oncue.job import Claimed
from oncue.worker import WorkerOptions
from tests.databases import Backend
from tests.worker.conftest import get, until_state

ONCE = Retry(max_attempts=2, delay=0.0)


@pytest.fixture(autouse=True)
def table(backend: Backend, app: OnCue) -> None:
    with backend.connect() as mine:
        mine.execute("CREATE TABLE answers (job INTEGER, attempt INTEGER)")
        mine.commit()


def answers(backend: Backend) -> list[tuple[int, int]]:
    with backend.connect() as mine:
        return [tuple(row) for row in mine.execute("SELECT job, attempt FROM answers ORDER BY attempt").fetchall()]


async def test_the_writes_and_the_completion_commit_together(app: OnCue, backend: Backend) -> None:
    @app.task()
    async def answer(ctx: JobContext) -> str:
        with backend.connect() as mine:
            mine.execute(f"INSERT INTO answers VALUES ({ctx.id}, {ctx.attempt})")
            await ctx.complete(mine, result="stored")
            mine.commit()
        return "ignored"

    async with app.worker():
        handle = await app.schedule(answer.call())
        assert await handle.result(timeout=30) == "stored"
        assert answers(backend) == [(handle.id, 1)]
        row = await get(app, handle.id)
        assert (row.state, row.attempt, row.result) == ("completed", 1, "stored")


async def test_rolled_back_the_attempt_has_failed(app: OnCue, backend: Backend) -> None:
    @app.task(retry=ONCE)
    async def answer(ctx: JobContext) -> None:
        with backend.connect() as mine:
            mine.execute(f"INSERT INTO answers VALUES ({ctx.id}, {ctx.attempt})")
            await ctx.complete(mine)
            (mine.rollback if ctx.attempt == 1 else mine.commit)()

    async with app.worker():
        handle = await app.schedule(answer.call())
        await handle.result(timeout=30)
        assert answers(backend) == [(handle.id, 2)]
        (first,) = await app.jobs.attempts(handle.id)
        assert "did not commit" in str(first.error)


async def test_what_a_handler_raises_after_its_commit_changes_nothing(
    app: OnCue, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task()
    async def answer(ctx: JobContext) -> None:
        with backend.connect() as mine:
            await ctx.complete(mine)
            mine.commit()
        raise ValueError("too late")

    async with app.worker():
        handle = await app.schedule(answer.call())
        await handle.result(timeout=30)
    assert "what came after is ignored: ValueError: too late\n" in caplog.text


async def test_an_error_before_the_commit_is_retried_as_usual(app: OnCue, backend: Backend) -> None:
    @app.task(retry=ONCE)
    async def answer(ctx: JobContext) -> None:
        with backend.connect() as mine:
            await ctx.complete(mine)
            if ctx.attempt == 1:
                mine.rollback()
                raise ValueError("the disk is wet")
            mine.commit()

    async with app.worker():
        handle = await app.schedule(answer.call())
        await handle.result(timeout=30)
        (first,) = await app.jobs.attempts(handle.id)
        assert first.error == "ValueError: the disk is wet"


async def test_a_synchronous_handler_completes_on_its_own_connection(app: OnCue, backend: Backend) -> None:
    @app.task()
    def answer(ctx: JobContext) -> list[int]:
        with backend.connect() as mine:
            mine.execute(f"INSERT INTO answers VALUES ({ctx.id}, {ctx.attempt})")
            ctx.complete_sync(mine, result=[1, 2])
            mine.commit()
        return []

    async with app.worker():
        handle = await app.schedule(answer.call())
        assert await handle.result(timeout=30) is None or True
        assert await handle.result(timeout=30) == [1, 2]
        assert answers(backend) == [(handle.id, 1)]


async def test_a_job_that_was_taken_back_can_not_be_completed(app: OnCue, backend: Backend) -> None:
    """Another worker holds the job by now; what this one wrote is rolled back."""
    errors: list[LeaseLost] = []
    ended = asyncio.Event()

    @app.task()
    async def answer(ctx: JobContext) -> None:
        backend.execute("UPDATE oncue_job SET worker = 999")
        with backend.connect() as mine:
            mine.execute(f"INSERT INTO answers VALUES ({ctx.id}, {ctx.attempt})")
            try:
                await ctx.complete(mine)
            except LeaseLost as error:
                errors.append(error)
                mine.rollback()
        assert ctx.lease_lost
        ended.set()

    async with app.worker():
        handle = await app.schedule(answer.call())
        await ended.wait()
    assert len(errors) == 1
    assert answers(backend) == []
    async with app:
        row = await get(app, handle.id)
        assert (row.state, row.worker) == ("running", 999)


async def test_the_next_of_its_group_goes_on_when_it_commits(app: OnCue, backend: Backend) -> None:
    order: list[str] = []

    @app.task()
    async def answer(ctx: JobContext, name: str) -> None:
        order.append(name)
        with backend.connect() as mine:
            await ctx.complete(mine)
            mine.commit()

    async with app.worker():
        handles = [await app.schedule(answer.call(f"{n}"), group="g") for n in range(5)]
        for handle in handles:
            await handle.result(timeout=30)
    assert order == ["0", "1", "2", "3", "4"]


async def test_it_completes_only_with_a_connection(app: OnCue, backend: Backend) -> None:
    refused: list[str] = []

    @app.task()
    async def answer(ctx: JobContext) -> None:
        try:
            await ctx.complete(None)
        except InvalidJob as error:
            refused.append(str(error))
        with backend.connect() as mine:
            await ctx.complete(mine)
            mine.commit()

    async with app.worker():
        await (await app.schedule(answer.call())).result(timeout=30)
    assert len(refused) == 1


@pytest.mark.parametrize("between", ["rollback", "nothing", "commit"])
async def test_completing_again_replaces_what_was_recorded_first(app: OnCue, backend: Backend, between: str) -> None:
    """Whether the first transaction was rolled back, is still open, or committed with its answer lost."""
    ended = asyncio.Event()

    @app.task(retry=Retry(max_attempts=1))
    async def answer(ctx: JobContext) -> str:
        with backend.connect() as mine:
            await ctx.complete(mine, result="first")
            if between != "nothing":
                getattr(mine, between)()
            await ctx.complete(mine, result="last")
            mine.commit()
        ended.set()
        return "ignored"

    async with app.worker():
        handle = await app.schedule(answer.call())
        await ended.wait()
        await handle.result(timeout=30)
    async with app:
        row = await get(app, handle.id)
        assert (row.state, row.attempt, row.result) == ("completed", 1, "last")


async def test_a_refused_connection_leaves_the_outcome_to_the_handler(app: OnCue) -> None:
    @app.task(retry=Retry(max_attempts=1))
    async def answer(ctx: JobContext) -> str:
        with pytest.raises(InvalidJob):
            await ctx.complete(object(), result="of the transaction")
        return "of the handler"

    async with app.worker():
        assert await (await app.schedule(answer.call())).result(timeout=30) == "of the handler"


@pytest.fixture
def unanswered(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """The question after a commit, kept waiting: the first event tells that it was asked, the second lets it go on."""
    asked, answer, committed = asyncio.Event(), asyncio.Event(), Completion.committed

    async def later(self: Completion, job: Claimed) -> bool:
        asked.set()
        await answer.wait()
        return await committed(self, job)

    monkeypatch.setattr(Completion, "committed", later)
    return asked, answer


async def test_a_cancellation_while_the_commit_is_asked_after_changes_nothing(
    app: OnCue, backend: Backend, unanswered: tuple[asyncio.Event, asyncio.Event]
) -> None:
    asked, answer = unanswered

    @app.task(retry=ONCE)
    async def rolled_back(ctx: JobContext) -> None:
        with backend.connect() as mine:
            await ctx.complete(mine)
            mine.rollback()

    @app.task()
    async def after() -> str:
        return "has a place"

    async with app.worker(WorkerOptions(concurrency=1)) as service:
        handle = await app.schedule(rolled_back.call())
        await asked.wait()
        assert await app.cancel(id=handle.id) == "requested"
        assert service.worker is not None
        # It would hear of that a little later, maybe after the answer.
        service.worker.places.runs[handle.id].stop("cancelled")
        answer.set()
        with pytest.raises(JobCancelled):
            await handle.result(timeout=20)
        assert await (await app.schedule(after.call())).result(timeout=20) == "has a place"


async def test_a_lease_that_is_lost_while_the_commit_is_asked_after_leaves_the_place_free(
    app: OnCue, backend: Backend, unanswered: tuple[asyncio.Event, asyncio.Event]
) -> None:
    asked, answer = unanswered

    @app.task()
    async def committed(ctx: JobContext) -> None:
        with backend.connect() as mine:
            await ctx.complete(mine)
            mine.commit()

    @app.task()
    async def after() -> str:
        return "has a place"

    async with app.worker(WorkerOptions(concurrency=1)) as service:
        await app.schedule(committed.call())
        await asked.wait()
        worker = service.worker
        assert worker is not None
        worker._lease_is_lost(worker.id)
        handle = await app.schedule(after.call())
        row = await until_state(app, handle.id, "completed")
        assert row.attempt == 1
    assert not answer.is_set()
