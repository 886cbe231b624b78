"""What Redis holds is bounded: once jobs have run, nothing is left of them."""

from __future__ import annotations

import pytest

from tests.redis.conftest import Make
from tests.redis.test_carried import OFF, keys
from tests.valkey import Server

# BullMQ keeps about 10,000 events of a queue, and drops them by whole nodes of a stream.
MOST_EVENTS = 11_000


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_of_thousands_of_announced_jobs_nothing_is_left_but_a_bounded_number_of_events(
    make: Make, server: Server
) -> None:
    stage = make(OFF)
    count = 0
    async with stage.app.worker():
        await stage.until_healthy()
        while stage.wake.stats.announced < 3_000:
            await stage.schedule(range(count, count + 1_000), 1.0, 0.0005)
            count += 1_000
            await stage.until_ran(count)
        await stage.until(lambda: not keys(server))
    assert set(stage.ran.values()) == {1}
    with server.client() as link:
        assert link.xlen("bull:oncue:events") < MOST_EVENTS
