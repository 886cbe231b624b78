"""What a claim takes, in which order, how far ahead, and what it tells of what comes next."""

from __future__ import annotations

import asyncio
import random

from oncue.job import Completed, Failed, Snoozed
from tests.store.kit import LEASE, T0, Bench, S, job


async def test_a_claim_takes_due_jobs_with_all_that_a_runner_needs(bench: Bench) -> None:
    worker = await bench.worker()
    wanted = job(-1, "send", args='{"n":1}', key="k", group="g", metadata='{"m":2}', max_late=5, when_late="skip")
    (id,) = await bench.add(wanted)
    (got,) = await bench.claim(worker)
    assert (got.id, got.task, got.args, got.queue, got.priority) == (id, "send", '{"n":1}', "default", 0)
    assert (got.scheduled_at, got.start_at, got.attempt, got.snoozes, got.max_attempts) == (T0 - S, T0 - S, 1, 0, 5)
    assert (got.key, got.group, got.metadata, got.max_late, got.when_late) == ("k", "g", '{"m":2}', 5, "skip")
    assert (got.created_at, got.claimed_at, got.cancel) == (T0, T0, 0)
    view = await bench.get(id)
    assert (view.state, view.worker, view.attempt, view.started_at) == ("running", worker, 1, T0)


async def test_nothing_is_claimed_before_it_is_due(bench: Bench) -> None:
    worker = await bench.worker()
    ids = await bench.add(*[job(n) for n in (1, 2, 3)])
    found = await bench.ask(worker)
    assert (found.jobs, found.more, found.next_eligible) == ([], False, T0 + S)
    bench.clock.set(T0 + 2 * S - 1)
    assert await bench.ids(worker) == ids[:1]
    bench.clock.set(T0 + 2 * S)
    found = await bench.ask(worker)
    assert [one.id for one in found.jobs] == ids[1:2]
    assert found.next_eligible == T0 + 3 * S


async def test_the_look_ahead_claims_what_is_due_in_a_moment(bench: Bench) -> None:
    worker = await bench.worker()
    ids = await bench.add(job(0.02), job(0.020001))
    found = await bench.ask(worker, ahead=20_000)
    assert [(one.id, one.start_at) for one in found.jobs] == [(ids[0], T0 + 20_000)]
    assert found.next_eligible == T0 + 20_001
    # It is shown as started when it starts, not when it was claimed.
    view = await bench.get(ids[0])
    assert (view.state, view.started_at) == ("running", T0 + 20_000)


async def test_order_is_priority_then_due_time_then_id(bench: Bench) -> None:
    worker = await bench.worker()
    rng = random.Random(7)
    jobs = [job(-rng.randrange(5), priority=rng.choice((-100, -1, 0, 1, 100))) for _ in range(200)]
    ids = await bench.add(*jobs)
    wanted = sorted(zip(jobs, ids, strict=True), key=lambda one: (one[0].priority, one[0].scheduled_at, one[1]))
    got: list[int] = []
    while len(got) < 200:
        got += await bench.ids(worker, count=7)
    assert got == [id for _, id in wanted]


async def test_a_claim_takes_no_more_than_asked_and_says_that_there_is_more(bench: Bench) -> None:
    worker = await bench.worker()
    ids = await bench.add(*[job() for _ in range(5)])
    found = await bench.ask(worker, count=3)
    assert ([one.id for one in found.jobs], found.more) == (ids[:3], True)
    found = await bench.ask(worker, count=0)
    assert (found.jobs, found.more) == ([], True)
    found = await bench.ask(worker, count=3)
    assert ([one.id for one in found.jobs], found.more) == (ids[3:], False)


async def test_a_far_job_never_hides_a_near_one(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.add(*[job(3600 + n, priority=-50) for n in range(300)])
    assert (await bench.ask(worker)).next_eligible == T0 + 3600 * S
    (near,) = await bench.add(job(1, priority=50))
    assert (await bench.ask(worker)).next_eligible == T0 + S
    bench.clock.move(1)
    assert await bench.ids(worker) == [near]


async def test_queues_part_the_work(bench: Bench) -> None:
    worker = await bench.worker()
    a, b, _ = await bench.add(job(queue="a"), job(queue="b"), job(queue="c"))
    later = (await bench.add(job(5, queue="c"), job(9, queue="a")))[1]
    found = await bench.ask(worker, queues=frozenset({"a", "b"}))
    assert [one.id for one in found.jobs] == [a, b]
    assert found.next_eligible == T0 + 9 * S
    assert (await bench.get(later)).state == "scheduled"


async def test_a_paused_queue_gives_nothing_until_it_is_resumed(bench: Bench) -> None:
    worker = await bench.worker()
    held, free = await bench.add(job(queue="a"), job(queue="b"))
    await bench.store.set_queue("a", True)
    found = await bench.ask(worker)
    assert ([one.id for one in found.jobs], found.next_eligible) == ([free], None)
    assert [(one.name, one.paused, one.due) for one in await bench.store.queues(bench.now)] == [
        ("a", True, 1),
        ("b", False, 0),
    ]
    await bench.store.set_queue("a", False)
    assert await bench.ids(worker) == [held]


async def test_jobs_of_tasks_that_a_worker_cannot_run_stay(bench: Bench) -> None:
    worker = await bench.worker()
    strange, known = await bench.add(job(task="strange"), job(task="known"))
    found = await bench.ask(worker, unknown=("strange",))
    assert ([one.id for one in found.jobs], found.next_eligible) == ([known], None)
    assert await bench.ids(worker) == [strange]


async def test_a_claim_tells_when_another_workers_lease_ends_and_when_a_schedule_fires(bench: Bench) -> None:
    first, second = await bench.worker("first"), await bench.worker("second")
    assert (await bench.ask(second)).others_until is None
    await bench.add(job())
    (got,) = await bench.claim(first)
    bench.clock.move(1)
    assert (await bench.ask(second)).others_until == T0 + LEASE
    assert (await bench.ask(first)).others_until is None
    await bench.done(first, got)
    assert (await bench.ask(second)).others_until is None


async def test_acks_and_claims_of_one_transaction_follow_each_other(bench: Bench) -> None:
    worker = await bench.worker()
    ids = await bench.add(*[job(n / 1000, group="g") for n in range(4)])
    bench.clock.move(1)
    (held,) = await bench.claim(worker)
    got = [held.id]
    for _ in range(3):
        (held,) = (await bench.ask(worker, [bench.ack(held)])).jobs
        got.append(held.id)
    assert got == ids


async def test_two_workers_never_get_the_same_job(bench: Bench) -> None:
    workers = [await bench.worker(), await bench.worker()]
    ids = await bench.add(*[job() for _ in range(100)])
    took = await asyncio.gather(*[bench.claim(workers[n % 2], count=9) for n in range(14)])
    assert sorted(one.id for jobs in took for one in jobs) == ids


async def test_every_outcome_moves_the_job_where_it_belongs(bench: Bench) -> None:
    worker = await bench.worker()
    ok, bad, again, later = await bench.add(*[job() for _ in range(4)])
    jobs = {one.id: one for one in await bench.claim(worker)}
    bench.clock.move(2)
    acks = [
        bench.ack(jobs[ok], Completed('{"n":1}')),
        bench.ack(jobs[bad], Failed("E: x", "trace", None, "its rules say so")),
        bench.ack(jobs[again], Failed("E: y", "trace y", 5 * S)),
        bench.ack(jobs[later], Snoozed(7 * S, "not yet")),
    ]
    assert (await bench.ask(worker, acks)).lost == []
    view = await bench.get(ok)
    assert (view.state, view.outcome, view.result, view.finished_at) == ("completed", "completed", {"n": 1}, bench.now)
    view = await bench.get(bad)
    assert (view.state, view.error, view.traceback, view.reason) == ("discarded", "E: x", "trace", "its rules say so")
    view = await bench.get(again)
    assert (view.state, view.attempt, view.snoozes, view.scheduled_at) == ("scheduled", 1, 0, bench.now + 5 * S)
    view = await bench.get(later)
    assert (view.state, view.attempt, view.snoozes, view.eligible_at) == ("scheduled", 1, 1, bench.now + 7 * S)


async def test_a_snooze_uses_up_no_attempt(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job(max_attempts=2))
    for n in range(1, 6):
        (got,) = await bench.claim(worker)
        assert got.attempt == n
        await bench.done(worker, got, Snoozed(0, "later"))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Failed("E", delay=0))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Failed("E", delay=0))
    view = await bench.get(id)
    assert (view.state, view.attempt, view.snoozes, view.reason) == ("discarded", 7, 5, "all 2 attempts failed")


async def test_blocked_jobs_in_front_neither_end_a_claim_nor_let_lower_priorities_pass(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.add(job(-9, group="g"))
    await bench.claim(worker)
    await bench.add(*[job(-5, group="g") for _ in range(10)])
    first, second, lower = await bench.add(job(-1), job(-1), job(-9, priority=1))
    found = await bench.ask(worker, count=2)
    assert [one.id for one in found.jobs] == [first, second]
    assert await bench.ids(worker, count=2) == [lower]


async def test_a_claim_looks_at_a_bounded_number_of_blocked_jobs_and_the_next_goes_on(bench: Bench) -> None:
    """So that 100,000 due jobs of one group don't keep everybody from writing until all of them were looked at."""
    worker = await bench.worker()
    first, *_ = await bench.add(*[job(-2, group="g") for _ in range(5_000)])
    found = await bench.ask(worker)
    assert [one.id for one in found.jobs] == [first]
    assert found.more
    assert found.next_eligible is not None
    assert found.next_eligible <= bench.now
    looked = len([one for one in await bench.store.list_jobs(limit=5_000, state=["scheduled"]) if one.blocked_by])
    assert 1_000 < looked < 3_000
    assert await bench.ids(worker) == []
    found = await bench.ask(worker)
    assert (found.more, found.next_eligible) == (False, None)
