"""Jobs that are asked to stop, and workers that end: nothing is lost, and nothing stays behind."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from oncue import JobContext, OnCue, Retry, errors
from oncue.worker import WorkerOptions
from tests.worker.conftest import Make, get, until, until_state


async def test_a_running_job_is_cancelled_and_its_handler_sees_it(app: OnCue) -> None:
    started, seen = asyncio.Event(), []

    @app.task()
    async def long() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("CancelledError")
            raise

    async with app.worker():
        handle = await app.schedule(long.call(), key="k")
        await started.wait()
        assert await app.cancel(key="k") == "requested"
        with pytest.raises(errors.JobCancelled, match="cancelled while running"):
            await handle.result(30)
        assert seen == ["CancelledError"]
        assert await app.cancel(key="k") == "too late"


async def test_a_handler_that_ends_well_in_spite_of_the_request_has_completed(app: OnCue) -> None:
    started = asyncio.Event()

    @app.task()
    async def stubborn() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "finished anyway"
        return "never"

    async with app.worker():
        handle = await app.schedule(stubborn.call())
        await started.wait()
        assert await app.cancel(id=handle.id) == "requested"
        assert await handle.result(30) == "finished anyway"


async def test_a_synchronous_handler_sees_a_flag(app: OnCue) -> None:
    started = threading.Event()

    @app.task()
    def long(ctx: JobContext) -> str:
        started.set()
        while not ctx.cancelled:
            threading.Event().wait(0.001)
        return "stopped early"

    async with app.worker():
        handle = await app.schedule(long.call())
        await asyncio.to_thread(started.wait)
        assert await app.cancel(id=handle.id) == "requested"
        assert await handle.result(30) == "stopped early"


async def test_another_process_can_cancel_what_runs_here(app: OnCue, make: Make) -> None:
    started, elsewhere = asyncio.Event(), make()

    @app.task()
    async def long() -> None:
        started.set()
        await asyncio.Event().wait()

    async with elsewhere, app.worker():
        handle = await app.schedule(long.call())
        await started.wait()
        # A store of its own, and no hint: what a foreign process's commit looks like from here.
        assert await elsewhere.store.cancel(app.clock.now(), None, id=handle.id, key=None) == "requested"
        with pytest.raises(errors.JobCancelled):
            await handle.result(30)


async def test_a_job_that_waits_for_its_moment_on_a_worker_can_still_be_cancelled(app: OnCue) -> None:
    """It was claimed ahead of its time: `requested`, and then it never starts."""
    ran: list[int] = []

    @app.task()
    async def work(n: int) -> None:
        ran.append(n)

    async with app.worker():
        for n in range(20):
            handle = await app.schedule(work.call(n), delay=0.03)
            await until(app, partial(_claimed, app, handle.id))
            answer = await app.cancel(id=handle.id)
            assert answer in ("requested", "too late")
            assert await until_final(app, handle.id) == ("completed" if n in ran else "cancelled")


async def _claimed(app: OnCue, id: int) -> bool:
    return (await get(app, id)).state != "scheduled"


async def until_final(app: OnCue, id: int) -> str:
    async def final() -> bool:
        return (await get(app, id)).state not in ("scheduled", "running")

    await until(app, final)
    return (await get(app, id)).state


async def test_at_shutdown_running_jobs_may_finish_within_the_grace(app: OnCue) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @app.task()
    async def work() -> str:
        started.set()
        await go.wait()
        return "finished"

    async with app:
        async with app.worker():
            handle = await app.schedule(work.call())
            await started.wait()
            asyncio.get_running_loop().call_later(0.05, go.set)
        assert (await get(app, handle.id)).result == "finished"
        assert await app.jobs.workers() == []


async def test_at_shutdown_what_does_not_finish_is_stopped_and_given_back(app: OnCue) -> None:
    started = asyncio.Event()

    @app.task(retry=Retry.never())
    async def endless(ctx: JobContext) -> int:
        started.set()
        if ctx.attempt == 1:
            await asyncio.Event().wait()
        return ctx.attempt

    async with app:
        async with app.worker(WorkerOptions(grace=0.05)):
            handle = await app.schedule(endless.call())
            await started.wait()
        view = await get(app, handle.id)
        assert (view.state, view.attempt, view.snoozes) == ("scheduled", 1, 1)
        (attempt,) = await app.jobs.attempts(handle.id)
        assert (attempt.outcome, attempt.reason) == ("released", "given back: shutdown")
        assert await app.jobs.workers() == []
        async with app.worker():
            assert await handle.result(30) == 2


async def test_at_shutdown_a_handler_that_ignores_everything_is_left_behind(app: OnCue) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @app.task()
    async def deaf() -> None:
        started.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    async with app:
        async with app.worker(WorkerOptions(grace=0.05)):
            handle = await app.schedule(deaf.call())
            await started.wait()
        assert (await get(app, handle.id)).state == "scheduled"
        assert await app.jobs.workers() == []
        go.set()
        await asyncio.sleep(0)


async def test_at_shutdown_what_waits_for_its_moment_is_given_back_unrun(app: OnCue) -> None:
    ran: list[int] = []

    @app.task()
    async def work() -> None:
        ran.append(1)

    async with app:
        async with app.worker() as service:
            handle = await app.schedule(work.call(), delay=3600)
            due = app.clock.now() + 3_600_000_000
            assert service.worker is not None
        view = await get(app, handle.id)
        assert (view.state, ran) == ("scheduled", [])
        assert view.scheduled_at <= due


async def test_a_worker_that_stops_leaves_the_rest_of_a_batch(app: OnCue) -> None:
    """Many more due jobs than places: those that run finish, the others are there for the next worker."""
    ran: list[int] = []

    @app.task()
    async def work(n: int) -> None:
        ran.append(n)
        if len(ran) == 50:
            enough.set()
        await asyncio.sleep(0)

    enough = asyncio.Event()
    async with app:
        handles = await app.schedule_many([work.call(n) for n in range(2000)])
        async with app.worker(WorkerOptions(concurrency=10)):
            await enough.wait()
        assert len(ran) == len(set(ran))
        states = {one.id: one.state for one in await app.jobs.list(limit=2000)}
        assert set(states.values()) <= {"completed", "scheduled"}
        assert [states[one.id] for one in handles].count("completed") == len(ran)
        async with app.worker():
            await asyncio.gather(*[one.result(60) for one in handles])
        assert sorted(ran) == list(range(2000))


async def test_many_workers_in_one_process_run_each_job_once(app: OnCue) -> None:
    ran: list[int] = []

    @app.task()
    async def work(n: int) -> None:
        ran.append(n)
        await asyncio.sleep(0)

    async with app.worker(WorkerOptions(concurrency=5)), app.worker(WorkerOptions(concurrency=5)):
        handles = await app.schedule_many([work.call(n) for n in range(300)])
        await asyncio.gather(*[one.result(60) for one in handles])
    assert sorted(ran) == list(range(300))


async def test_a_worker_of_some_queues_leaves_the_others(app: OnCue) -> None:
    @app.task()
    async def work() -> str:
        return "ran"

    async with app:
        async with app.worker(WorkerOptions(queues=frozenset({"fast"}))):
            other = await app.schedule(work.call(), queue="slow")
            mine = await app.schedule(work.call(), queue="fast")
            assert await mine.result(30) == "ran"
        assert (await get(app, other.id)).state == "scheduled"
        async with app.worker():
            await until_state(app, other.id, "completed")


async def test_a_cancel_is_heard_while_the_worker_stops(app: OnCue) -> None:
    """The grace is long: only the request can end the handler, and so the test."""
    began, stopping = asyncio.Event(), asyncio.Event()

    @app.task()
    async def endless() -> None:
        began.set()
        await asyncio.Event().wait()

    async def run() -> None:
        async with app.worker(WorkerOptions(grace=3600)):
            await began.wait()
            stopping.set()

    async with app:
        job = await app.schedule(endless.call())
        running = asyncio.create_task(run())
        await stopping.wait()
        assert await app.cancel(id=job.id) == "requested"
        await running
        assert (await get(app, job.id)).state == "cancelled"
