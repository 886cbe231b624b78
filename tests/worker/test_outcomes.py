"""What becomes of an attempt: retries and their rules, snoozes, discards, lateness, retention."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from oncue import Discard, Exponential, JobContext, Limit, OnCue, Retry, RetryAfter, Snooze
from oncue.task import DiscardedJob
from oncue.worker import WorkerOptions
from tests.store.kit import HandClock, S
from tests.worker.conftest import Make, get


async def delays(still: OnCue, clock: HandClock, id: int, rounds: int) -> list[float]:
    """Run the job again and again, each time at its next due time; return the waits in seconds."""
    found = []
    for _ in range(rounds):
        await still.drain()
        view = await get(still, id)
        if view.state != "scheduled":
            break
        assert view.eligible_at is not None
        found.append((view.eligible_at - clock.now()) / S)
        clock.set(view.eligible_at)
    return found


@pytest.mark.parametrize(
    ("retry", "wanted"),
    [
        (Retry(4, 2.5), [2.5, 2.5, 2.5]),
        (Retry(3, timedelta(minutes=1)), [60, 60]),
        (Retry(6, Exponential(1, 3, 20, jitter=False)), [1, 3, 9, 20, 20]),
        (Retry(4, lambda failures, error: failures * 10.0), [10, 20, 30]),
        (Retry.never(), []),
    ],
)
async def test_a_failed_job_runs_again_as_its_policy_says(
    still: OnCue, clock: HandClock, retry: Retry, wanted: list[float]
) -> None:
    @still.task(retry=retry)
    async def fail() -> None:
        raise ValueError("no")

    async with still:
        handle = await still.schedule(fail.call())
        assert await delays(still, clock, handle.id, 9) == wanted
        view = await get(still, handle.id)
        assert (view.state, view.attempt, view.error) == ("discarded", len(wanted) + 1, "ValueError: no")
        assert view.reason == (f"all {len(wanted) + 1} attempts failed" if wanted else "its only attempt failed")
        assert view.traceback is not None
        assert 'raise ValueError("no")' in view.traceback


@pytest.mark.parametrize("error", [ValueError, Discard, lambda text: Snooze(60, text)])
async def test_an_error_with_characters_that_no_text_holds_is_recorded(still: OnCue, error: Any) -> None:
    @still.task(retry=Retry.never())
    async def fail() -> None:
        raise error("a \0 and a \udc80")

    async with still:
        handle = await still.schedule(fail.call())
        await still.drain()
        view = await get(still, handle.id)
        told = [view.error, view.reason, *(one.reason for one in await still.jobs.attempts(handle.id))]
        assert any("a \\x00 and a ?" in (text or "") for text in told), told


async def test_the_default_retry_is_five_attempts_with_full_jitter(still: OnCue, clock: HandClock) -> None:
    @still.task()
    async def fail() -> None:
        raise ValueError("no")

    async with still:
        handle = await still.schedule(fail.call())
        waits = await delays(still, clock, handle.id, 9)
        assert len(waits) == 4
        assert all(0 <= wait <= most for wait, most in zip(waits, (1, 2, 4, 8), strict=True))


async def test_each_failed_attempt_is_in_the_log(still: OnCue, caplog: pytest.LogCaptureFixture) -> None:
    @still.task(name="fail", retry=Retry(2, 30.0))
    async def fail() -> None:
        raise ValueError("no")

    async with still:
        handle = await still.schedule(fail.call())
        await still.drain()
    assert f"job {handle.id} (fail): attempt 1 of 2 failed, again in 30.0 s: ValueError: no" in caplog.messages


async def test_max_attempts_of_one_call(still: OnCue, clock: HandClock) -> None:
    @still.task(retry=Retry(5, 1.0))
    async def fail() -> None:
        raise ValueError("no")

    async with still:
        handle = await still.schedule(fail.call(), max_attempts=2)
        assert await delays(still, clock, handle.id, 9) == [1]


class Gone(ConnectionError):
    pass


@pytest.mark.parametrize(
    ("error", "wanted"),
    [(KeyError("x"), None), (ConnectionError("x"), 30.0), (Gone("x"), 7.0), (ValueError("x"), 1.0)],
)
async def test_rules_decide_by_the_most_specific_class(
    still: OnCue, clock: HandClock, error: Exception, wanted: float | None
) -> None:
    rules: Any = {LookupError: "discard", OSError: timedelta(seconds=30), Gone: 7.0}

    @still.task(retry=Retry(3, 1.0, rules))
    async def fail() -> None:
        raise error

    async with still:
        handle = await still.schedule(fail.call())
        assert await delays(still, clock, handle.id, 1) == ([] if wanted is None else [wanted])
        if wanted is None:
            view = await get(still, handle.id)
            assert (view.state, view.reason) == ("discarded", "its retry rules discard KeyError")


async def test_retry_after_says_when_and_counts_as_an_attempt(still: OnCue, clock: HandClock) -> None:
    @still.task(retry=Retry(2, 1.0))
    async def busy() -> None:
        raise RetryAfter(42, "slow down")

    async with still:
        handle = await still.schedule(busy.call())
        assert await delays(still, clock, handle.id, 9) == [42]
        view = await get(still, handle.id)
        assert (view.state, view.attempt, view.error) == ("discarded", 2, "RetryAfter: slow down")


async def test_snooze_puts_back_without_an_attempt_and_keeps_the_reason(still: OnCue, clock: HandClock) -> None:
    @still.task(retry=Retry.never())
    async def wait(ctx: JobContext) -> str:
        if ctx.attempt <= 3:
            raise Snooze(timedelta(hours=1), "not open yet")
        return f"attempt {ctx.attempt}, {ctx.attempts_left} left"

    async with still:
        handle = await still.schedule(wait.call())
        assert await delays(still, clock, handle.id, 9) == [3600, 3600, 3600]
        assert await handle.result() == "attempt 4, 0 left"
        seen = await still.jobs.attempts(handle.id)
        assert [(one.outcome, one.reason) for one in seen] == [("snoozed", "not open yet")] * 3


async def test_discard_gives_up_at_once_with_its_reason(still: OnCue) -> None:
    @still.task()
    def stop() -> None:
        raise Discard("the person has left")

    async with still:
        handle = await still.schedule(stop.call())
        await still.drain()
        view = await get(still, handle.id)
        assert (view.state, view.reason, view.attempt) == ("discarded", "the person has left", 1)


async def test_a_retry_policy_that_fails_itself_loses_nothing(still: OnCue, clock: HandClock) -> None:
    def broken(failures: int, error: BaseException) -> float:
        raise ZeroDivisionError

    @still.task(retry=Retry(2, broken))
    async def fail() -> None:
        raise ValueError("no")

    async with still:
        handle = await still.schedule(fail.call())
        assert await delays(still, clock, handle.id, 1) == [60]
        (attempt,) = await still.jobs.attempts(handle.id)
        assert attempt.error == "ValueError: no (and its retry policy failed: ZeroDivisionError())"


@pytest.mark.parametrize("kind", ["coroutine", "function"])
async def test_on_discard_is_told_once_what_was_given_up(still: OnCue, clock: HandClock, kind: str) -> None:
    told: list[DiscardedJob] = []

    async def tell(job: DiscardedJob) -> None:
        await asyncio.sleep(0)
        told.append(job)

    @still.task(retry=Retry(2, 1.0), on_discard=tell if kind == "coroutine" else told.append)
    async def fail(n: int) -> None:
        raise ValueError("no")

    async with still:
        handle = await still.schedule(fail.call(7), key="k", group="g")
        await still.drain()
        assert told == []
        clock.move(1)
        await still.drain()
    (one,) = told
    assert (one.id, one.task, one.args, one.key, one.group) == (handle.id, fail.name, '{"n":7}', "k", "g")
    assert (one.attempt, one.reason, one.error) == (2, "all 2 attempts failed", "ValueError: no")


async def test_an_on_discard_that_fails_is_told_and_stops_nothing(
    still: OnCue, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(job: DiscardedJob) -> None:
        raise ValueError("broken hook")

    @still.task(retry=Retry.never(), on_discard=broken)
    async def fail() -> None:
        raise ValueError("no")

    async with still:
        handles = await still.schedule_many([fail.call(), fail.call()])
        await still.drain()
        assert [(await get(still, one.id)).state for one in handles] == ["discarded"] * 2
    assert "broken hook" in caplog.text


async def test_an_on_discard_that_never_ends_is_cancelled_at_shutdown(
    app: OnCue, caplog: pytest.LogCaptureFixture
) -> None:
    begun = asyncio.Event()

    async def endless(job: DiscardedJob) -> None:
        begun.set()
        await asyncio.Event().wait()

    @app.task(retry=Retry.never(), on_discard=endless)
    async def fail() -> None:
        raise ValueError("no")

    async with asyncio.timeout(30), app.worker(WorkerOptions(grace=0.01)):
        await app.schedule(fail.call())
        await begun.wait()
    assert "an on_discard hook did not end" in caplog.text


@pytest.mark.parametrize("when_late", ["run", "skip", "fail"])
@pytest.mark.parametrize("late", [5.0, 5.000001])
async def test_a_job_that_is_too_late_runs_is_skipped_or_fails(
    still: OnCue, clock: HandClock, when_late: Any, late: float
) -> None:
    ran: list[int] = []

    @still.task(max_late=5, when_late=when_late, retry=Retry(3, 1.0))
    async def remind() -> None:
        ran.append(1)

    async with still:
        handle = await still.schedule(remind.call(), delay=60)
        clock.move(60 + late)
        await still.drain()
        view = await get(still, handle.id)
    if late == 5 or when_late == "run":
        assert (view.state, len(ran)) == ("completed", 1)
    else:
        assert ran == []
        assert (view.state, view.outcome) == (
            ("cancelled", "skipped") if when_late == "skip" else ("discarded", "discarded")
        )
        assert "5.000 s late, more than max_late=5 s" in (view.reason or "")


async def test_the_calls_own_deadline_wins_and_a_retry_is_measured_by_its_own_time(
    still: OnCue, clock: HandClock
) -> None:
    @still.task(retry=Retry(3, 100.0))
    async def remind(ctx: JobContext) -> int:
        if ctx.attempt < 2:
            raise ValueError("no")
        return ctx.attempt

    async with still:
        handle = await still.schedule(remind.call(), max_late=2, when_late="skip")
        clock.move(1)
        await still.drain()
        clock.move(100)
        await still.drain()
        assert await handle.result() == 2


async def test_finished_jobs_go_when_their_retention_is_over(make: Make, clock: HandClock) -> None:
    app = make(clock=clock, retention=timedelta(hours=1))

    @app.task()
    async def usual() -> None: ...

    @app.task(retention=timedelta(days=1))
    async def long() -> None: ...

    @app.task(retention=0)
    async def none() -> None: ...

    async with app:
        ids = [one.id for one in await app.schedule_many([usual.call(), long.call(), none.call()])]
        cancelled = (await app.schedule(usual.call(), delay=60)).id
        await app.cancel(id=cancelled)
        await app.drain()
        sweeper = app.service(worker=False).sweeper
        assert (await sweeper.run_once()).pruned == 1
        assert [await app.jobs.get(id) is None for id in ids] == [False, False, True]
        clock.move(3600)
        assert (await sweeper.run_once()).pruned == 2
        assert await app.jobs.get(cancelled) is None
        clock.move(86400)
        assert (await sweeper.run_once()).pruned == 1


async def test_arguments_that_no_longer_fit_are_kept_for_a_deploy_that_understands_them(
    make: Make, clock: HandClock
) -> None:
    before, after, mended = make(clock=clock), make(clock=clock), make(clock=clock)

    @before.task(name="send", retry=Retry(3, 10.0))
    async def old(n: int) -> None: ...

    @after.task(name="send", retry=Retry(3, 10.0))
    async def broken(n: int, to: str) -> None: ...

    @mended.task(name="send", retry=Retry(3, 10.0))
    async def new(n: int, to: str = "all") -> str:
        return f"{n} to {to}"

    async with before, after, mended:
        handle = await before.schedule(old.call(7))
        await after.drain()
        view = await get(after, handle.id)
        assert (view.state, view.args) == ("scheduled", {"n": 7})
        (attempt,) = await after.jobs.attempts(handle.id)
        assert "do not fit send's signature" in (attempt.error or "")
        assert "missing required field `to`" in (attempt.error or "")
        clock.move(10)
        await mended.drain()
        view = await get(mended, handle.id)
        assert (view.state, view.result) == ("completed", "7 to all")


async def test_a_task_that_nobody_knows_yet_waits_and_is_run_by_a_later_deploy(
    make: Make, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    new, old = make(clock=clock), make(clock=clock)

    @new.task(name="fresh", retry=Retry.never())
    async def fresh() -> str:
        return "run"

    async with new, old:
        handle = await new.schedule(fresh.call(), key="k")
        for times in range(1, 5):
            await old.drain()
            assert f"jobs ask for tasks that this process has not registered: 'fresh' (job {handle.id})" in caplog.text
            view = await get(old, handle.id)
            assert (view.state, view.scheduled_at, view.snoozes) == ("scheduled", clock.now(), times)
        await new.drain()
        assert await handle.result() == "run"


async def test_a_limited_task_starts_no_more_than_its_rate(still: OnCue, clock: HandClock) -> None:
    started: list[float] = []
    begin = clock.now()

    @still.task(limit=Limit(2, per=1, burst=2))
    async def send() -> None:
        started.append((clock.now() - begin) / S)

    async with still:
        await still.schedule_many([send.call() for _ in range(6)])
        for _ in range(5):
            await still.drain()
            clock.move(0.5)
    assert started == [0, 0, 0.5, 1.0, 1.5, 2.0]
