"""Adopting processes are killed at random while Node goes on adding: no job is lost, and none is stored twice."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.adopt.program import work
from tests.adopt.stage import PAIRS, Producer, Trial, question
from tests.crash.stage import SEED
from tests.databases import Backend

JOBS, KILLS = 200, 4
# What is imported is so once for all who are killed.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.adopt.program"])


@pytest.mark.parametrize(("backend", "redis_url"), PAIRS[:2], indirect=True)
async def test_each_job_runs_while_those_who_adopt_are_killed(
    producer: Producer, backend: Backend, redis_url: str, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    ledger = tmp_path / "ledger"
    ledger.touch()

    async def add() -> None:
        for begin in range(0, JOBS, 10):
            await producer.add(*(question(str(n), delay=chance.randrange(300)) for n in range(begin, begin + 10)))

    async def reached(count: int) -> None:
        while ledger.read_bytes().count(b"\n") < count:  # noqa: ASYNC110 - others write it
            await asyncio.sleep(0.005)

    adding = asyncio.create_task(add())
    kills = sorted(chance.sample(range(1, JOBS // 2), KILLS))
    for count in [*kills, JOBS]:
        process = FORKS.Process(target=work, args=(backend.url, redis_url, ledger), daemon=True)
        await asyncio.to_thread(process.start)
        try:
            await reached(count)
        finally:
            process.kill()
            await asyncio.to_thread(process.join)
            process.close()
    await adding
    trial = Trial(backend.url, redis_url)
    async with trial.app.worker():
        # Duplicates count in the ledger as well, so some may be left.
        while (await trial.app.jobs.counts()).completed < JOBS:  # noqa: ASYNC110 - rows send no signal
            await asyncio.sleep(0.01)
        # What was stored is taken out of BullMQ later.
        while await producer.left():  # noqa: ASYNC110 - nor does this
            await asyncio.sleep(0.01)
        jobs = await trial.jobs()
    ran = Counter(ledger.read_text().split()) + Counter(trial.sent)
    assert set(ran) == {str(n) for n in range(JOBS)}
    # One row for each job of Node's. What ran again was at work, or not yet written down, when its process was killed.
    assert len(jobs) == len({job.origin_ref for job in jobs}) == JOBS
    assert not {name for name, count in ran.items() if count > 1} - {
        str(job.args["trial_id"]) for job in jobs if job.attempt > 1
    }
