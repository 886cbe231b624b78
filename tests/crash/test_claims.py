"""What the faults at random moments have found, each at its one moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from oncue.clock import SECOND, SystemClock
from oncue.dsn import parse
from oncue.errors import StoreError
from oncue.job import NewJob
from oncue.store import Claim, Store, WorkerRow, open_store
from oncue.store.postgres import PostgresStore
from oncue.store.postgres.lease import LeaseKeeper
from oncue.store.postgres.run import named
from tests.databases import KINDS, POSTGRES, Backend, database
from tests.pgfaults import Proxy

LEASE = 10 * SECOND


@pytest.fixture(params=KINDS)
async def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with database(request.param, tmp_path) as made:
        store = open_store(made.url, SystemClock())
        await store.open()
        yield store
        await store.close()


@pytest.fixture(params=POSTGRES)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(backend.url, SystemClock())
    await made.open()
    yield made
    await made.close()


async def _worker(store: Store, lease: int = LEASE) -> int:
    now = store.clock.now()
    id, life = await store.register(WorkerRow(0, "w", "elsewhere", 1, None, now, now, now + lease))
    life.release()
    return id


async def _due(store: Store, **options: Any) -> int:
    now = store.clock.now()
    return (await store.insert(NewJob(0, "work", "{}", "default", 0, now, 5, now, **options))).id


def _claim(worker: int, now: int) -> Claim:
    return Claim(worker, now, now, LEASE, 10)


@pytest.mark.parametrize("group", [None, "lane"])
async def test_a_claim_that_waited_longer_than_a_lease_has_a_whole_one(any_store: Store, group: str | None) -> None:
    worker = await _worker(any_store, lease=0)
    job = await _due(any_store, group=group)
    began = any_store.clock.now()
    found = await any_store.claim(Claim(worker, began - LEASE, began, LEASE, 10))
    assert [one.id for one in found.jobs] == [job]
    (row,) = await any_store.workers()
    assert row.lease_until >= began + LEASE


async def test_plain_jobs_in_hand_wait_for_nobody_who_keeps_the_bound_ones(
    store: PostgresStore, backend: Backend
) -> None:
    """A stopped worker may keep the lock for longer than a lease is: what was claimed beside it would be taken back."""
    worker, plain, bound = await _worker(store), await _due(store), await _due(store, group="lane")
    with psycopg.connect(backend.url) as stopped:
        stopped.execute("SELECT pg_advisory_xact_lock(%s)", [store.lock])
        found = await store.claim(_claim(worker, store.clock.now()))
        assert ([one.id for one in found.jobs], found.trouble, found.more) == ([plain], None, True)
        assert found.next_eligible is not None
        assert found.next_eligible <= store.clock.now()
    found = await store.claim(_claim(worker, store.clock.now()))
    assert [one.id for one in found.jobs] == [bound]


async def test_a_renewal_that_comes_late_takes_nothing_back_of_a_later_one(
    store: PostgresStore, backend: Backend
) -> None:
    worker, now = await _worker(store), store.clock.now()
    with Proxy(backend.url) as proxy:
        late = LeaseKeeper(parse(proxy.dsn(backend.url)))
        assert await asyncio.to_thread(late.extend, worker, now, LEASE)
        proxy.silence("to_server")
        with pytest.raises(StoreError):
            await asyncio.to_thread(late.extend, worker, now, SECOND)
        in_time = store.lease_keeper()
        assert await asyncio.to_thread(in_time.extend, worker, now, 3 * LEASE)
        proxy.heal()
        while proxy.connections:  # noqa: ASYNC110 - the server closes it once it has done what came late
            await asyncio.sleep(0.01)
        late.close()
        in_time.close()
    (row,) = await store.workers()
    assert row.lease_until == now + 3 * LEASE


async def test_after_the_clock_was_set_back_the_next_renewal_is_for_one_lease(any_store: Store) -> None:
    """Else nobody takes over from a worker that dies on another machine, for as long as the clock was set back."""
    worker, now = await _worker(any_store, lease=3600 * SECOND + LEASE), any_store.clock.now()
    keeper = any_store.lease_keeper()
    assert await asyncio.to_thread(keeper.extend, worker, now, LEASE)
    (row,) = await any_store.workers()
    assert row.lease_until == now + LEASE
    keeper.close()


async def test_jobs_are_never_seen_under_a_lease_that_is_over(store: PostgresStore, backend: Backend) -> None:
    """An idle worker's lease is over. Whoever looks while it claims plain jobs must not take them for a dead one's."""
    worker = await _worker(store, lease=-LEASE)
    await _due(store)
    with psycopg.connect(backend.url, autocommit=True) as look:
        look.execute(_NOTE_LEASE)
        await store.claim(_claim(worker, store.clock.now()))
        (seen,) = look.execute("SELECT lease_left FROM seen").fetchall()
    assert seen[0] > 0


_NOTE_LEASE = """
CREATE TABLE seen (lease_left bigint);
CREATE FUNCTION note_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO public.seen SELECT lease_until - (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
  FROM oncue.oncue_worker WHERE id = NEW.worker;
  RETURN NEW;
END $$;
CREATE TRIGGER note_lease AFTER UPDATE ON oncue.oncue_job FOR EACH ROW WHEN (NEW.state = 'running')
EXECUTE FUNCTION note_lease();
"""


async def test_a_worker_given_up_between_its_look_and_its_claim_gets_nothing(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, job = await _worker(store), await _due(store)
    look = store._claimer._peek

    async def look_too_early(*args: Any) -> Any:
        seen = await look(*args)
        await store.unregister(worker)
        return seen

    monkeypatch.setattr(store._claimer, "_peek", look_too_early)
    assert not (await store.claim(_claim(worker, store.clock.now()))).jobs
    view = await store.job(job)
    assert view is not None
    assert view.state == "scheduled"


@pytest.mark.parametrize("end", ["rescue", "unregister"])
async def test_a_claim_under_way_while_its_worker_is_given_up_leaves_no_job_running(
    store: PostgresStore, backend: Backend, end: str
) -> None:
    worker, job = await _worker(store, lease=-LEASE), await _due(store)
    if end == "rescue":
        # Only who holds something is rescued.
        first = await store.claim(_claim(worker, store.clock.now()))
        assert [one.id for one in first.jobs] == [job]
        job = await _due(store)
    now = store.clock.now()
    values = {"queue": "default", "priority": 0, "bound": [], "unknown": [], "worker": worker, "now": now, "until": now}
    text, args = named("claim_plain", store.schema_name, {**values, "count": 10})
    pool = store.pool
    async with pool.connection() as conn:
        await conn.execute("BEGIN")
        assert [row[0] for row in await conn.fetch(text, *args)] == [job]
        later = now + 2 * LEASE
        ending = asyncio.ensure_future(store.rescue(later, None) if end == "rescue" else store.unregister(worker))
        with psycopg.connect(backend.url, autocommit=True) as look:
            while not look.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall() and not ending.done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await conn.execute("COMMIT")
    await ending
    view = await store.job(job)
    assert view is not None
    assert view.state == "scheduled"
