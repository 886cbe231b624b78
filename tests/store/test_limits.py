"""Rates and caps: exactly as many starts as a simple oracle allows, in the order of waiting, over all workers."""

from __future__ import annotations

import random

import pytest

from oncue.job import Claimed, Failed, NewJob
from oncue.limits import Limit, Policy, Rules
from oncue.store.steps import Steps, run
from tests.store.kit import T0, Bench, S, job


class Oracle:
    """GCRA in its textbook form (ITU-T I.371): conforming where the arrival is no earlier than TAT - tau."""

    def __init__(self, limit: Limit) -> None:
        self.interval = round(limit.per * S / limit.rate)
        self.tau = self.interval * (limit.burst - 1)
        self.tat = 0

    def earliest(self, now: int) -> int:
        return max(now, self.tat - self.tau)

    def start(self, at: int) -> None:
        assert at >= self.tat - self.tau, "the limit was overrun"
        self.tat = max(self.tat, at) + self.interval


def by_task(**rules: object) -> Policy:
    return Policy({"t": Rules(**rules)})  # type: ignore[arg-type]


async def run_all(bench: Bench, worker: int, policy: Policy, ahead: int = 0) -> list[tuple[int, int]]:
    """Claim at every time that the store asks for, until nothing waits; return (id, start) in order."""
    starts: list[tuple[int, int]] = []
    while True:
        found = await bench.ask(worker, ahead=ahead, policy=policy)
        starts += [(one.id, max(bench.now, one.start_at)) for one in found.jobs]
        for one in found.jobs:
            await bench.done(worker, one, policy=policy)
        if found.more or found.jobs:
            continue
        if found.next_eligible is None:
            return starts
        assert found.next_eligible > bench.now + ahead, "the worker would spin"
        bench.clock.set(found.next_eligible - ahead)


@pytest.mark.parametrize("ahead", [0, 20_000])
@pytest.mark.parametrize(
    "limit", [Limit(80), Limit(1, per=6, burst=3), Limit(3, per=0.7, burst=10), Limit(1000, burst=50)]
)
async def test_starts_are_exactly_those_of_the_oracle(bench: Bench, limit: Limit, ahead: int) -> None:
    rng = random.Random(str(limit))
    interval, policy = limit.interval_us, by_task(limit=limit)
    jobs = [job(rng.randrange(60 * interval) / S) for _ in range(60)]
    ids = await bench.add(*jobs)
    starts = await run_all(bench, await bench.worker(), policy, ahead)
    oracle, wanted = Oracle(limit), {}
    for due, id in sorted(zip([one.scheduled_at for one in jobs], ids, strict=True)):
        at = oracle.earliest(due)
        oracle.start(at)
        wanted[id] = at
    assert dict(starts) == wanted
    assert [id for id, _ in starts] == list(wanted), "those that waited longest start first"


async def test_a_burst_goes_at_once_and_the_rest_evenly(bench: Bench) -> None:
    await bench.add(*[job() for _ in range(50)])
    policy = by_task(limit=Limit(1, per=6, burst=45))
    starts = await run_all(bench, await bench.worker(), policy)
    assert [at for _, at in starts] == [T0] * 45 + [T0 + n * 6 * S for n in range(1, 6)]


async def test_a_limited_job_stays_due_and_its_wait_is_visible(bench: Bench) -> None:
    worker = await bench.worker()
    first, second = await bench.add(job(), job())
    policy = by_task(limit=Limit(1, per=10))
    assert await bench.ids(worker, policy=policy) == [first]
    view = await bench.get(second)
    assert (view.state, view.scheduled_at, view.eligible_at) == ("scheduled", T0, T0 + 10 * S)
    assert view.blocked_by == "limit:task:t"
    counts = await bench.store.counts(bench.now)
    assert (counts.blocked, counts.next_due) == (1, T0 + 10 * S)


async def test_an_idle_limit_saves_up_no_more_than_its_burst(bench: Bench) -> None:
    worker, policy = await bench.worker(), by_task(limit=Limit(1, burst=3))
    await bench.add(*[job() for _ in range(3)])
    assert len(await bench.claim(worker, policy=policy)) == 3
    bench.clock.move(3600)
    await bench.add(*[job() for _ in range(9)])
    assert len(await bench.claim(worker, policy=policy)) == 3


async def test_a_limit_for_each_group(bench: Bench) -> None:
    policy = by_task(group_limit=Limit(1, per=6, burst=2))
    jobs = [job(n / 100, group=f"g{n % 3}") for n in range(15)]
    ids = await bench.add(*jobs)
    starts = await run_all(bench, await bench.worker(), policy)
    for group in range(3):
        mine = [(id, at) for id, at in starts if ids.index(id) % 3 == group]
        assert [id for id, _ in mine] == ids[group::3]
        oracle = Oracle(Limit(1, per=6, burst=2))
        for id, at in mine:
            assert at == oracle.earliest(jobs[ids.index(id)].scheduled_at)
            oracle.start(at)


async def test_task_and_queue_limits_hold_together(bench: Bench) -> None:
    policy = Policy({"t": Rules(limit=Limit(2))}, {"default": Rules(limit=Limit(3))})
    ids = await bench.add(*[job(task="t" if n % 2 else "u") for n in range(20)])
    starts = await run_all(bench, await bench.worker(), policy)
    both, own = Oracle(Limit(3)), Oracle(Limit(2))
    for id, at in starts:
        both.start(at)
        if ids.index(id) % 2:
            own.start(at)
    assert sorted(id for id, _ in starts) == ids


async def test_new_jobs_never_overtake_those_that_wait(bench: Bench) -> None:
    """Jobs keep coming at the limit's own rate; each waits behind those before it."""
    worker, policy = await bench.worker(), by_task(limit=Limit(10))
    ids = await bench.add(*[job() for _ in range(5)])
    got: list[int] = []
    for _ in range(30):
        got += await bench.ids(worker, policy=policy)
        bench.clock.move(0.05)
        ids += await bench.add(job((bench.now - T0) / S))
        got += await bench.ids(worker, policy=policy)
        bench.clock.move(0.05)
        ids += await bench.add(job((bench.now - T0) / S))
    assert got == ids[: len(got)]


@pytest.mark.parametrize("pause", [0.09, 0.31, 2.03, 500.0])
async def test_after_a_pause_those_that_waited_longest_still_go_first(bench: Bench, pause: float) -> None:
    """Nobody claimed for a while, so that many slots have passed; new jobs come all the time."""
    worker, policy, oracle = await bench.worker(), by_task(limit=Limit(10)), Oracle(Limit(10))
    ids = await bench.add(*[job() for _ in range(40)])
    starts = [(id, bench.now) for id in await bench.ids(worker, policy=policy)]
    oracle.start(bench.now)
    bench.clock.move(pause)
    looks = 0
    while len(starts) < 60:
        found = await bench.ask(worker, policy=policy)
        looks += 1
        for one in found.jobs:
            assert bench.now == oracle.earliest(bench.now), "the whole rate is used"
            oracle.start(bench.now)
            starts.append((one.id, bench.now))
        if not found.more:
            ids += await bench.add(job((bench.now - T0) / S))
            assert found.next_eligible is not None
            bench.clock.set(max(bench.now, found.next_eligible))
    assert [id for id, _ in starts] == ids[: len(starts)]
    assert looks < 150, "each token costs a look or two, however many wait"


@pytest.mark.parametrize("pause", [30.0, 500.0])
async def test_what_comes_during_a_pause_waits_no_longer_than_the_rate_demands(bench: Bench, pause: float) -> None:
    """A new job, and one that its dead worker gives back, wait behind the rest, and not the whole pause once more."""
    policy, oracle = by_task(limit=Limit(10)), Oracle(Limit(10))
    ids = await bench.add(*[job() for _ in range(8)])
    dead = await bench.worker()
    assert await bench.ids(dead, policy=policy) == ids[:1]
    oracle.start(bench.now)
    bench.clock.move(pause)
    ids += await bench.add(job(pause))
    assert len(await bench.store.rescue(bench.now, None)) == 1
    starts = await run_all(bench, await bench.worker(), policy)
    assert sorted(id for id, _ in starts) == ids
    for _, at in starts:
        assert at == oracle.earliest(at)
        oracle.start(at)
    assert starts[-1][1] - starts[0][1] == 8 * S // 10


async def test_after_a_pause_each_token_moves_few_rows(bench: Bench) -> None:
    worker, policy = await bench.worker(), by_task(limit=Limit(10))
    await bench.add(*[job() for _ in range(50)])
    await bench.ids(worker, policy=policy)
    bench.clock.move(60)
    await bench.ids(worker, policy=policy)
    before = {one.id: one.eligible_at for one in await bench.store.list_jobs(limit=99, state=["scheduled"])}
    assert sorted(one or 0 for one in before.values()) == [bench.now + (n + 1) * S // 10 for n in range(len(before))]
    bench.clock.move(0.1)
    assert len(await bench.ids(worker, policy=policy)) == 1
    after = {one.id: one.eligible_at for one in await bench.store.list_jobs(limit=99, state=["scheduled"])}
    assert all(after[id] == before[id] for id in after)


async def spend(bench: Bench, cost: int) -> None:
    """Take tokens of the task's limit beside its jobs: so many microseconds' worth."""

    def steps() -> Steps[None]:
        yield run("charge_limit", name="task:t", cost=cost, now=bench.now)

    await bench.store.change(steps, locked=True)


async def test_tokens_that_others_spend_move_nobody_until_that_adds_up(bench: Bench) -> None:
    """Thousands may wait: what is spent beside them must not cost by their number each time."""
    worker, policy, oracle = await bench.worker(), by_task(limit=Limit(100)), Oracle(Limit(100))
    ids = await bench.add(*[job() for _ in range(300)])
    starts = await bench.ids(worker, policy=policy)
    before = {one.id: one.eligible_at for one in await bench.store.list_jobs(limit=999, state=["scheduled"])}
    oracle.start(bench.now)
    moves = looks = 0
    for _ in range(250):
        await spend(bench, S // 100)
        oracle.tat = max(oracle.tat, bench.now) + S // 100
        while not (found := await bench.ask(worker, policy=policy)).jobs:
            looks += 1
            assert found.next_eligible is not None
            bench.clock.set(found.next_eligible)
        assert bench.now == oracle.tat, "the whole rate is used"
        (one,) = found.jobs
        starts.append(one.id)
        oracle.start(bench.now)
        after = {one.id: one.eligible_at for one in await bench.store.list_jobs(limit=999, state=["scheduled"])}
        moves += sum(after[id] != before[id] for id in after) > 1
        before = after
    assert starts == ids[: len(starts)], "those that waited longest start first"
    assert moves <= 3
    assert looks < 600, "each token costs a look or two, however many wait"


async def test_who_waits_for_a_token_hides_nobody_behind_them(bench: Bench) -> None:
    worker, policy = await bench.worker(), by_task(limit=Limit(10))
    await bench.add(*[job() for _ in range(50)])
    await bench.ids(worker, policy=policy)
    bench.clock.move(3)
    await spend(bench, S)
    free = await bench.add(*[job(3, task="free") for _ in range(4)])
    found = await bench.ask(worker, policy=policy, count=2)
    assert [one.id for one in found.jobs] == free[:2]
    assert await bench.ids(worker, policy=policy) == free[2:]


async def test_a_cap_is_shared_by_two_workers(bench: Bench) -> None:
    first, second = await bench.worker(), await bench.worker()
    policy = by_task(concurrency=3)
    ids = await bench.add(*[job(n / 1000) for n in range(8)])
    bench.clock.move(1)
    running: list[tuple[int, Claimed]] = [(first, one) for one in await bench.claim(first, count=2, policy=policy)]
    running += [(second, one) for one in await bench.claim(second, policy=policy)]
    assert [one.id for _, one in running] == ids[:3]
    assert (await bench.get(ids[5])).blocked_by == "cap:task:t"
    done = []
    while running:
        worker, one = running.pop(0)
        done.append(one.id)
        await bench.done(worker, one, policy=policy)
        for other in (second, first):
            running += [(other, got) for got in await bench.claim(other, policy=policy)]
        assert len(running) <= 3
        assert len(running) == min(3, len(ids) - len(done)), "a free place is never left empty"
    assert done == ids


async def test_a_retry_leaves_its_place_to_others(bench: Bench) -> None:
    worker, policy = await bench.worker(), by_task(concurrency=1)
    first, second = await bench.add(job(-2), job(-1))
    (got,) = await bench.claim(worker, policy=policy)
    await bench.done(worker, got, Failed("E", delay=5 * S), policy=policy)
    (got,) = await bench.claim(worker, policy=policy)
    assert got.id == second
    bench.clock.move(5)
    assert await bench.ids(worker, policy=policy) == []
    await bench.done(worker, got, policy=policy)
    assert await bench.ids(worker, policy=policy) == [first]


async def test_a_dead_workers_places_are_free_at_once(bench: Bench) -> None:
    """Also where its job has no attempts left, so that nothing of it comes back."""
    dead, worker, policy = await bench.worker(), await bench.worker(), by_task(concurrency=1)
    _, second = await bench.add(job(-2, max_attempts=1), job(-1))
    assert len(await bench.claim(dead, policy=policy)) == 1
    assert await bench.ids(worker, policy=policy) == []
    bench.clock.move(11)
    ((_, ack),) = await bench.store.rescue(bench.now, None)
    assert ack.state == "discarded"
    assert await bench.ids(worker, policy=policy) == [second]


async def test_what_a_worker_gives_back_when_it_signs_off_takes_no_place_of_a_cap(bench: Bench) -> None:
    leaving, worker, policy = await bench.worker(), await bench.worker(), by_task(concurrency=1)
    first, second = await bench.add(job(-2), job(-1))
    assert await bench.ids(leaving, policy=policy) == [first]
    assert await bench.ids(worker, policy=policy) == []
    await bench.store.unregister(leaving)
    assert await bench.store.cancel(bench.now, None, id=first, key=None) == "prevented"
    assert await bench.ids(worker, policy=policy) == [second]


async def test_a_limit_that_is_gone_from_the_code_holds_nobody_for_long(bench: Bench) -> None:
    worker = await bench.worker()
    jobs: list[NewJob] = [job(-2), job(-1), job(-1)]
    first, second, third = await bench.add(*jobs)
    (got,) = await bench.claim(worker, policy=by_task(concurrency=1))
    assert got.id == first
    assert await bench.ids(worker) == []
    await bench.store.unblock()
    assert await bench.ids(worker) == [second, third]


async def test_a_cap_that_was_raised_lets_as_many_more_run_after_the_next_sweep(bench: Bench) -> None:
    worker = await bench.worker()
    _, second, third, fourth = await bench.add(*[job(-1) for _ in range(4)])
    assert len(await bench.claim(worker, policy=by_task(concurrency=1))) == 1
    raised = by_task(concurrency=3)
    assert await bench.ids(worker, policy=raised) == []
    await bench.store.unblock()
    assert await bench.ids(worker, policy=raised) == [second, third]
    assert (await bench.get(fourth)).blocked_by == "cap:task:t"
