"""The caller's transaction decides, on a connection of every kind: what it holds exists if and only if it commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from oncue import OnCue, Scheduled
from oncue.errors import InvalidJob
from oncue.store.postgres.links import sqlstate
from tests import databases
from tests.callers.conftest import Ear
from tests.callers.kinds import Caller

both_versions = pytest.mark.parametrize("url", databases.POSTGRES, indirect=True)
FAR = datetime(2099, 1, 1, tzinfo=UTC)
FAR_US = int(FAR.timestamp()) * 1_000_000


async def _waiting(app: OnCue) -> list[Any]:
    return sorted([job for job in await app.jobs.list() if job.state == "scheduled"], key=lambda job: int(job.id))


@both_versions
async def test_committed_the_job_is_there_and_the_hint_is_heard(app: OnCue, caller: Caller, ear: Ear) -> None:
    await caller.execute("INSERT INTO mine VALUES (1)")
    handle = await caller.schedule("a", at=FAR)
    assert await _waiting(app) == []
    assert await ear.heard() == [], "not before the commit"
    await caller.commit()
    (job,) = await _waiting(app)
    assert (job.id, job.scheduled_at) == (handle.id, FAR_US)
    # Far off or not: by the time that a transaction commits, anything in it may be near.
    assert await ear.heard() == [str(FAR_US)]
    assert await caller.execute("SELECT x FROM mine") == [(1,)]


@both_versions
async def test_rolled_back_there_is_no_job_and_no_hint(app: OnCue, caller: Caller, ear: Ear) -> None:
    kept = await app.schedule(app.tasks["work"].call(), key="kept", at=FAR)
    await ear.heard()
    await caller.execute("INSERT INTO mine VALUES (1)")
    await caller.schedule()
    await caller.schedule(key="k")
    assert await caller.call("cancel", key="kept") == "prevented"
    await caller.rollback()
    assert [job.id for job in await _waiting(app)] == [kept.id]
    assert await ear.heard() == []
    assert await caller.execute("SELECT x FROM mine") == []


async def test_all_calls_see_what_the_transaction_did_before(app: OnCue, caller: Caller) -> None:
    first = await caller.schedule("a", key="k", group="g", at=FAR)
    assert first.status == "created"
    assert (await caller.schedule("b", key="k")).status == "kept"
    replaced = await caller.schedule("c", key="k", group="g", on_conflict="replace", delay=3600)
    assert (replaced.id, replaced.status) == (first.id, "replaced")
    assert (await caller.schedule("d", key="k", on_conflict="reschedule", at=FAR)).status == "rescheduled"
    assert (await caller.schedule("e", key="k", on_conflict="debounce", delay=9, max_wait=99)).status == "debounced"
    assert await caller.call("reschedule", key="k", at=FAR)
    assert not await caller.call("reschedule", key="none", at=FAR)
    work = app.tasks["work"]
    made = await caller.call(
        "schedule_many", [work.call("100%"), Scheduled(work.call("$1 %s"), key="k"), Scheduled(work.call(), key="l")]
    )
    assert [one.status for one in made] == ["created", "kept", "created"]
    assert await caller.call("cancel", key="l") == "prevented"
    assert await caller.call("cancel", id=int(made[2].id)) == "too late"
    assert await caller.call("schedule_many", []) == []
    await caller.commit()
    left = await _waiting(app)
    assert [(job.id, job.key) for job in left] == [(first.id, "k"), (made[0].id, None)]
    assert left[0].scheduled_at == FAR_US
    assert [job.args for job in left] == [{"token": "e"}, {"token": "100%"}]


async def test_without_an_open_transaction_a_call_is_one_of_its_own(
    app: OnCue, opened: Callable[..., Any], ear: Ear
) -> None:
    caller = await opened(autocommit=True)
    handle = await caller.schedule("a", key="k", at=FAR)
    assert [job.id for job in await _waiting(app)] == [handle.id]
    assert len(await ear.heard()) == 1
    # The second of two jobs can't be stored: the first isn't either.
    await caller.execute("SET lock_timeout = '50ms'")
    async with _held(app, "held"):
        with pytest.raises(Exception, match="lock timeout") as caught:
            await caller.call("schedule_many", [app.tasks["work"].call(), _keyed(app, "held")])
    assert sqlstate(caught.value) == "55P03"
    assert [job.id for job in await _waiting(app)] == [handle.id]
    assert await caller.call("cancel", key="k") == "prevented"
    assert await _waiting(app) == []


def _keyed(app: OnCue, key: str) -> Scheduled:
    return Scheduled(app.tasks["work"].call(), key=key)


@asynccontextmanager
async def _held(app: OnCue, key: str) -> AsyncIterator[None]:
    """Someone else's transaction has just scheduled with that key, and takes it back at the end."""
    other = await asyncpg.connect(app.url)
    await other.execute("BEGIN")
    await app.schedule(app.tasks["work"].call(), key=key, connection=other)
    yield
    await other.close()


async def test_after_a_refusal_the_transaction_goes_on_as_it_was(app: OnCue, caller: Caller) -> None:
    await caller.execute("INSERT INTO mine VALUES (1)")
    await caller.schedule("a", at=FAR)
    with pytest.raises(InvalidJob):
        await caller.schedule("b", key="\0")
    await caller.execute("SET LOCAL lock_timeout = '50ms'")
    async with _held(app, "held"):
        with pytest.raises(Exception, match="lock timeout") as caught:
            await caller.call("schedule_many", [app.tasks["work"].call("c"), _keyed(app, "held")])
    assert sqlstate(caught.value) == "55P03", "the driver's own error"
    await caller.schedule("d", key="held", at=FAR)
    await caller.commit()
    assert [job.key for job in await _waiting(app)] == [None, "held"]
    assert await caller.execute("SELECT x FROM mine") == [(1,)]


async def test_a_savepoint_of_the_callers_own_takes_the_job_with_it(app: OnCue, caller: Caller, ear: Ear) -> None:
    await caller.execute("SAVEPOINT own")
    await caller.schedule("a")
    await caller.execute("ROLLBACK TO SAVEPOINT own")
    await caller.schedule("b", at=FAR)
    await caller.commit()
    assert len(await _waiting(app)) == 1
    assert len(await ear.heard()) == 1


async def test_in_a_failed_transaction_nothing_can_be_scheduled(app: OnCue, caller: Caller) -> None:
    with pytest.raises(Exception, match="division by zero"):
        await caller.execute("SELECT 1 / 0")
    with pytest.raises(InvalidJob, match=r"has failed already.*Roll it back"):
        await caller.schedule()
    await caller.rollback()
    await caller.schedule(at=FAR)
    await caller.commit()
    assert len(await _waiting(app)) == 1


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_at_stricter_isolation_a_conflict_is_the_callers_to_try_again(
    app: OnCue, caller: Caller, level: str
) -> None:
    await caller.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
    await caller.schedule("a", key="mine", at=FAR)
    await app.schedule(app.tasks["work"].call(), key="k", at=FAR)
    with pytest.raises(Exception, match="could not serialize") as caught:
        await caller.schedule("b", key="k")
    assert sqlstate(caught.value) == "40001"
    await caller.rollback()
    assert (await caller.schedule("b", key="k")).status == "kept"
    await caller.commit()
    assert [job.key for job in await _waiting(app)] == ["k"]
