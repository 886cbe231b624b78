"""What is asked of a key at the moment at which its waiting job is claimed, and of very many keys at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from oncue import OnCue, Scheduled
from tests.databases import POSTGRES, Backend, database
from tests.postgres.failure import holding, until_waiting

CLAIM = "UPDATE oncue.oncue_job SET state = 'running', attempt = 1, worker = 99 WHERE key = 'reminder'"


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with database(POSTGRES[0], tmp_path) as made:
        yield made


@pytest.fixture
async def app(backend: Backend) -> AsyncIterator[OnCue]:
    made = OnCue(backend.url)

    @made.task(name="remind")
    async def remind() -> None: ...

    async with made:
        yield made


async def test_a_cancel_that_meets_the_claim_asks_the_handler_to_stop(app: OnCue, backend: Backend) -> None:
    made = await app.schedule(app.tasks["remind"].call(), delay=60, key="reminder")
    with holding(backend.url, CLAIM) as claim:
        asked = asyncio.create_task(app.cancel(key="reminder"))
        await until_waiting(backend.url, "oncue_job")
        claim.commit()
        assert await asked == "requested"
    row = await app.jobs.get(made.id)
    assert row is not None
    assert row.cancel == 1


async def test_a_job_that_is_claimed_meanwhile_counts_as_started(app: OnCue, backend: Backend) -> None:
    made = await app.schedule(app.tasks["remind"].call(), delay=60, key="reminder")
    with holding(backend.url, CLAIM) as claim:
        call = app.tasks["remind"].call()
        asked = asyncio.create_task(app.schedule(call, delay=60, key="reminder", while_started="keep"))
        await until_waiting(backend.url, "oncue_job")
        claim.commit()
        again = await asked
    assert (again.id, again.status) == (made.id, "kept")


async def test_fifty_thousand_keys_again_take_no_longer_than_the_first_time_by_far(app: OnCue) -> None:
    """Each key is looked up by its index; compared with all others, this would end at the patience of 10 s."""
    calls = [Scheduled(app.tasks["remind"].call(), delay=3600, key=f"k{n}") for n in range(50_000)]
    first = await app.schedule_many(calls)
    again = await app.schedule_many(calls)
    assert [one.id for one in again] == [one.id for one in first]
    assert {one.status for one in again} == {"kept"}
