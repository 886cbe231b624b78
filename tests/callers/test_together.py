"""Two callers who want the same, and a worker that hears of a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from oncue import OnCue, Scheduled
from oncue.store.postgres.links import sqlstate
from tests.callers.kinds import KINDS, Caller

SOME = pytest.mark.parametrize("kind", ["asyncpg", "psycopg", "sqlalchemy-async-session", "django"], indirect=True)


async def _waits(url: str) -> None:
    """Return once somebody waits for a lock that another holds."""
    connection = await asyncpg.connect(url)
    async with asyncio.timeout(30):
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await connection.close()


@SOME
@pytest.mark.parametrize(("end", "status"), [("commit", "replaced"), ("rollback", "created")])
async def test_who_wants_the_same_key_waits_and_then_follows_on_conflict(
    app: OnCue, url: str, opened: Callable[..., Any], end: str, status: str
) -> None:
    first, second = await opened(), await opened()
    made = await first.schedule("a", key="k", delay=3600)
    task = asyncio.create_task(second.schedule("b", key="k", on_conflict="replace", delay=3600))
    await _waits(url)
    await getattr(first, end)()
    got = await task
    assert got.status == status
    assert (got.id == made.id) is (status == "replaced")
    await second.commit()
    assert [job.args for job in await app.jobs.list()] == [{"token": "b"}]


@SOME
async def test_a_deadlock_is_told_to_one_of_them(app: OnCue, url: str, opened: Callable[..., Any]) -> None:
    first, second = await opened(), await opened()
    await first.execute("SET LOCAL deadlock_timeout = '10ms'")
    await first.schedule(key="a", delay=3600)
    await second.schedule(key="b", delay=3600)
    tasks = [asyncio.create_task(first.schedule(key="b")), asyncio.create_task(second.schedule(key="a"))]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    (ended,) = done
    error = ended.exception()
    assert error is not None
    assert sqlstate(error) == "40P01"
    # Its call is undone, its transaction is not: it still holds its own key, so the other waits on.
    assert not [task for task in waiting if task.done()]
    loser, winner = (first, second) if ended is tasks[0] else (second, first)
    await loser.rollback()
    assert (await waiting.pop()).status == "created"
    await winner.commit()
    assert [job.key for job in sorted(await app.jobs.list(), key=lambda job: job.key or "")] == ["a", "b"]


@SOME
async def test_a_commit_wakes_the_worker(url: str, kind: str) -> None:
    # A sweep comes in an hour: only the hint can wake it.
    app = OnCue(url, sweep=3600)
    ran: asyncio.Queue[str] = asyncio.Queue()

    @app.task(name="work")
    async def work(token: str) -> None:
        ran.put_nowait(token)

    producer = OnCue(url)

    @producer.task(name="work")
    async def same(token: str) -> None: ...

    async with app.worker(), KINDS[kind](producer, url, False) as caller:
        await _schedule_and_commit(caller, "first")
        assert await asyncio.wait_for(ran.get(), 30) == "first"
        await caller.schedule("never")
        await caller.rollback()
        await _schedule_and_commit(caller, "second")
        assert await asyncio.wait_for(ran.get(), 30) == "second"
    await producer.store.close()


async def _schedule_and_commit(caller: Caller, token: str) -> None:
    await caller.schedule(token)
    await caller.commit()


@pytest.mark.parametrize("kind", ["asyncpg", "asyncpg-pool", "psycopg-async"], indirect=True)
async def test_a_cancelled_call_leaves_the_transaction_as_it_was(
    app: OnCue, url: str, opened: Callable[..., Any]
) -> None:
    first, second = await opened(), await opened()
    await first.schedule(key="k", delay=3600)
    await second.schedule(key="own", delay=3600)
    many = [Scheduled(app.tasks["work"].call(), key=key, delay=3600) for key in ("a", "k")]
    task = asyncio.create_task(second.call("schedule_many", many))
    await _waits(url)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await second.schedule(key="last", delay=3600)).status == "created"
    await second.commit()
    assert sorted(job.key or "" for job in await app.jobs.list()) == ["last", "own"]
