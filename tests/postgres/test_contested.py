"""Somebody's open transaction holds a row or a key: whoever needs that one waits, and nobody else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psycopg
import pytest

from oncue.errors import StoreBusy
from oncue.store import open_store
from oncue.store.postgres import connection
from tests.databases import POSTGRES, database
from tests.postgres.failure import until_rows
from tests.store.kit import Bench, HandClock, job

_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture(params=POSTGRES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, tmp_path) as made:
        yield made.url


@pytest.fixture
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a lock does so for longer than a test may take."""
    monkeypatch.setattr(connection, "LOCK_WAIT", 300.0)


@asynccontextmanager
async def bench_on(url: str, patience: float = 10.0) -> AsyncIterator[Bench]:
    clock = HandClock()
    store = open_store(url, clock, patience)
    await store.open()
    try:
        yield Bench(store, clock)
    finally:
        await store.close()


@contextmanager
def holding(url: str, sql: str, *args: object) -> Iterator[psycopg.Connection]:
    """A transaction that has done this and stays open."""
    with psycopg.connect(url) as conn:
        conn.execute("SET search_path = oncue")
        conn.execute(sql, args)
        yield conn
        if not conn.closed:
            conn.rollback()


def args_of(url: str) -> dict[str, str]:
    with psycopg.connect(url) as conn:
        return dict(conn.execute("SELECT key, args FROM oncue.oncue_job").fetchall())


_LOCK_KEY = "SELECT id FROM oncue_job WHERE key = %s FOR UPDATE"


async def test_keys_that_nobody_holds_are_stored_while_others_wait_for_theirs(url: str) -> None:
    async with bench_on(url) as bench:
        await bench.put(job(50, key="a", args="0"))
        with holding(url, _LOCK_KEY, "a") as holder:
            first = asyncio.create_task(bench.put(job(50, key="a", args="1", on_conflict="replace")))
            together = asyncio.create_task(bench.put(job(50, key="b", args="1")))
            assert (await together).status == "created"
            assert (await bench.put(job(50, key="c", args="1"))).status == "created"
            assert not first.done()
            second = asyncio.create_task(bench.put(job(50, key="a", args="2", on_conflict="replace")))
            # It is behind the first one by the time that this is stored.
            assert (await bench.put(job(50, key="d", args="1"))).status == "created"
            third = asyncio.create_task(bench.put(job(50, key="a", args="3")))
            assert not first.done()
            assert not second.done()
            holder.rollback()
            assert [(await one).status for one in (first, second, third)] == ["replaced", "replaced", "kept"]
        assert args_of(url) == {"a": "2", "b": "1", "c": "1", "d": "1"}
        assert (await bench.put(job(50, key="a", args="4", on_conflict="replace"))).status == "replaced"


async def test_many_held_keys_leave_the_free_ones_of_their_commit_alone(url: str) -> None:
    async with bench_on(url) as bench:
        await bench.add(*[job(50, key=f"held{n}") for n in range(8)])
        with holding(url, "SELECT id FROM oncue_job FOR UPDATE") as holder:
            held = [asyncio.create_task(bench.put(job(50, key=f"held{n}"))) for n in range(8)]
            free = [asyncio.create_task(bench.put(job(50, key=f"free{n}"))) for n in range(8)]
            assert [one.status for one in await asyncio.gather(*free)] == ["created"] * 8
            assert not any(one.done() for one in held)
            holder.rollback()
            assert [one.status for one in await asyncio.gather(*held)] == ["kept"] * 8


async def test_a_key_that_stays_held_is_an_error_for_its_callers_alone(url: str) -> None:
    async with bench_on(url, patience=4.0) as bench:
        await bench.put(job(50, key="a"))
        with holding(url, _LOCK_KEY, "a"):
            asked = [bench.put(job(50, key=key)) for key in ("a", "b", "a")]
            one, other, again = await asyncio.gather(*asked, return_exceptions=True)
            assert isinstance(one, StoreBusy)
            assert isinstance(again, StoreBusy)
            assert not isinstance(other, BaseException)
        assert (await bench.put(job(50, key="a"))).status == "kept"


async def test_calls_that_wait_for_rows_leave_claims_and_outcomes_their_connections(url: str, long_waits: None) -> None:
    async with bench_on(url, patience=600.0) as bench:
        held = await bench.add(*[job(50) for _ in range(6)])
        worker = await bench.worker()
        await bench.add(*[job() for _ in range(3)])
        with holding(url, "SELECT id FROM oncue_job WHERE id = ANY (%s) FOR UPDATE", held) as holder:
            calls = [asyncio.create_task(bench.store.cancel(bench.now, None, id=id, key=None)) for id in held]
            await until_rows(url, _WAITING, wanted=lambda found: found == [(3,)])
            jobs = await bench.claim(worker)
            assert len(jobs) == 3
            given_back = await bench.ask(worker, [bench.ack(one) for one in jobs], count=0)
            assert (given_back.lost, given_back.unwritten) == ([], [])
            assert not any(one.done() for one in calls)
            holder.rollback()
            assert await asyncio.gather(*calls) == ["prevented"] * 6


async def test_through_a_pooler_too_an_outcome_does_not_wait_for_a_row(url: str, long_waits: None) -> None:
    async with bench_on(f"{url}{'&' if '?' in url else '?'}pgbouncer=true", patience=600.0) as bench:
        worker = await bench.worker()
        await bench.add(job(), job())
        jobs = await bench.claim(worker)
        with holding(url, "SELECT id FROM oncue_job WHERE id = %s FOR UPDATE", jobs[0].id):
            found = await bench.ask(worker, [bench.ack(one) for one in jobs], count=0)
            assert (found.lost, found.unwritten) == ([], [jobs[0].id])
        assert (await bench.ask(worker, [bench.ack(jobs[0])], count=0)).unwritten == []
