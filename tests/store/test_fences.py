"""Fences and rescue: only the worker that holds a claim changes it, and what a dead one held comes back."""

from __future__ import annotations

import asyncio

import pytest

from oncue.job import Completed, Failed, Outcome, Skipped, Snoozed
from tests.store.kit import LEASE, T0, Bench, S, job

OUTCOMES: list[Outcome] = [Completed('"stale"'), Failed("E", delay=S), Failed("E"), Snoozed(S, "x"), Skipped("x")]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda one: type(one).__name__)
async def test_the_ack_of_a_worker_that_lost_its_lease_changes_nothing(bench: Bench, outcome: Outcome) -> None:
    stale, other = await bench.worker("stale"), await bench.worker("other")
    (id,) = await bench.add(job(key="k", group="g"))
    (old,) = await bench.claim(stale)
    bench.clock.move(11)
    await bench.store.rescue(bench.now, None)
    found = await bench.done(stale, old, outcome)
    assert (found.lost, found.lease_lost, found.jobs) == ([id], True, [])
    (new,) = await bench.claim(other)
    assert (new.id, new.attempt) == (id, 2)
    before, attempts = await bench.get(id), await bench.store.attempts(id)
    found = await bench.done(stale, old, outcome)
    assert (found.lost, found.lease_lost) == ([id], True)
    assert await bench.get(id) == before
    assert await bench.store.attempts(id) == attempts
    assert not await bench.store.progress(stale, old, {"n": 1})
    await bench.done(other, new, Completed('"true"'))
    assert (await bench.done(stale, old, outcome)).lost == [id]
    view = await bench.get(id)
    assert (view.state, view.result, view.attempt, view.worker) == ("completed", "true", 2, other)


async def test_only_what_is_lost_is_reported_and_the_rest_is_recorded(bench: Bench) -> None:
    worker = await bench.worker()
    ids = await bench.add(*[job() for _ in range(6)])
    jobs = await bench.claim(worker)
    await bench.ask(worker, [bench.ack(jobs[1]), bench.ack(jobs[4], Failed("E", delay=S))], count=0)
    acks = [bench.ack(one, Failed("E", delay=S) if n % 2 else Completed()) for n, one in enumerate(jobs)]
    found = await bench.ask(worker, acks, count=0)
    assert sorted(found.lost) == [ids[1], ids[4]]
    assert [await bench.state(id) for id in ids] == [
        "completed",
        "completed",
        "completed",
        "scheduled",
        "scheduled",
        "scheduled",
    ]
    assert found.lease_lost is False


async def test_the_same_ack_twice_counts_once(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job())
    (got,) = await bench.claim(worker)
    retry = bench.ack(got, Failed("E", delay=0))
    await bench.ask(worker, [retry], count=0)
    (again,) = await bench.claim(worker)
    assert (await bench.ask(worker, [retry], count=0)).lost == [id]
    view = await bench.get(id)
    assert (view.state, view.attempt) == ("running", 2)
    await bench.done(worker, again)
    assert len(await bench.store.attempts(id)) == 1


async def test_an_early_attempts_ack_does_not_pass_for_a_later_one(bench: Bench) -> None:
    """The same worker holds the job again: the attempt tells the two apart."""
    worker = await bench.worker()
    (id,) = await bench.add(job())
    (first,) = await bench.claim(worker)
    await bench.done(worker, first, Snoozed(0, "x"))
    (second,) = await bench.claim(worker)
    found = await bench.done(worker, first, Completed('"first"'))
    assert (found.lost, await bench.state(id)) == ([id], "running")
    await bench.done(worker, second, Completed('"second"'))
    assert (await bench.get(id)).result == "second"


async def test_a_worker_that_is_gone_claims_nothing(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.store.unregister(worker)
    (id,) = await bench.add(job())
    found = await bench.ask(worker)
    assert (found.jobs, found.lease_lost) == ([], True)
    assert await bench.state(id) == "scheduled"


async def test_a_lease_that_lasts_is_left_alone(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job())
    await bench.claim(worker)
    bench.clock.move(10)
    assert await bench.store.rescue(bench.now, None) == []
    assert await bench.state(id) == "running"


async def test_the_keeper_extends_a_lease_until_the_worker_is_gone(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job())
    await bench.claim(worker)
    keeper = bench.store.lease_keeper()
    for _ in range(5):
        bench.clock.move(9)
        assert keeper.extend(worker, bench.now, LEASE)
        assert await bench.store.rescue(bench.now, None) == []
    assert await bench.state(id) == "running"
    bench.clock.move(11)
    assert len(await bench.store.rescue(bench.now, None)) == 1
    assert not keeper.extend(worker, bench.now, LEASE)
    keeper.close()


async def test_rescue_puts_jobs_back_at_once_with_their_reason_and_attempt(bench: Bench) -> None:
    worker, other = await bench.worker("lost"), await bench.worker()
    (id,) = await bench.add(job(-3))
    await bench.claim(worker)
    bench.clock.move(11)
    ((rescued, ack),) = await bench.store.rescue(bench.now, None)
    assert (rescued.id, ack.state, ack.outcome) == (id, "scheduled", "rescued")
    view = await bench.get(id)
    assert (view.state, view.scheduled_at, view.eligible_at) == ("scheduled", T0 - 3 * S, bench.now)
    (attempt,) = await bench.store.attempts(id)
    assert (attempt.attempt, attempt.outcome, attempt.started_at, attempt.worker) == (1, "rescued", T0, worker)
    assert "lost" in (attempt.reason or "")
    (again,) = await bench.claim(other)
    assert (again.id, again.attempt) == (id, 2)
    assert [row.id for row in await bench.store.workers()] == [other]
    assert await bench.store.rescue(bench.now, None) == []


async def test_a_rescued_job_keeps_its_lane_and_its_key(bench: Bench) -> None:
    dead, worker = await bench.worker(), await bench.worker()
    first, second = await bench.add(job(-2, group="g", key="k"), job(-1, group="g"))
    await bench.claim(dead)
    (third,) = await bench.add(job(-3, key="k"))
    bench.clock.move(11)
    await bench.store.rescue(bench.now, None)
    got = await bench.claim(worker)
    assert [(one.id, one.attempt) for one in got] == [(first, 2)]
    await bench.done(worker, got[0])
    assert sorted(await bench.ids(worker)) == [second, third]


async def test_a_job_that_kills_its_workers_is_discarded_after_its_attempts(bench: Bench) -> None:
    (id,) = await bench.add(job(max_attempts=3))
    for n in range(1, 4):
        worker = await bench.worker(f"victim-{n}")
        assert await bench.ids(worker) == [id]
        bench.clock.move(11)
        await bench.store.rescue(bench.now, 60 * S)
    view = await bench.get(id)
    assert (view.state, view.attempt) == ("discarded", 3)
    assert view.reason is not None
    assert view.reason.startswith("its worker died during attempt 3 of 3")
    assert "victim-3" in view.reason
    assert [one.outcome for one in await bench.store.attempts(id)] == ["rescued", "rescued"]
    bench.clock.move(60)
    assert await bench.store.prune(bench.now, 10) == 1


async def test_a_job_that_was_asked_to_stop_ends_when_its_worker_dies(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job())
    await bench.claim(worker)
    assert await bench.store.cancel(bench.now, None, id=id, key=None) == "requested"
    bench.clock.move(11)
    await bench.store.rescue(bench.now, None)
    view = await bench.get(id)
    assert (view.state, view.reason) == ("cancelled", "cancelled while running")


async def test_a_clean_end_of_a_worker_leaves_nothing_to_rescue(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.add(job())
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Snoozed(0, "given back", released=True))
    await bench.store.unregister(worker)
    assert await bench.store.rescue(bench.now, None) == []
    assert await bench.store.workers() == []


async def test_a_job_that_is_given_back_ahead_of_its_time_is_still_not_early(bench: Bench) -> None:
    worker, other = await bench.worker(), await bench.worker()
    (id,) = await bench.add(job(0.02))
    (got,) = await bench.claim(worker, ahead=20_000)
    await bench.done(worker, got, Snoozed(0, "given back", released=True))
    view = await bench.get(id)
    assert (view.scheduled_at, view.eligible_at, view.snoozes) == (T0 + 20_000, T0 + 20_000, 1)
    assert await bench.ids(other) == []


async def test_two_rescuers_take_a_job_back_once(bench: Bench) -> None:
    worker = await bench.worker()
    ids = await bench.add(*[job() for _ in range(50)])
    await bench.claim(worker)
    bench.clock.move(11)
    found = await asyncio.gather(*[bench.store.rescue(bench.now, None) for _ in range(4)])
    assert sorted(one.id for taken in found for one, _ in taken) == ids


async def test_idle_workers_rows_go_in_time_and_those_that_hold_jobs_stay(bench: Bench) -> None:
    idle, busy = await bench.worker("idle"), await bench.worker("busy")
    await bench.add(job())
    await bench.claim(busy)
    bench.clock.move(3600)
    await bench.store.prune(bench.now, 10)
    assert [row.id for row in await bench.store.workers()] == [busy]
    assert (await bench.ask(idle)).lease_lost
