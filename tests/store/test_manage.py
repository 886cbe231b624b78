"""What people do to jobs: cancel, move, run now, run again, hold after a restore; and what the sweeper prunes."""

from __future__ import annotations

import pytest

from oncue.errors import InvalidJob, UnknownJob
from oncue.job import Completed, Failed, Snoozed
from tests.store.kit import DAY, T0, Bench, S, job


async def cancel(bench: Bench, id: int | None = None, key: str | None = None, keep: int | None = None) -> str:
    expires = None if keep is None else bench.now + keep
    return await bench.store.cancel(bench.now, expires, id=id, key=key)


async def test_cancel_prevents_what_has_not_begun(bench: Bench) -> None:
    worker = await bench.worker()
    by_id, by_key = await bench.add(job(), job(5, key="k"))
    assert await cancel(bench, id=by_id) == "prevented"
    assert await cancel(bench, key="k") == "prevented"
    bench.clock.move(10)
    assert await bench.ids(worker) == []
    for id in (by_id, by_key):
        view = await bench.get(id)
        assert (view.state, view.outcome, view.attempt) == ("cancelled", "cancelled", 0)
        assert view.reason == "cancelled before it ran"
    assert (await bench.put(job(key="k"))).status == "created"


async def test_cancel_prevents_the_next_attempt(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job(key="k"))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Failed("E", delay=5 * S))
    assert await cancel(bench, key="k") == "prevented"
    bench.clock.move(10)
    assert await bench.ids(worker) == []
    assert await bench.state(id) == "cancelled"
    assert (await bench.put(job(key="k"))).status == "created"


async def test_cancel_asks_what_runs_and_the_ack_settles_it(bench: Bench) -> None:
    worker, other = await bench.worker(), await bench.worker()
    (id,) = await bench.add(job(key="k"))
    (got,) = await bench.claim(worker)
    assert await cancel(bench, key="k") == "requested"
    assert await cancel(bench, id=id) == "requested"
    assert await bench.state(id) == "running"
    assert (await bench.ask(other)).cancel == []
    assert (await bench.ask(worker)).cancel == [id]
    await bench.done(worker, got, Completed())
    assert await bench.state(id) == "completed"
    assert await cancel(bench, id=id) == "too late"
    assert await cancel(bench, key="k") == "too late"


async def test_a_request_to_stop_outlives_a_snooze(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job())
    (got,) = await bench.claim(worker)
    await cancel(bench, id=id)
    await bench.done(worker, got, Snoozed(0, "given back", released=True))
    (got,) = await bench.claim(worker)
    assert (got.id, got.cancel) == (id, 1)


async def test_a_key_cancels_the_waiting_job_and_asks_the_started_one(bench: Bench) -> None:
    worker = await bench.worker()
    (started,) = await bench.add(job(key="k"))
    (got,) = await bench.claim(worker)
    (waiting,) = await bench.add(job(key="k"))
    assert await cancel(bench, key="k") == "requested"
    assert await bench.state(waiting) == "cancelled"
    await bench.done(worker, got)
    assert (await bench.state(started), await bench.ids(worker)) == ("completed", [])


async def test_cancelling_the_started_job_by_its_id_frees_its_key_for_the_waiting_one(bench: Bench) -> None:
    worker = await bench.worker()
    (started,) = await bench.add(job(key="k"))
    (got,) = await bench.claim(worker)
    (waiting,) = await bench.add(job(key="k"))
    await bench.done(worker, got, Failed("E", delay=60 * S))
    assert await bench.ids(worker) == []
    assert await cancel(bench, id=started) == "prevented"
    assert await bench.ids(worker) == [waiting]


async def test_cancelling_what_is_not_there_is_too_late(bench: Bench) -> None:
    assert await cancel(bench, id=999) == "too late"
    assert await cancel(bench, key="nobody") == "too late"


async def test_reschedule_moves_forth_and_back(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job(5, key="k"))
    assert await bench.store.reschedule(T0 + 60 * S, key="k", id=None)
    bench.clock.move(10)
    assert await bench.ids(worker) == []
    assert await bench.store.reschedule(T0 + 10 * S, key=None, id=id)
    assert await bench.ids(worker) == [id]
    assert not await bench.store.reschedule(T0, key="k", id=None), "it runs"
    assert not await bench.store.reschedule(T0, key="nobody", id=None)


async def test_reschedule_prefers_the_one_that_never_started(bench: Bench) -> None:
    worker = await bench.worker()
    (started,) = await bench.add(job(key="k"))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Failed("E", delay=5 * S))
    (waiting,) = await bench.add(job(key="k"))
    assert await bench.store.reschedule(T0 + 60 * S, key="k", id=None)
    assert (await bench.get(waiting)).scheduled_at == T0 + 60 * S
    assert (await bench.get(started)).scheduled_at == T0 + 5 * S
    assert await bench.store.reschedule(T0 + 70 * S, key=None, id=started)


async def test_run_now_moves_a_waiting_job_to_now(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job(3600))
    bench.clock.move(1)
    await bench.store.run_now(bench.now, id)
    (got,) = await bench.claim(worker)
    assert (got.id, got.scheduled_at) == (id, T0 + S)
    with pytest.raises(InvalidJob, match="running"):
        await bench.store.run_now(bench.now, id)
    await bench.done(worker, got)
    with pytest.raises(InvalidJob, match="completed"):
        await bench.store.run_now(bench.now, id)
    with pytest.raises(UnknownJob, match="999"):
        await bench.store.run_now(bench.now, 999)


async def test_a_discarded_job_runs_again_with_as_many_attempts_as_before(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job(args='{"n":1}', key="k", group="g", metadata='{"m":1}', max_attempts=2))
    for _ in range(2):
        (got,) = await bench.claim(worker)
        await bench.done(worker, got, Failed("E", delay=0))
    assert await bench.state(id) == "discarded"
    await bench.store.restart(bench.now, id)
    for n in (3, 4):
        (got,) = await bench.claim(worker)
        assert (got.id, got.attempt, got.args, got.key, got.group) == (id, n, '{"n":1}', "k", "g")
        assert await bench.state(id) == "running"
        await bench.done(worker, got, Failed("E", delay=0))
    view = await bench.get(id)
    assert (view.state, view.attempt, view.metadata) == ("discarded", 4, {"m": 1})
    assert [one.outcome for one in await bench.store.attempts(id)] == ["retried", "discarded", "retried"]


async def test_a_cancelled_job_runs_again(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job())
    await cancel(bench, id=id)
    await bench.store.restart(bench.now, id)
    assert await bench.ids(worker) == [id]


async def test_a_job_that_runs_again_leaves_nobody_behind_the_job_that_now_waits_for_it(bench: Bench) -> None:
    """The waiting job of the same key was its group's next; from now on it is behind its key, the others aren't."""
    worker = await bench.worker()
    (again,) = await bench.add(job(key="k", max_attempts=1))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Failed("E"))
    holder, successor, behind = await bench.add(job(group="g"), job(key="k", group="g"), job(group="g"))
    (got,) = await bench.claim(worker)
    assert got.id == holder
    await bench.store.restart(bench.now, again)
    assert await bench.ids(worker) == [again]
    await bench.done(worker, got)
    assert await bench.ids(worker) == [behind]
    assert (await bench.get(successor)).blocked_by == "key:k"


async def test_a_job_that_runs_again_is_not_stuck_behind_its_own_successor(bench: Bench) -> None:
    """All in one group, others first: the successor's turn in the group comes before that of the one it waits for."""
    worker = await bench.worker()
    (again,) = await bench.add(job(key="k", group="g", max_attempts=1))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Failed("E"))
    holder, between, successor = await bench.add(job(-9, group="g"), job(-8, group="g"), job(-7, key="k", group="g"))
    (got,) = await bench.claim(worker)
    assert got.id == holder
    await bench.store.restart(bench.now, again)
    assert await bench.ids(worker) == []
    for wanted in (between, again, successor):
        await bench.done(worker, got)
        (got,) = await bench.claim(worker)
        assert got.id == wanted


async def test_what_cannot_run_again_says_so_and_stays_as_it_is(bench: Bench) -> None:
    worker = await bench.worker()
    done, gone = await bench.add(job(), job(key="k"))
    jobs = {one.id: one for one in await bench.claim(worker)}
    with pytest.raises(InvalidJob, match="running"):
        await bench.store.restart(bench.now, done)
    await bench.done(worker, jobs[done])
    await bench.done(worker, jobs[gone], Failed("E"))
    with pytest.raises(InvalidJob, match="completed"):
        await bench.store.restart(bench.now, done)
    with pytest.raises(UnknownJob):
        await bench.store.restart(bench.now, 999)
    (other,) = await bench.add(job(key="k"))
    (got,) = await bench.claim(worker)
    with pytest.raises(InvalidJob, match="key"):
        await bench.store.restart(bench.now, gone)
    assert await bench.state(gone) == "discarded"
    await bench.done(worker, got)
    await bench.store.restart(bench.now, gone)
    assert (await bench.state(other), await bench.ids(worker)) == ("completed", [gone])


async def test_prune_takes_what_is_over_its_retention_with_its_attempts(bench: Bench) -> None:
    worker = await bench.worker()
    short, long, ever = await bench.add(job(), job(), job())
    for one in await bench.claim(worker):
        await bench.done(worker, one, Failed("E", delay=0))
    keep: dict[int, int | None] = {short: 10 * S, long: DAY, ever: None}
    for one in await bench.claim(worker):
        await bench.done(worker, one, retention=keep[one.id])
    bench.clock.set(T0 + 10 * S - 1)
    assert await bench.store.prune(bench.now, 100) == 0
    bench.clock.set(T0 + 10 * S)
    assert await bench.store.prune(bench.now, 100) == 1
    assert await bench.store.job(short) is None
    assert await bench.store.attempts(short) == []
    assert len(await bench.store.attempts(long)) == 1
    bench.clock.move(10 * 365 * 86400)
    assert await bench.store.prune(bench.now, 100) == 1
    assert await bench.state(ever) == "completed"


async def test_prune_takes_a_batch_at_a_time(bench: Bench) -> None:
    for n in range(10):
        await cancel(bench, id=(await bench.add(job(3600)))[0], keep=n)
    bench.clock.move(1)
    assert [await bench.store.prune(bench.now, 4) for _ in range(4)] == [4, 4, 2, 0]


async def test_prune_leaves_rates_exact(bench: Bench) -> None:
    from oncue.limits import Limit, Policy, Rules

    worker, policy = await bench.worker(), Policy({"t": Rules(limit=Limit(1, per=3600, burst=2))})
    await bench.add(*[job() for _ in range(3)])
    assert len(await bench.claim(worker, policy=policy)) == 2
    bench.clock.move(1800)
    await bench.store.prune(bench.now, 10)
    assert await bench.ids(worker, policy=policy) == []


async def test_after_a_restore_what_came_due_is_held_until_it_is_released(bench: Bench) -> None:
    old = await bench.worker()
    running, *_ = await bench.add(job(-9, group="g"))
    await bench.claim(old)
    due, behind, future = await bench.add(job(-5), job(-4, group="g"), job(5))
    assert await bench.ids(old, count=0) == []
    assert await bench.store.hold_due(bench.now) == 3
    worker = await bench.worker()
    bench.clock.move(6)
    assert await bench.ids(worker) == [future]
    for id in (running, due, behind):
        view = await bench.get(id)
        assert (view.state, view.blocked_by, view.eligible_at) == ("scheduled", "restore", None)
    await bench.store.unblock()
    assert await bench.ids(worker) == [], "a sweep releases nothing"
    assert await cancel(bench, id=due) == "prevented"
    assert await bench.store.release_held() == 2
    (got,) = await bench.claim(worker)
    assert got.id == running
    await bench.done(worker, got)
    assert await bench.ids(worker) == [behind]


async def test_after_a_restore_a_limited_job_is_held_too(bench: Bench) -> None:
    """It was due before the restore; that its slot comes later makes no difference."""
    from oncue.limits import Limit, Policy, Rules

    worker, policy = await bench.worker(), Policy({"t": Rules(limit=Limit(1, per=60))})
    await bench.add(job(-2), job(-1))
    (got,) = await bench.claim(worker, policy=policy)
    await bench.done(worker, got)
    assert await bench.store.hold_due(bench.now) == 1
    bench.clock.move(600)
    assert await bench.ids(worker, policy=policy) == []


async def test_the_worker_of_before_the_restore_is_fenced(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job())
    (got,) = await bench.claim(worker)
    await bench.store.hold_due(bench.now)
    assert (await bench.done(worker, got)).lost == [id]
    assert await bench.state(id) == "scheduled"
