"""SIGKILL at random moments while everything else goes wrong as well: people see each question once, in order.

ONCUE_CRASH_SEED replays a run. In a soak there are 1,000 people with 10 questions each, on each database.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oncue.store.postgres.run import qualified
from oncue.whatsapp.simulator import Fault, Webhooks
from tests.crash.stage import SEED, SOAK
from tests.crash.talk.stage import Talk, people, talk
from tests.databases import USUAL, Backend

pytestmark = pytest.mark.parametrize("backend", USUAL, indirect=True)
COUNT, QUESTIONS, KILLS = (1_000, 10, 60) if SOAK else (8, 3, 3)
TIMEOUT = 3_000 if SOAK else 240
# Each of these happens to so many of the requests.
SHARE = 0.003 if SOAK else 0.03
FAULTS = [
    *(Fault(action, probability=SHARE) for action in ("reset", "html-502", "accept-reset", "accept-500")),
    *(Fault(action, probability=SHARE) for action in ("accept-html-502", "accept-truncated")),
    Fault("hang", probability=SHARE / 3, seconds=30),
    Fault("accept-hang", probability=SHARE / 3, seconds=30),
    Fault("error", code=131000, status=500, probability=SHARE),
    Fault("error", code=131056, probability=SHARE),
    Fault("error", code=130429, probability=SHARE / 10, retry_after=1),
]


@asynccontextmanager
async def rough_talk(folder: Path, backend: Backend, lost: float, slowest: float) -> AsyncIterator[Talk]:
    """Serve all that goes wrong by itself."""
    webhooks = replace(Webhooks.rough(), statuses_lost=lost, late_failed=0)
    options: dict[str, Any] = {"questions": QUESTIONS, "reconcile_for": 10.0 if SOAK else 3.0}
    async with talk(
        folder, backend.url, people(COUNT, pace=(0.05, slowest)), webhooks=webhooks, faults=FAULTS, **options
    ) as one:
        yield one


async def torment(one: Talk, chance: random.Random) -> None:
    """Kill the application at random messages, cut it off from updates once, and flood it with what is old."""
    for number, count in enumerate(sorted(chance.sample(range(1, COUNT * QUESTIONS), KILLS))):
        await one.accepted(count)
        await asyncio.sleep(chance.uniform(0, 0.2))
        one.kill()
        if number == KILLS // 3:
            one.simulator.outage(chance.uniform(1, 3))
        if number == KILLS // 2:
            one.simulator.flood(2 * COUNT)
        await one.start()


async def run(one: Talk) -> int:
    """Let everybody talk to the end, in torment; return how often the operator had to resume someone's."""
    await one.start()
    await one.subscribe()
    one.begin()
    await torment(one, random.Random(SEED))
    async with one.busy(), one.operated() as resumed:
        await one.finished()
    assert set(resumed) <= {"given up: unknown a second time"}
    return resumed.total()


def count_resent(backend: Backend) -> int:
    """Return how often a message of unknown outcome was sent once more, as the database tells."""
    sql = "SELECT coalesce(sum(resent), 0) FROM oncue_message"
    with backend.connect() as conn:
        return int(conn.execute(sql if backend.is_sqlite else qualified(sql, "oncue")).fetchone()[0])


@pytest.mark.timeout(TIMEOUT)
async def test_killed_at_random_nobody_misses_a_question_or_gets_it_twice(tmp_path: Path, backend: Backend) -> None:
    async with rough_talk(tmp_path, backend, lost=0, slowest=0.3) as one:
        resumed = await run(one)
        verdict = one.verdict()
        print(f"{backend.url.partition(':')[0]}, statuses arrive: {verdict}; resumed {resumed}")
        assert verdict.clean, verdict
        assert not verdict.doubled, verdict


@pytest.mark.timeout(TIMEOUT)
async def test_where_statuses_are_lost_only_unknown_outcomes_are_sent_again(tmp_path: Path, backend: Backend) -> None:
    # Some answer so late that their question goes out once more before that.
    async with rough_talk(tmp_path, backend, lost=0.3, slowest=5) as one:
        resumed = await run(one)
        verdict = one.verdict()
        resent = count_resent(backend)
        print(f"{backend.url.partition(':')[0]}, 30% without a status: {verdict}; resent {resent}, resumed {resumed}")
        assert verdict.clean, verdict
        assert verdict.doubled.total() <= resent + resumed
