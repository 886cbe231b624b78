"""Jobs that a worker holds without knowing, since the answer to its claim was lost, are given back whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oncue.limits import Policy, Rules
from oncue.store import open_store
from tests.databases import POSTGRES, database
from tests.store.kit import Bench, HandClock, job


@pytest.fixture(params=POSTGRES[:1])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    with database(request.param, tmp_path) as backend:
        clock = HandClock()
        store = open_store(backend.url, clock)
        await store.open()
        made = Bench(store, clock)
        yield made
        for life in made.lives.values():
            life.release()
        await store.close()


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
