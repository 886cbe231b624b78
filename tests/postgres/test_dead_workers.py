"""Jobs of dead workers whose rows others hold: each waits alone, keeps its lane, and comes back once it is let go."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Any

import psycopg
import pytest

from oncue import OnCue
from oncue.job import Claimed, NewJob
from oncue.limits import Policy, Rules
from oncue.operate.checks import workers as _workers
from oncue.rescuer import Rescuer
from oncue.store import Claim, WorkerRow
from tests.databases import Backend
from tests.postgres.held import holding, locked, postgres
from tests.store.kit import LEASE, Bench, S, job


async def gone_with(bench: Bench, *jobs: NewJob, host: str = "elsewhere") -> tuple[int, list[Claimed]]:
    """A worker that let its lease end with these jobs in hand."""
    worker = await bench.worker("gone", host=host)
    await bench.add(*jobs)
    held = await bench.claim(worker)
    assert len(held) == len(jobs)
    bench.clock.move(11)
    return worker, held


async def rescued(bench: Bench) -> list[int]:
    return sorted(one.id for one, _ in await bench.store.rescue(bench.now, None))


async def registered(bench: Bench) -> dict[int, int]:
    return {row.id: row.running for row in await bench.store.workers()}


async def test_of_a_dead_workers_jobs_the_one_that_others_hold_waits_alone(backend: Backend, bench: Bench) -> None:
    gone, held = await gone_with(bench, *(job() for _ in range(3)), job(key="k"), job(group="g"))
    ids, worker = [one.id for one in held], await bench.worker()
    with locked(backend, ids[1]):
        assert await rescued(bench) == [id for id in ids if id != ids[1]]
        assert await registered(bench) == {gone: 1, worker: 0}
        assert await rescued(bench) == []
        found = await bench.ask(worker)
        assert (sorted(one.id for one in found.jobs), found.left) == ([id for id in ids if id != ids[1]], True)
        assert found.others_until is None
    assert (await bench.get(ids[1])).worker == gone
    assert await rescued(bench) == [ids[1]]
    assert await registered(bench) == {worker: 4}
    found = await bench.ask(worker)
    assert ([(one.id, one.attempt) for one in found.jobs], found.left) == ([(ids[1], 2)], False)
    assert [one.outcome for one in await bench.store.attempts(ids[1])] == ["rescued"]


async def test_one_dead_workers_held_job_keeps_no_other_dead_workers_jobs(backend: Backend, bench: Bench) -> None:
    _, first = await gone_with(bench, job())
    with locked(backend, first[0].id):
        assert await rescued(bench) == []
        _, second = await gone_with(bench, job(), job())
        assert await rescued(bench) == [one.id for one in second]
    assert await rescued(bench) == [first[0].id]


async def test_a_worker_that_was_given_up_has_lost_its_lease_while_a_job_of_it_stays(
    backend: Backend, bench: Bench
) -> None:
    zombie, held = await gone_with(bench, *(job() for _ in range(3)), job(key="k"))
    free, stays = held[0], held[1]
    claimer = postgres(bench)._claimer
    with locked(backend, stays.id):
        await rescued(bench)
        keeper = bench.store.lease_keeper()
        try:
            assert await asyncio.to_thread(keeper.extend, zombie, bench.now, LEASE) is False
        finally:
            keeper.close()
        found = await bench.ask(zombie, [bench.ack(free), bench.ack(held[3])])
        assert (found.lease_lost, found.jobs, sorted(found.lost)) == (True, [], [free.id, held[3].id])
        # Nor does it get any where it goes on without a look.
        other = await bench.worker()
        await bench.add(*(job() for _ in range(5)))
        await bench.ask(other, count=2, holding=set())
        ((_, lane, peek),) = claimer._runs.values()
        claimer._runs = {zombie: (float("inf"), lane, peek)}
        claimer.suspects.clear()
        assert not (await bench.ask(zombie, holding=set())).jobs
        assert (await bench.get(free.id)).state != "completed"
    assert await rescued(bench) == [stays.id]


async def test_what_a_dead_worker_ended_before_others_let_go_is_not_run_again(backend: Backend, bench: Bench) -> None:
    """As where its handler completes the job in its own transaction, which commits once its worker was given up."""
    gone, held = await gone_with(bench, job(), job())
    with holding(backend, "DELETE FROM oncue_job WHERE id = %s", held[0].id) as theirs:
        assert await rescued(bench) == [held[1].id]
        theirs.commit()
    assert await bench.store.job(held[0].id) is None
    assert await rescued(bench) == []
    assert gone not in await registered(bench)


async def test_a_cancellation_that_commits_later_still_counts(backend: Backend, bench: Bench) -> None:
    _, held = await gone_with(bench, job(), job())
    with holding(backend, "UPDATE oncue_job SET cancel = 1 WHERE id = %s", held[0].id) as theirs:
        assert await rescued(bench) == [held[1].id]
        theirs.commit()
    assert await rescued(bench) == [held[0].id]
    assert await bench.state(held[0].id) == "cancelled"


async def test_a_dead_workers_job_keeps_its_lane_until_it_is_put_back(backend: Backend, bench: Bench) -> None:
    policy = Policy({"t": Rules(concurrency=1)})
    _, (held,) = await gone_with(bench, job(key="k", group="g"))
    worker = await bench.worker()
    (lane, key) = await bench.add(job(group="g"), job(key="k"))
    with locked(backend, held.id):
        assert await rescued(bench) == []
        assert await bench.ids(worker, policy=policy) == []
        await bench.store.unblock()
        assert await bench.ids(worker) == []
    assert await rescued(bench) == [held.id]
    again = await bench.claim(worker)
    assert [(one.id, one.attempt) for one in again] == [(held.id, 2)]
    found = await bench.ask(worker, [bench.ack(again[0])])
    assert sorted(one.id for one in found.jobs) == [lane, key]


async def test_a_proof_of_death_is_kept_until_all_jobs_are_back(backend: Backend, bench: Bench) -> None:
    worker = await bench.worker(host=socket.gethostname())
    ids = await bench.add(job(), job())
    assert await bench.ids(worker) == ids
    life: Any = bench.lives.pop(worker)
    os.close(life._fd)
    with locked(backend, ids[0]):
        assert await rescued(bench) == [ids[1]]
        assert await bench.store.proved_dead() == {worker}
        assert life._path.exists()
    assert await rescued(bench) == [ids[0]]
    (attempt,) = await bench.store.attempts(ids[0])
    assert "its process holds its lock no more" in (attempt.reason or "")
    assert not life._path.exists()
    assert await registered(bench) == {}


async def test_a_worker_signs_off_though_others_hold_a_job_of_it(backend: Backend, bench: Bench) -> None:
    worker = await bench.worker()
    ids = await bench.add(job(), job())
    assert await bench.ids(worker) == ids
    with locked(backend, ids[0]):
        await bench.store.unregister(worker)
        assert [await bench.state(id) for id in ids] == ["running", "scheduled"]
        assert await registered(bench) == {worker: 1}
    assert await rescued(bench) == [ids[0]]
    assert await registered(bench) == {}


async def test_a_lease_that_is_renewed_at_the_last_moment_holds(backend: Backend, bench: Bench) -> None:
    """Whoever rescues has seen that it was over, and finds out in time that it is not any more."""
    late, (held,) = await gone_with(bench, job())
    renew = "UPDATE oncue_worker SET lease_until = %s WHERE id = %s"
    with holding(backend, renew, bench.now + LEASE, late) as theirs:
        rescue = asyncio.create_task(rescued(bench))
        waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        while not rescue.done() and theirs.execute(waits).fetchone() is None:
            theirs.execute("SELECT pg_stat_clear_snapshot()")
            await asyncio.sleep(0)
        theirs.commit()
        assert await rescue == []
    assert await rescued(bench) == []
    assert (await bench.get(held.id)).worker == late
    assert not (await bench.ask(late, holding={held.id})).lease_lost


async def test_people_are_told_what_a_dead_workers_last_job_waits_for(backend: Backend, bench: Bench) -> None:
    gone, (held, _) = await gone_with(bench, job(), job())
    await bench.worker("w")
    with locked(backend, held.id):
        await rescued(bench)
        async with OnCue(backend.url) as app:
            worker, other = await app.jobs.workers()
            assert (worker.id, worker.state, worker.given_up, worker.running) == (gone, "dead", True, 1)
            assert (worker.lease_until, other.state) == (bench.now - S, "alive")
            assert "once the transaction ends that holds its row" in await app.jobs.why(await bench.get(held.id))
            line = await _workers(app)
            assert "Other transactions hold the rows" in line.remedy


async def test_a_dead_workers_held_job_is_asked_for_again_after_growing_pauses(
    backend: Backend, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, held = await gone_with(bench, job(), job())
    worker, rescuer = await bench.worker(), Rescuer(bench.store, bench.clock, logging.getLogger(), None, None)
    passed = 0.0
    monkeypatch.setattr("oncue.rescuer.monotonic", lambda: passed)

    async def look() -> int | None:
        again = await rescuer.after(await bench.ask(worker, count=0), bench.now)
        return None if again is None else again - bench.now

    with locked(backend, held[0].id):
        assert await look() == 0
        for pause in (10, 20, 40, 80, 160, 320, 640, 1000, 1000):
            assert await look() == pause * 1000 + 1
            passed += pause / 2000 + 1e-9
            assert await look() == pause * 500 + 1
            passed += pause / 2000 + 1e-9
        assert await look() == 1_000_001
        # The jobs of another worker that dies don't wait for that.
        other = await bench.worker()
        assert await bench.ids(other) == [held[1].id]
        assert await look() == 1_000_001
        bench.clock.move(11)
        assert await look() == 0
        assert await bench.state(held[1].id) == "scheduled"
        assert await look() == 10_001
    passed += 1
    assert await look() == 0
    assert await look() is None


async def test_a_worker_runs_a_dead_workers_jobs_while_others_hold_one(backend: Backend) -> None:
    """Claims go on beside, and the held one follows by itself once the transaction has ended."""
    app, ran, three = OnCue(backend.url), list[int](), asyncio.Event()

    @app.task(name="note")
    async def note(number: int) -> None:
        ran.append(number)
        if len(ran) == 3:
            three.set()

    async with app:
        now = app.clock.now()
        gone, life = await app.store.register(WorkerRow(0, "gone", "elsewhere", 1, None, now, now, now + LEASE))
        handles = [await app.schedule(note.call(number)) for number in range(3)]
        found = await app.store.claim(Claim(gone, app.clock.now(), app.clock.now() + S, LEASE, 3))
        assert len(found.jobs) == 3
        with holding(backend, "SELECT FROM oncue_job WHERE id = %s FOR UPDATE", handles[1].id):
            # By now its lease is over.
            with psycopg.connect(backend.url, autocommit=True) as conn:
                conn.execute("UPDATE oncue.oncue_worker SET lease_until = %s WHERE id = %s", [now - 1, gone])
            async with app.worker():
                handles.append(await app.schedule(note.call(3)))
                async with asyncio.timeout(20):
                    await three.wait()
                assert sorted(ran) == [0, 2, 3]
        async with app.worker():
            await handles[1].result(timeout=20)
        assert sorted(ran) == [0, 1, 2, 3]
        assert [row.id for row in await app.store.workers()] == []
        life.release()
