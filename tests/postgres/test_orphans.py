"""Jobs that a worker holds without knowing, since the answer to its claim was lost, are given back whole."""

from __future__ import annotations

from oncue.limits import Policy, Rules
from tests.databases import Backend
from tests.postgres.held import locked
from tests.store.kit import Bench, job


async def test_its_place_under_a_cap_is_free_at_once(bench: Bench) -> None:
    unaware, worker = await bench.worker(), await bench.worker()
    policy = Policy({"t": Rules(concurrency=1)})
    first, second = await bench.add(job(-2), job(-1))
    assert await bench.ids(unaware, policy=policy) == [first]
    assert await bench.ids(worker, policy=policy) == []
    # A sweep finds that this worker holds some; it looks whether it knows them.
    await bench.store.rescue(bench.now, None)
    await bench.ask(unaware, count=0, holding=frozenset(), policy=policy)
    assert await bench.store.cancel(bench.now, None, id=first, key=None) == "prevented"
    assert await bench.ids(worker, policy=policy) == [second]


async def test_one_that_others_hold_keeps_nobody_waiting_and_is_given_back_after_the_next_sweep(
    bench: Bench, backend: Backend
) -> None:
    unaware, worker = await bench.worker(), await bench.worker()
    ids = await bench.add(job(), job())
    assert await bench.ids(unaware) == ids
    await bench.store.rescue(bench.now, None)
    with locked(backend, ids[0]):
        assert not (await bench.ask(unaware, count=0, holding=frozenset())).unwritten
        assert await bench.ids(worker) == [ids[1]]
    await bench.store.rescue(bench.now, None)
    await bench.ask(unaware, count=0, holding=frozenset())
    assert await bench.ids(worker) == [ids[0]]
