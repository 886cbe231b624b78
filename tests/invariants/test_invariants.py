"""Each invariant of the design by its name, as plainly as it can be shown.

``tests/crash`` shows them with killed, stopped and competing processes, ``tests/simulation`` with random lives,
``tests/store`` case by case.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time

from oncue import Limit, OnCue, Scheduled, current_job
from oncue.job import Failed, NewJob, Snoozed
from oncue.limits import Policy, Rules
from oncue.store import Claim
from oncue.worker import WorkerOptions
from tests.databases import Backend
from tests.store.kit import LEASE, Bench, S, job

PROMISE = """
import asyncio, os, signal, sys
from oncue import OnCue
app = OnCue(sys.argv[1])
@app.task(name="t")
async def t() -> None: ...
async def main() -> None:
    async with app:
        print((await app.schedule(t.call(), delay=60)).id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_durable_before_promised(app: OnCue, backend: Backend) -> None:
    @app.task(name="t")
    async def t() -> None: ...

    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", PROMISE, app.url], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    async with app:
        found = await app.jobs.get(int(done.stdout))
        assert found is not None
        assert found.state == "scheduled"
        with backend.connect() as mine:
            rolled_back = await app.schedule(t.call(), key="rolled back", connection=mine)
            mine.rollback()
            committed = await app.schedule(t.call(), key="kept", connection=mine)
            mine.commit()
        gone = await app.jobs.get(rolled_back.id)
        assert gone is None or gone.key == "kept"
        stored = await app.jobs.get(committed.id)
        assert stored is not None
        assert stored.key == "kept"
        assert (await app.jobs.counts()).scheduled + (await app.jobs.counts()).due == 2


async def test_never_early(app: OnCue) -> None:
    """10,000 random due times: none starts before its own, to the microsecond."""
    started: list[tuple[float, int]] = []
    all_done, count, rng = asyncio.Event(), 10_000, random.Random(7)

    @app.task()
    async def note(due: int) -> None:
        started.append((time.time_ns() // 1000, due))
        if len(started) == count:
            all_done.set()

    async with app.worker():
        now = app.clock.now()
        dues = [now + rng.randrange(3 * S) for _ in range(count)]
        await app.store.insert_many(
            [NewJob(0, note.name, f'{{"due":{due}}}', "default", 0, due, 5, now) for due in dues]
        )
        app.wake.hint(now)
        await all_done.wait()
    early = [(start, due) for start, due in started if start < due]
    assert not early


async def test_a_far_job_never_delays_a_near_one(app: OnCue) -> None:
    """The worker sleeps for the far job; the near one that comes later wakes it."""
    ran: list[str] = []

    @app.task()
    async def note(name: str) -> None:
        ran.append(name)

    async with app.worker():
        await app.schedule(note.call("far"), delay=3600)
        near = await app.schedule(note.call("near"), delay=0.05)
        await near.result(timeout=30)
    assert ran == ["near"]


async def test_a_key_never_blocks_its_successor(app: OnCue) -> None:
    """A running question schedules the next one under its own key; all of them run, one after the other."""
    asked: list[int] = []
    all_asked = asyncio.Event()

    @app.task()
    async def ask(number: int) -> None:
        asked.append(number)
        if number < 5:
            following = await app.schedule(ask.call(number + 1), key="question-t-1")
            assert following.status == "created"
        else:
            all_asked.set()

    async with app.worker():
        await app.schedule(ask.call(1), key="question-t-1")
        await all_asked.wait()
    assert asked == [1, 2, 3, 4, 5]


async def test_a_group_never_overlaps(app: OnCue) -> None:
    """Three workers, retries and snoozes: in each group one runs at a time."""
    running: dict[str, int] = {}
    most: dict[str, int] = {}
    rng = random.Random(11)

    @app.task()
    async def step(group: str) -> None:
        running[group] = running.get(group, 0) + 1
        most[group] = max(most.get(group, 0), running[group])
        await asyncio.sleep(0)
        running[group] -= 1
        if current_job().attempt == 1 and rng.random() < 0.3:
            raise ValueError("again")

    async with app.worker(), app.worker(), app.worker():
        jobs = [Scheduled(step.call(f"g{n % 10}"), group=f"g{n % 10}", max_attempts=100) for n in range(200)]
        handles = await app.schedule_many(jobs)
        await asyncio.gather(*(handle.result(timeout=100) for handle in handles))
    assert most == {f"g{n}": 1 for n in range(10)}


async def test_fenced(bench: Bench) -> None:
    """A worker that comes back after its jobs were rescued changes nothing."""
    zombie, heir = await bench.worker("zombie"), await bench.worker("heir", lease=100 * LEASE)
    (id,) = await bench.add(job())
    (mine,) = await bench.claim(zombie)
    bench.clock.move(LEASE / S + 1)
    await bench.store.rescue(bench.now, None)
    (theirs,) = await bench.claim(heir)
    found = await bench.done(zombie, mine)
    assert (found.lost, found.lease_lost) == ([id], True)
    assert await bench.state(id) == "running"
    assert (await bench.done(heir, theirs)).lost == []
    assert await bench.state(id) == "completed"


async def test_cancel_is_truthful(app: OnCue) -> None:
    ran: list[str] = []
    began = asyncio.Event()

    @app.task()
    async def work(name: str) -> None:
        ran.append(name)
        began.set()
        if name == "running":
            await asyncio.Event().wait()

    async with app.worker():
        waiting = await app.schedule(work.call("waiting"), delay=3600)
        assert await app.cancel(id=waiting.id) == "prevented"
        running = await app.schedule(work.call("running"))
        await began.wait()
        assert await app.cancel(id=running.id) == "requested"
        done = await app.schedule(work.call("done"))
        await done.result(timeout=30)
        assert await app.cancel(id=done.id) == "too late"
    states = [(await _state(app, handle.id)) for handle in (waiting, running, done)]
    assert states == ["cancelled", "cancelled", "completed"]
    assert ran == ["running", "done"]


async def _state(app: OnCue, id: int) -> str:
    async with app:
        found = await app.jobs.get(id)
        assert found is not None
        return found.state


async def test_bounded_recovery(app: OnCue) -> None:
    """The other worker needs no sweep and no job of its own: it wakes when the dead one's lease ends."""
    runs: list[int] = []

    @app.task(name="t")
    async def t() -> None:
        runs.append(current_job().attempt)

    async with app:
        dead = Bench(app.store, app.clock)  # type: ignore[arg-type]
        lost = await dead.worker("dead", lease=S // 2)
        handle = await app.schedule(t.call())
        claim = Claim(lost, dead.now, dead.now, S // 2, count=9)
        assert [one.id for one in (await app.store.claim(claim)).jobs] == [handle.id]
        async with app.worker(WorkerOptions(name="heir")):
            await handle.result(timeout=60)
        assert runs == [2]
        (attempt,) = await app.jobs.attempts(handle.id)
        assert attempt.outcome == "rescued"
        assert "let its lease end" in str(attempt.reason)
        for life in dead.lives.values():
            life.release()


async def test_limits_are_exact(bench: Bench) -> None:
    """Two workers, 10 a second with a burst of 3: in no span of a second do more than 13 start, and none is lost."""
    policy = Policy(tasks={"t": Rules(limit=Limit(10, per=1, burst=3))})
    workers = [await bench.worker("a", lease=1000 * S), await bench.worker("b", lease=1000 * S)]
    await bench.add(*[job() for _ in range(50)])
    starts: list[int] = []
    for turn in range(600):
        jobs = await bench.claim(workers[turn % 2], policy=policy)
        starts += [bench.now] * len(jobs)
        for one in jobs:
            await bench.done(workers[turn % 2], one)
        bench.clock.move(0.01)
    assert len(starts) == 50
    for first in starts:
        assert sum(first <= start < first + S for start in starts) <= 13


async def test_a_hint_may_be_lost_never_needed_for_long(app: OnCue) -> None:
    """The hint of `schedule` is lost on its way; the next sweep has the worker look."""
    app.sweep_us = S // 10
    lost: list[int] = []
    real = app.wake.hint

    @app.task()
    async def t() -> None: ...

    def hint(due: int) -> None:
        if lost:
            real(due)
        else:
            lost.append(due)

    async with app.worker(WorkerOptions(name="idle")):
        await (await app.schedule(t.call())).result(timeout=60)
        app.wake.hint = hint  # type: ignore[method-assign]
        handle = await app.schedule(t.call(), delay=0.01)
        assert len(lost) == 1
        await handle.result(timeout=60)


async def test_a_fire_happens_once(bench: Bench) -> None:
    """Two planners read the same schedule; the one that comes second finds the fire taken."""
    from oncue.store import ScheduleRow

    row = ScheduleRow("tick", "t", "{}", "@every 60s", "UTC", {}, bench.now, None, 0, 0, bench.now)
    await bench.store.save_schedule(row)
    (first,), (second,) = await bench.store.schedules(), await bench.store.schedules()
    fire = [job(origin="cron:tick", origin_ref=str(bench.now))]
    assert await bench.store.advance_schedule(first, bench.now + 60 * S, 0, fire)
    again = [job(origin="cron:tick", origin_ref=str(bench.now))]
    assert not await bench.store.advance_schedule(second, bench.now + 60 * S, 0, again)
    assert len(await bench.store.list_jobs(limit=10)) == 1


async def test_nothing_silent(bench: Bench) -> None:
    """What does not run, or runs no more, says why; what was folded into another is counted."""
    worker = await bench.worker()
    (id,) = await bench.add(job(key="k", max_attempts=1))
    await bench.put(job(key="k"))
    (one,) = await bench.claim(worker)
    await bench.done(worker, one, Failed("ValueError: no", "the traceback", delay=S))
    found = await bench.get(id)
    assert (found.state, found.folded, found.error) == ("discarded", 1, "ValueError: no")
    assert found.reason == "its only attempt failed"
    (later,) = await bench.add(job())
    (one,) = await bench.claim(worker)
    await bench.done(worker, one, Snoozed(60 * S, "the number is paused"))
    (attempt,) = await bench.store.attempts(later)
    assert (attempt.outcome, attempt.reason) == ("snoozed", "the number is paused")
    await bench.store.cancel(bench.now, None, id=later, key=None)
    assert (await bench.get(later)).reason == "cancelled before it ran"


async def test_restoring_a_backup_sends_nothing_twice_by_itself(bench: Bench) -> None:
    """What was due or running when the backup was taken waits for a person; what is due later runs."""
    old = await bench.worker()
    running, due, later = await bench.add(job(), job(1), job(3600))
    (one,) = await bench.claim(old)
    assert one.id == running
    bench.clock.move(60)
    assert await bench.store.hold_due(bench.now) == 2
    heir = await bench.worker()
    assert await bench.claim(heir) == []
    bench.clock.move(3600)
    assert await bench.ids(heir) == [later]
    assert await bench.store.release_held() == 2
    assert await bench.ids(heir) == [running, due]


def test_a_row_that_was_handled_is_not_handled_again(backend: Backend) -> None:
    """A source's row whose handler left its due value alone runs once; a new value makes another job."""
    from tests.source.stage import Stage

    async def live() -> list[object]:
        stage = Stage(backend)
        stage.app.source(
            table="free_trials",
            key="question-{id}",
            due="next_question_scheduled_for",
            where="status = 'active'",
            task=stage.app.tasks["send_question"],
        )
        async with stage.app:
            stage.db.execute(
                "INSERT INTO free_trials (id, next_question_scheduled_for) VALUES (1, ?)", (stage.clock.now() // S,)
            )
            for _ in range(3):
                await stage.sweep()
                await stage.work()
            once = list(stage.ran)
            stage.clock.move(10)
            stage.db.execute("UPDATE free_trials SET next_question_scheduled_for = ?", (stage.clock.now() // S,))
            await stage.sweep()
            await stage.work()
            stage.db.close()
            return [once, stage.ran]

    assert asyncio.run(live()) == [[1], [1, 1]]
