"""Why a job does not run, in words; and what the store tells of itself without changing anything."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from oncue import Limit, OnCue
from oncue.clock import SECOND, from_us
from oncue.errors import NoDatabase, SchemaTooNew, SchemaTooOld, StoreCorrupt
from oncue.planner import Planner
from oncue.store import Claim, WorkerRow
from oncue.store.views import JobView
from oncue.why import seconds
from oncue.why import why as because
from tests.databases import sqlite_of


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[OnCue]:
    app = OnCue(f"sqlite:///{tmp_path / 'a.db'}")
    async with app:
        yield app


async def claim(app: OnCue, count: int = 10, *, lease: int = 10 * SECOND, name: str = "w-1") -> int:
    """Register a worker and have it claim what is due."""
    now = app.clock.now()
    id, _ = await app.store.register(WorkerRow(0, name, "another-host", 1, None, now, now, now + lease))
    await app.store.claim(Claim(id, now, now, lease, count, policy=app.policy))
    return id


async def found(app: OnCue, id: int) -> JobView:
    job = await app.jobs.get(id)
    assert job is not None
    return job


async def why(app: OnCue, id: int) -> str:
    return await app.jobs.why(await found(app, id))


async def test_a_future_job_says_when(app: OnCue) -> None:
    @app.task(name="t")
    async def t() -> None: ...

    handle = await app.schedule(t.call(), delay=3600)
    assert "it is due at" in await why(app, handle.id)
    assert "no worker for queue 'default' is alive" in await why(app, handle.id)


async def test_a_due_job_waits_for_a_worker_or_its_paused_queue(app: OnCue) -> None:
    @app.task(name="t")
    async def t() -> None: ...

    handle = await app.schedule(t.call())
    await claim(app, 0)
    assert await why(app, handle.id) == "it is due: the next free worker takes it"
    later = app.clock.now() + 60 * SECOND
    told = await because(await found(app, handle.id), app.store, later, await app.jobs.workers())
    assert "; nobody has taken it for 60 s: are all places" in told
    await app.store.set_queue("default", True)
    assert "its queue 'default' is paused" in await why(app, handle.id)


async def test_a_job_whose_task_no_worker_knows_says_so(app: OnCue) -> None:
    @app.task(name="t", queue="mail")
    async def t() -> None: ...

    handle, now = await app.schedule(t.call()), app.clock.now()

    async def register(queues: str, tasks: str | None) -> None:
        row = WorkerRow(0, "w", "another-host", 1, queues, now, now, now + 10 * SECOND, tasks=tasks)
        await app.store.register(row)

    await register('{"mail":3}', '["other"]')
    assert await why(app, handle.id) == "no worker knows task 't': start one with the code that declares it"
    await register('["default"]', '["t"]')
    assert "no worker for queue 'mail' knows task 't'" in await why(app, handle.id)
    await register('["mail"]', None)
    assert await why(app, handle.id) == "it is due: the next free worker takes it"


async def test_a_blocked_job_names_the_job_that_it_waits_behind(app: OnCue) -> None:
    @app.task(name="t")
    async def t() -> None: ...

    first = await app.schedule(t.call(), group="g")
    second = await app.schedule(t.call(), group="g")
    await claim(app)
    assert (await why(app, second.id)).startswith(
        f"it waits behind job {first.id} of the same group 'g', which has run for "
    )
    assert "on worker w-1" in await why(app, first.id)


async def test_a_job_of_a_dead_worker_says_who_takes_it_back(app: OnCue) -> None:
    @app.task(name="t")
    async def t() -> None: ...

    job = await app.schedule(t.call())
    await claim(app)
    running = await found(app, job.id)
    (worker,) = await app.jobs.workers()
    dead = msgspec.structs.replace(worker, state="dead")
    alive = msgspec.structs.replace(worker, id=worker.id + 1)
    now = worker.lease_until
    assert "when that worker's lease ends" in await because(running, app.store, now, [dead])
    assert "by the next worker that starts" in await because(running, app.store, now + 1, [dead])
    assert "or by the next sweep" in await because(running, app.store, now + 1, [dead, alive])


async def test_a_job_behind_the_started_one_of_its_key_names_it(app: OnCue) -> None:
    @app.task(name="t")
    async def t() -> None: ...

    first = await app.schedule(t.call(), key="k")
    await claim(app)
    second = await app.schedule(t.call(), key="k")
    await claim(app, name="w-2")
    assert (await why(app, second.id)).startswith(
        f"it waits behind job {first.id} of the same key 'k', which has run for "
    )


async def test_a_job_over_its_limit_or_cap_says_so(app: OnCue) -> None:
    @app.task(name="limited", limit=Limit(1, per=3600))
    async def limited() -> None: ...

    @app.task(name="capped", concurrency=1)
    async def capped() -> None: ...

    jobs = [await app.schedule(task.call()) for task in (limited, limited, capped, capped)]
    await claim(app)
    job = await found(app, jobs[1].id)
    assert job.eligible_at is not None
    until = from_us(-(-job.eligible_at // 100_000) * 100_000)
    said = f"the rate limit of task 'limited' (1/3600s) lets it start at {until:%Y-%m-%d %H:%M:%S}.{until:%f}"
    assert said[:-5] + " UTC, in 60 min" in await why(app, jobs[1].id)
    assert await why(app, jobs[3].id) == "as many jobs of task 'capped' run as its concurrency allows"


async def test_what_is_held_after_a_restore_says_how_to_look(app: OnCue) -> None:
    @app.task(name="t")
    async def t() -> None: ...

    handle = await app.schedule(t.call())
    assert await app.store.hold_due(app.clock.now()) == 1
    assert "oncue restored --list" in await why(app, handle.id)
    assert [(one.name, one.waiting, one.job) for one in await app.store.blockers()] == [("restore", 1, None)]


async def test_a_cancelled_job_gives_its_reason(app: OnCue) -> None:
    @app.task(name="t")
    async def t() -> None: ...

    handle = await app.schedule(t.call(), delay=60)
    await app.cancel(id=handle.id)
    assert await why(app, handle.id) == "cancelled before it ran"


async def test_a_paused_schedule_leaves_out_what_fell_into_the_pause(app: OnCue) -> None:
    @app.every(60, name="tick")
    async def tick() -> None: ...

    planner = Planner(app.store, app.clock, app.name, app.schedules)
    await planner.sync()
    assert await planner.pause("tick")
    assert [row.paused for row in await app.store.schedules()] == [1]
    await sqlite_of(app).write(lambda conn: conn.execute("UPDATE oncue_schedule SET next_at = 60000000"))
    assert await planner.pause("tick", False)
    (row,) = await app.store.schedules()
    assert row.next_at is not None
    assert row.next_at > app.clock.now() - 1 * SECOND
    assert not await planner.pause("no such")


async def test_resuming_what_is_not_paused_keeps_a_fire_that_is_due(app: OnCue) -> None:
    @app.every(60, name="tick")
    async def tick() -> None: ...

    planner = Planner(app.store, app.clock, app.name, app.schedules)
    await planner.sync()
    await sqlite_of(app).write(lambda conn: conn.execute("UPDATE oncue_schedule SET next_at = 60000000"))
    assert await planner.pause("tick", False)
    assert [row.next_at for row in await app.store.schedules()] == [60_000_000]


async def test_a_store_that_may_not_migrate_makes_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    app = OnCue(f"sqlite:///{path}")
    with pytest.raises(NoDatabase, match="no database at"):
        await app.store.open(migrate=False)
    assert not path.exists()
    path.touch()
    with pytest.raises(SchemaTooOld, match="oncue migrate"):
        await app.store.open(migrate=False)
    assert path.stat().st_size == 0
    async with app:
        pass
    conn = sqlite3.connect(path)
    conn.execute("UPDATE oncue_counter SET value = 99 WHERE name = 'schema'")
    conn.commit()
    conn.close()
    with pytest.raises(SchemaTooNew, match="version 99"):
        await app.store.open(migrate=False)
    path.write_bytes(b"no database at all, but long enough to be read as a header of one" * 20)
    with pytest.raises(StoreCorrupt, match=r"b\.db"):
        await app.store.open(migrate=False)


@pytest.mark.parametrize(
    ("us", "text"),
    [(1_500, "2 ms"), (1_500_000, "1.5 s"), (90_000_000, "90 s"), (600_000_000, "10 min"), (10_800_000_000, "3 h"),
     (864_000_000_000, "10 d"), (-1_500_000, "1.5 s")],
)  # fmt: skip
def test_spans_as_a_person_says_them(us: int, text: str) -> None:
    assert seconds(us) == text
