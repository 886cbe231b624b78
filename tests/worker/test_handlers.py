"""What a handler gets, what it may give, and where it runs."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oncue import JobContext, OnCue, Retry, current_job, errors
from oncue.clock import from_us
from oncue.worker import WorkerOptions
from tests.store.kit import HandClock
from tests.worker.conftest import Make, get, until_state


@dataclass
class Point:
    x: int
    y: float = 0.5


async def test_arguments_and_results_keep_their_types(app: OnCue) -> None:
    got: list[Any] = []

    @app.task()
    async def move(point: Point, when: datetime, *, tags: set[str], by: tuple[int, int] = (1, 2)) -> Point:
        got.append((point, when, tags, by))
        return Point(point.x + by[0], point.y)

    when = datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    async with app.worker():
        handle = await app.schedule(move.call(Point(3), when, tags={"a"}))
        assert await handle.result(30) == Point(4, 0.5)
    assert got == [(Point(3), when, {"a"}, (1, 2))]


async def test_a_synchronous_function_runs_in_a_thread_with_its_context(app: OnCue) -> None:
    @app.task()
    def work(ctx: JobContext, n: int) -> tuple[bool, int, int]:
        ctx.progress_sync(0.5, "half")
        return threading.current_thread() is threading.main_thread(), current_job().id, n

    async with app.worker():
        handle = await app.schedule(work.call(7))
        assert await handle.result(30) == (False, handle.id, 7)
        assert (await get(app, handle.id)).progress == {"fraction": 0.5, "note": "half"}


async def test_synchronous_functions_run_side_by_side_but_no_more_than_there_are_threads(app: OnCue) -> None:
    lock, full, most = threading.Lock(), threading.Event(), [0, 0]

    @app.task()
    def work() -> None:
        with lock:
            most[0] += 1
            most[1] = max(most)
            if most[0] == 3:
                full.set()
        full.wait(30)
        with lock:
            most[0] -= 1

    async with app.worker(WorkerOptions(threads=3)):
        handles = await app.schedule_many([work.call() for _ in range(12)])
        await asyncio.gather(*[one.result(60) for one in handles])
    assert most[1] == 3


async def test_the_context_tells_about_the_job(still: OnCue, clock: HandClock) -> None:
    seen: list[dict[str, Any]] = []

    @still.task(retry=Retry(3, 5.0))
    async def look(ctx: JobContext, n: int) -> None:
        assert current_job() is ctx
        fields = ("id", "attempt", "attempts_left", "key", "group", "metadata", "scheduled_at", "origin", "task")
        seen.append({name: getattr(ctx, name) for name in fields})
        await ctx.progress(ctx.attempt / 3)
        if ctx.attempt == 1:
            raise ValueError("again")

    due = clock.now() + 2_000_000
    async with still:
        handle = await still.schedule(look.call(1), delay=2, key="k", group="g", metadata={"a": [1]})
        clock.move(2)
        await still.drain()
        clock.move(5)
        await still.drain()
        assert (await get(still, handle.id)).progress == {"fraction": 2 / 3, "note": ""}
    same = {"id": handle.id, "key": "k", "group": "g", "metadata": {"a": [1]}, "origin": None, "task": look.name}
    assert seen == [
        {**same, "attempt": 1, "attempts_left": 2, "scheduled_at": from_us(due)},
        {**same, "attempt": 2, "attempts_left": 1, "scheduled_at": from_us(due + 5_000_000)},
    ]
    with pytest.raises(LookupError, match="inside a task"):
        current_job()


async def test_resources_are_made_once_found_by_type_and_cleaned_up(app: OnCue) -> None:
    log: list[str] = []

    class Pool:
        pass

    class Client:
        pass

    async def pools() -> AsyncIterator[Pool]:
        log.append("pool")
        yield Pool()
        log.append("pool closed")

    def clients() -> Iterator[Client]:
        log.append("client")
        yield Client()
        log.append("client closed")

    # Local classes are no annotations that can be resolved from outside.
    pools.__annotations__["return"] = AsyncIterator[Pool]
    clients.__annotations__["return"] = Iterator[Client]
    app.provide(pools)
    app.provide(clients)

    @app.on_start
    async def start() -> None:
        log.append("start")

    @app.on_stop
    def stop() -> None:
        log.append("stop")

    @app.task()
    async def use(ctx: JobContext) -> bool:
        return ctx.resource(Pool) is ctx.resource(Pool) and isinstance(ctx.resource(Client), Client)

    @app.task(retry=Retry.never())
    async def miss(ctx: JobContext) -> None:
        ctx.resource(dict)

    async with app.worker():
        handles = await app.schedule_many([use.call(), use.call()])
        assert [await one.result(30) for one in handles] == [True, True]
        with pytest.raises(errors.JobFailed, match=r"No resource of type dict is provided \(known: Client, Pool\)"):
            await (await app.schedule(miss.call())).result(30)
    assert log == ["pool", "client", "start", "stop", "client closed", "pool closed"]


async def test_a_resource_that_cannot_be_made_ends_the_worker_with_its_error(app: OnCue) -> None:
    async def pools() -> AsyncIterator[int]:
        raise ConnectionError("no pool today")
        yield 1

    app.provide(pools)
    with pytest.raises(ConnectionError, match="no pool today"):
        async with app.worker():
            pass


async def test_a_failing_hook_is_told_and_stops_nothing(app: OnCue, caplog: pytest.LogCaptureFixture) -> None:
    @app.on_start
    def start() -> None:
        raise ValueError("broken hook")

    @app.task()
    async def work() -> int:
        return 1

    async with app.worker():
        assert await (await app.schedule(work.call())).result(30) == 1
    assert "broken hook" in caplog.text


async def test_a_timeout_fails_the_attempt_of_a_coroutine(app: OnCue) -> None:
    ended: list[str] = []

    @app.task(timeout=0.05, retry=Retry.never())
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    async with app.worker():
        handle = await app.schedule(slow.call())
        with pytest.raises(errors.JobFailed, match=r"TimeoutError: timed out after 0.05 s"):
            await handle.result(30)
    assert ended == ["cleaned up"]


async def test_a_timeout_shows_a_thread_the_flag_and_fails_its_attempt(app: OnCue) -> None:
    @app.task(timeout=0.05, retry=Retry.never())
    def slow(ctx: JobContext) -> str:
        while not ctx.cancelled:
            threading.Event().wait(0.001)
        return "saw the flag"

    async with app.worker():
        handle = await app.schedule(slow.call())
        with pytest.raises(errors.JobFailed, match="timed out after 0.05 s"):
            await handle.result(30)


async def test_the_timeout_of_a_function_counts_from_when_a_thread_takes_it_up(app: OnCue) -> None:
    began, free = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @app.task()
    def first() -> None:
        loop.call_soon_threadsafe(began.set)
        free.wait(30)

    @app.task(timeout=0.05, retry=Retry.never())
    def second() -> str:
        return "ran"

    @app.task(timeout=0.05, retry=Retry.never())
    async def endless() -> None:
        await asyncio.Event().wait()

    async with app.worker(WorkerOptions(threads=1)):
        await app.schedule(first.call())
        await began.wait()
        handle = await app.schedule(second.call())
        await until_state(app, handle.id, "running")
        # One that began later has timed out by now: what waits for a thread isn't failing.
        with pytest.raises(errors.JobFailed, match="timed out"):
            await (await app.schedule(endless.call())).result(30)
        free.set()
        assert await handle.result(30) == "ran"


async def test_threads_that_never_return_do_not_use_up_the_others_places(app: OnCue) -> None:
    end = threading.Event()

    @app.task(timeout=0.01, retry=Retry.never())
    def stuck() -> None:
        end.wait(60)

    @app.task(retry=Retry.never())
    def work() -> str:
        return threading.current_thread().name

    async with app.worker(WorkerOptions(threads=2, grace=0.01)):
        for handle in await app.schedule_many([stuck.call() for _ in range(4)]):
            with pytest.raises(errors.JobFailed, match="timed out"):
                await handle.result(30)
        one, two = await app.schedule_many([work.call(), work.call()])
        await asyncio.gather(one.result(30), two.result(30))
        end.set()


async def test_the_timeout_counts_from_the_start_of_each_attempt(app: OnCue) -> None:
    @app.task(timeout=0.1, retry=Retry(2, 0.0))
    async def slow(ctx: JobContext) -> int:
        if ctx.attempt == 1:
            await asyncio.Event().wait()
        return ctx.attempt

    async with app.worker():
        handle = await app.schedule(slow.call())
        assert await handle.result(30) == 2
        (attempt,) = await app.jobs.attempts(handle.id)
        assert attempt.error == "TimeoutError: timed out after 0.1 s"


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_sys_exit_in_a_handler_fails_the_job_and_not_the_worker(app: OnCue, kind: str) -> None:
    @app.task(name="coroutine", retry=Retry.never())
    async def leave() -> None:
        sys.exit(3)

    @app.task(name="thread", retry=Retry.never())
    def leave_too() -> None:
        sys.exit(3)

    @app.task()
    async def fine() -> int:
        return 1

    async with app.worker():
        with pytest.raises(errors.JobFailed, match="SystemExit: 3"):
            await (await app.schedule((leave if kind == "coroutine" else leave_too).call())).result(30)
        assert await (await app.schedule(fine.call())).result(30) == 1


async def test_a_result_that_is_no_json_is_not_kept_and_the_job_still_completes(app: OnCue) -> None:
    @app.task()
    async def odd() -> Any:
        return threading.Lock()

    @app.task()
    async def large() -> str:
        return "x" * 1_100_000

    async with app.worker():
        for task, said in ((odd, "can't be stored as JSON"), (large, "is over 1,048,576")):
            handle = await app.schedule(task.call())
            if task is odd:
                assert await handle.result(30) is None
            else:
                with pytest.raises(errors.ResultNotKept, match="completed, but its result of 1,100,002 bytes"):
                    await handle.result(30)
            view = await get(app, handle.id)
            assert (view.state, view.result) == ("completed", None)
            assert said in (view.reason or "")


async def test_result_tells_how_the_job_ended(still: OnCue, clock: HandClock) -> None:
    @still.task(retry=Retry.never())
    async def fail() -> None:
        raise ValueError("no luck")

    async with still:
        failed = await still.schedule(fail.call())
        await still.drain()
        with pytest.raises(
            errors.JobFailed, match=r"discarded: its only attempt failed. Last error: ValueError: no luck"
        ):
            await failed.result()
        cancelled = await still.schedule(fail.call(), delay=5)
        await still.cancel(id=cancelled.id)
        with pytest.raises(errors.JobCancelled, match="cancelled before it ran"):
            await cancelled.result()
        far = await still.schedule(fail.call(), delay=3600)
        with pytest.raises(errors.ResultTimeout, match="not final after 0.01 s; it goes on"):
            await far.result(timeout=0.01)
        assert (await get(still, far.id)).state == "scheduled"
        clock.move(8 * 86400)
        await still.service(worker=False).sweeper.run_once()
        with pytest.raises(errors.UnknownJob, match="retention is over"):
            await failed.result()


async def test_an_alias_runs_the_jobs_of_the_old_name(make: Make) -> None:
    old, new = make(), make()

    @old.task(name="send_mail")
    async def send_mail(n: int) -> int:
        raise AssertionError("the old code is gone")

    @new.task(name="send_message", aliases=("send_mail",))
    async def send_message(n: int, bold: bool = False) -> str:
        return f"{n} {bold}"

    async with old, new:
        handle = await old.schedule(send_mail.call(1))
        async with new.worker():
            await until_state(new, handle.id, "completed")
        view = await get(new, handle.id)
        assert (view.task, view.result) == ("send_mail", "1 False")
        assert (await get(new, (await new.schedule(send_message.call(2))).id)).task == "send_message"


async def test_a_task_can_be_called_as_the_function_that_it_is(app: OnCue) -> None:
    @app.task()
    async def double(n: int) -> int:
        return n * 2

    assert await double(4) == 8


async def test_a_handler_may_schedule_and_cancel(app: OnCue) -> None:
    @app.task()
    async def second() -> str:
        return "second"

    @app.task()
    async def first() -> int:
        assert await app.cancel(key="reminder") == "prevented"
        return (await app.schedule(second.call())).id

    @app.task()
    def in_a_thread() -> int:
        return app.sync.schedule(second.call(), delay=timedelta(seconds=0)).id

    async with app.worker():
        await app.schedule(second.call(), delay=3600, key="reminder")
        for task in (first, in_a_thread):
            made = await (await app.schedule(task.call())).result(30)
            assert (await until_state(app, made, "completed")).result == "second"
