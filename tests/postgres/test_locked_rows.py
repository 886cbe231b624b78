"""Rows and locks that others hold: what a claim has is kept, and nobody waits for a row under the advisory lock."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from oncue.errors import StoreUnavailable
from oncue.limits import Limit, Policy, Rules
from tests.databases import Backend
from tests.postgres.held import locked, postgres
from tests.store.kit import Bench, job


async def test_jobs_that_were_claimed_are_handed_out_where_the_rest_of_the_claim_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await bench.worker()
    first, second, bound = await bench.add(job(), job(), job(1, key="k"))
    bench.clock.move(2)
    claimer = postgres(bench)._claimer
    take, broken = claimer._take_locked, StoreUnavailable("the connection broke")

    async def lose_the_answer(*args: Any) -> Any:
        await take(*args)
        raise broken

    monkeypatch.setattr(claimer, "_take_locked", lose_the_answer)
    found = await bench.ask(worker, holding=set())
    assert ([one.id for one in found.jobs], found.trouble) == ([first, second], broken)
    monkeypatch.undo()
    # What was in doubt is settled without the ones that run.
    assert (await bench.get(bound)).state == "running"
    again = await bench.ask(worker, holding={first, second})
    assert [(one.id, one.attempt) for one in again.jobs] == [(bound, 2)]
    assert (await bench.get(first)).state == "running"


async def test_jobs_taken_before_the_server_took_its_work_back_are_given_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that goes on with its one lane takes jobs before it looks: that look may be begun anew."""
    worker = await bench.worker()
    ids = await bench.add(*(job() for _ in range(5)))
    held = {one.id for one in (await bench.ask(worker, count=2, holding=set())).jobs}
    claimer = postgres(bench)._claimer
    assert claimer._runs
    claimer._runs = {one: (float("inf"), lane, peek) for one, (_, lane, peek) in claimer._runs.items()}
    look, failures = claimer._take_plain, [asyncpg.DeadlockDetectedError("taken back")]

    async def fail_once(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return await look(*args)

    monkeypatch.setattr(claimer, "_take_plain", fail_once)
    found = await bench.ask(worker, count=10, holding=held)
    assert not failures
    assert sorted(one.id for one in found.jobs) == [id for id in ids if id not in held]


async def test_a_parked_job_that_others_hold_keeps_nobody_else_from_going_on(backend: Backend, bench: Bench) -> None:
    worker = await bench.worker()
    first, parked = await bench.add(job(group="g"), job(group="g"))
    (one,) = await bench.claim(worker)
    assert one.id == first
    (other,) = await bench.add(job(group="x"))
    with locked(backend, parked) as theirs:
        found = await bench.ask(worker, [bench.ack(one)])
        assert ([got.id for got in found.jobs], found.lost, found.unwritten) == ([other], [], [])
        assert found.held
        assert found.next_eligible == bench.now + 10_000
        # Nor does anybody wait for whom they want to touch next.
        theirs.execute("SELECT FROM oncue_job WHERE id = %s FOR UPDATE", [other])
        assert not (await bench.ask(worker)).jobs
    found = await bench.ask(worker)
    assert ([got.id for got in found.jobs], found.held) == ([parked], False)


async def test_the_places_of_a_cap_go_to_those_whom_nobody_holds_and_none_is_lost(
    backend: Backend, bench: Bench
) -> None:
    worker, policy = await bench.worker(), Policy({"t": Rules(concurrency=2)})
    ids = await bench.add(*(job() for _ in range(5)))
    running = await bench.claim(worker, policy=policy)
    assert [one.id for one in running] == ids[:2]
    acks = [bench.ack(one, caps=("cap:task:t",)) for one in running]
    with locked(backend, ids[2], ids[3]):
        found = await bench.ask(worker, acks, policy=policy)
        assert ([one.id for one in found.jobs], found.held) == ([ids[4]], True)
    assert [one.id for one in await bench.claim(worker, policy=policy)] == [ids[2]]


async def test_a_job_that_waits_for_a_rate_and_that_others_hold_is_moved_later(backend: Backend, bench: Bench) -> None:
    worker, policy = await bench.worker(), Policy({"t": Rules(limit=Limit(1, per=10))})
    ids = await bench.add(*(job() for _ in range(4)))
    assert [one.id for one in await bench.claim(worker, policy=policy)] == ids[:1]
    # The slots of all of them pass unused, so that they move together.
    bench.clock.move(100)
    with locked(backend, ids[2]):
        started = [one.id for one in await bench.claim(worker, policy=policy)]
        found = await bench.ask(worker, policy=policy)
        assert started == [ids[1]]
        assert not found.jobs
    for wanted in ids[2:]:
        while not (jobs := (await bench.ask(worker, policy=policy)).jobs):
            bench.clock.move(1)
        assert len(jobs) == 1
        assert jobs[0].id in ids[2:], wanted


@pytest.mark.parametrize("key", [None, "k"])
async def test_what_comes_after_a_job_that_others_hold_is_known(
    backend: Backend, bench: Bench, key: str | None
) -> None:
    """Whether the lane is claimed with or without the lock, and however far the back-off has got."""
    worker = await bench.worker()
    held, _ = await bench.add(job(key=key), job(0.3))
    with locked(backend, held):
        waits = []
        for _ in range(8):
            found = await bench.ask(worker)
            assert found.held
            assert found.next_eligible is not None
            waits.append(found.next_eligible - bench.now)
        assert waits[0] == 10_000
        assert waits[-1] == 300_000
