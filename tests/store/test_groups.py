"""Groups: one at a time, in due order through retries; a future job never blocks a due one."""

from __future__ import annotations

import random

import pytest

from oncue.job import Completed, Failed, Skipped, Snoozed
from tests.store.kit import T0, Bench, S, job


async def test_a_group_runs_one_at_a_time_in_due_order_then_by_id(bench: Bench) -> None:
    worker = await bench.worker()
    rng = random.Random(3)
    jobs = [job(-rng.randrange(4), group="g", priority=rng.randint(-5, 5)) for _ in range(40)]
    ids = await bench.add(*jobs)
    wanted = [id for _, id in sorted(zip([one.scheduled_at for one in jobs], ids, strict=True))]
    got: list[int] = []
    while len(got) < 40:
        (one,) = await bench.claim(worker)
        got.append(one.id)
        assert await bench.ids(worker) == []
        await bench.done(worker, one)
    assert got == wanted


async def test_groups_do_not_touch_each_other(bench: Bench) -> None:
    worker = await bench.worker()
    ids = await bench.add(*[job(-1, group=f"g{n}") for n in range(50)], job(-1))
    assert sorted(await bench.ids(worker)) == ids


async def test_a_future_job_never_blocks_a_due_one(bench: Bench) -> None:
    worker = await bench.worker()
    _, due = await bench.add(job(3600, group="g", priority=-100), job(0, group="g", priority=100))
    assert await bench.ids(worker) == [due]


async def test_a_job_that_is_due_earlier_goes_first_though_it_came_later(bench: Bench) -> None:
    worker = await bench.worker()
    (late,) = await bench.add(job(-1, group="g"))
    (early,) = await bench.add(job(-2, group="g", priority=100))
    (got,) = await bench.claim(worker)
    assert got.id == early
    await bench.done(worker, got)
    assert await bench.ids(worker) == [late]


async def test_the_head_of_a_group_waits_in_another_queue(bench: Bench) -> None:
    worker = await bench.worker()
    head, behind = await bench.add(job(-2, group="g", queue="a"), job(-1, group="g", queue="b"))
    assert await bench.ids(worker, queues=frozenset({"b"})) == []
    (got,) = await bench.claim(worker, queues=frozenset({"a"}))
    assert got.id == head
    await bench.done(worker, got)
    assert await bench.ids(worker, queues=frozenset({"b"})) == [behind]


async def test_a_job_between_attempts_holds_its_lane(bench: Bench) -> None:
    worker = await bench.worker()
    first, second = await bench.add(job(-2, group="g"), job(-1, group="g"))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Failed("E", delay=5 * S))
    assert await bench.ids(worker) == []
    view = await bench.get(second)
    assert (view.blocked_by, view.eligible_at, view.scheduled_at) == ("group:g", None, T0 - S)
    bench.clock.move(5)
    (got,) = await bench.claim(worker)
    assert (got.id, got.attempt) == (first, 2)
    await bench.done(worker, got, Failed("E", delay=None))
    assert await bench.ids(worker) == [second]


async def test_a_job_that_yields_lets_others_pass_between_attempts(bench: Bench) -> None:
    worker = await bench.worker()
    first, second = await bench.add(job(-2, group="g"), job(-1, group="g"))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Failed("E", delay=5 * S), "yield")
    (other,) = await bench.claim(worker)
    assert other.id == second
    bench.clock.move(5)
    assert await bench.ids(worker) == []
    await bench.done(worker, other)
    assert await bench.ids(worker) == [first]


async def test_a_snoozed_job_holds_nothing(bench: Bench) -> None:
    worker = await bench.worker()
    first, second = await bench.add(job(-2, group="g"), job(-1, group="g"))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Snoozed(5 * S, "later"))
    (other,) = await bench.claim(worker)
    assert other.id == second
    await bench.done(worker, other)
    bench.clock.move(5)
    assert await bench.ids(worker) == [first]


async def test_a_snooze_after_a_failure_lets_go_of_the_lane(bench: Bench) -> None:
    worker = await bench.worker()
    _, second = await bench.add(job(-2, group="g"), job(-1, group="g"))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Failed("E", delay=0))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Snoozed(60 * S, "later"))
    assert await bench.ids(worker) == [second]


@pytest.mark.parametrize("how", ["cancel", "reschedule"])
async def test_a_holder_that_is_moved_or_cancelled_lets_go_of_the_lane(bench: Bench, how: str) -> None:
    worker = await bench.worker()
    first, second = await bench.add(job(-2, group="g"), job(-1, group="g"))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Failed("E", delay=5 * S))
    assert await bench.ids(worker) == []
    if how == "cancel":
        assert await bench.store.cancel(bench.now, None, id=first, key=None) == "prevented"
    else:
        assert await bench.store.reschedule(T0 + 60 * S, id=first, key=None)
    assert await bench.ids(worker) == [second]


@pytest.mark.parametrize("how", ["cancel", "reschedule"])
async def test_a_head_that_never_started_is_moved_or_cancelled(bench: Bench, how: str) -> None:
    worker = await bench.worker()
    first, second = await bench.add(job(-2, group="g", queue="unserved"), job(-1, group="g"))
    queues = frozenset({"default"})
    assert await bench.ids(worker, queues=queues) == []
    if how == "cancel":
        await bench.store.cancel(bench.now, None, id=first, key=None)
    else:
        await bench.store.reschedule(T0 + 60 * S, id=first, key=None)
    assert await bench.ids(worker, queues=queues) == [second]


@pytest.mark.parametrize(
    "outcome", [Completed(), Failed("E", delay=None), Skipped("late"), Skipped("asked to", "cancelled")]
)
async def test_every_final_outcome_frees_the_lane(bench: Bench, outcome: Completed | Failed | Skipped) -> None:
    worker = await bench.worker()
    ids = await bench.add(*[job(group="g") for _ in range(3)])
    got = []
    for _ in ids:
        (one,) = await bench.claim(worker)
        got.append(one.id)
        await bench.done(worker, one, outcome)
    assert got == ids


async def test_a_key_and_a_group_together_never_wait_for_each_other(bench: Bench) -> None:
    """The snoozed job has the key, the one that waits for the key is the group's head: neither may hold the other."""
    worker = await bench.worker()
    (first,) = await bench.add(job(group="g", key="k"))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Snoozed(5 * S, "later"))
    (second,) = await bench.add(job(1, group="g", key="k"))
    bench.clock.move(2)
    assert await bench.ids(worker) == []
    bench.clock.move(10)
    (got,) = await bench.claim(worker)
    assert (got.id, got.attempt) == (first, 2)
    await bench.done(worker, got)
    assert await bench.ids(worker) == [second]


async def test_two_groups_and_two_keys_crosswise_never_wait_for_each_other(bench: Bench) -> None:
    worker = await bench.worker()
    started = await bench.add(job(group="a", key="k"), job(group="b", key="l"))
    for got in await bench.claim(worker):
        await bench.done(worker, got, Snoozed(5 * S, "later"))
    waiting = await bench.add(job(1, group="b", key="k"), job(1, group="a", key="l"))
    bench.clock.move(2)
    assert await bench.ids(worker) == []
    bench.clock.move(10)
    again = await bench.claim(worker)
    assert sorted(one.id for one in again) == started
    for got in again:
        await bench.done(worker, got)
    assert sorted(await bench.ids(worker)) == waiting


async def test_skip_when_blocked_ends_the_job_with_the_reason(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.add(job(-1, group="g"))
    (running,) = await bench.claim(worker)
    skipped, waits = await bench.add(job(group="g", when_blocked="skip"), job(0.5, group="g"))
    bench.clock.move(1)
    found = await bench.ask(worker, retention=60 * S)
    assert (found.jobs, found.skipped) == ([], 1)
    view = await bench.get(skipped)
    assert (view.state, view.outcome, view.attempt) == ("cancelled", "skipped", 0)
    assert view.reason == "skipped: blocked by group:g"
    await bench.done(worker, running)
    assert await bench.ids(worker) == [waits]
    bench.clock.move(60)
    assert await bench.store.prune(bench.now, 10) == 1


async def test_the_sweep_gives_blocked_jobs_another_look(bench: Bench) -> None:
    worker = await bench.worker()
    first, second = await bench.add(job(-2, group="g"), job(-1, group="g"))
    (running,) = await bench.claim(worker)
    assert await bench.ids(worker) == []
    (blocker,) = await bench.store.blockers()
    assert (blocker.name, blocker.waiting, blocker.job) == ("group:g", 1, first)
    assert await bench.store.unblock() == 1
    assert (await bench.get(second)).blocked_by is None
    assert await bench.ids(worker) == []
    assert (await bench.get(second)).blocked_by == "group:g"
    await bench.done(worker, running)
    assert await bench.ids(worker) == [second]
