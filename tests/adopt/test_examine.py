"""What the doctor says of a queue that is adopted, and what is counted for metrics."""

from __future__ import annotations

import time

import pytest

from oncue import NodeJob, OnCue
from oncue.bridge.examine import adoption_checks
from tests.adopt.stage import ONE, Producer, Trial, question
from tests.databases import Backend
from tests.pgprocess import free_port


@ONE
async def test_jobs_that_nobody_adopts_are_told_of_and_those_left_to_node_are_not(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url)
    trial.wanted = lambda job: job.data["trialId"] != "theirs"
    async with trial:
        await producer.add(question("theirs"))
        (check,) = await adoption_checks(trial.app)
        assert (check.level, check.found) == ("ok", "0 to be adopted; 1 left to Node")
        await producer.add(*(question(f"t-{n}", timestamp=int(time.time() * 1000) - 60_000) for n in range(3)))
        (check,) = await adoption_checks(trial.app)
        assert check.level == "FAIL"
        assert "3 to be adopted, one for 6" in check.found
        await trial.adopter().run_once()
        (check,) = await adoption_checks(trial.app)
        assert check.level == "ok"
    (adoption,) = trial.app.adoptions.values()
    assert adoption.counts.adopted == 3
    assert await producer.left() == {"delayed": 1}


@ONE
async def test_a_function_that_raises_and_a_clock_that_is_ahead_are_named(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url)

    def fails(job: NodeJob) -> bool:
        if job.data["trialId"] == "bad":
            raise LookupError("no such trial")
        return True

    trial.wanted = fails
    async with trial:
        await producer.add(question("soon", timestamp=int(time.time() * 1000) + 90_000))
        (check,) = await adoption_checks(trial.app)
        assert (check.level, "clock is" in check.found) == ("warn", True)
        await producer.add(question("bad", jobId="q-bad"))
        (check,) = await adoption_checks(trial.app)
        assert check.level == "FAIL"
        assert "1 job can't be adopted and stay in BullMQ; job 'q-bad': LookupError: no such trial" in check.found


async def test_from_a_full_redis_jobs_are_adopted_and_it_is_said_that_it_takes_no_more(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url)
    async with trial:
        await producer.add(question("t-1"), question("t-2", delay=0))
        with trial.client() as link:
            link.config_set("maxmemory", 1)
            try:
                assert await trial.adopter().run_once() == 2
                (check,) = await adoption_checks(trial.app)
            finally:
                link.config_set("maxmemory", 0)
    assert (check.level, "maxmemory allows, and then refuses jobs" in check.found) == ("warn", True)
    assert await producer.left() == {}


async def test_a_redis_that_is_down_or_unknown_is_a_failure(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    app = OnCue(backend.url)
    app.adopt("here", redis=f"redis://:hidden-word@127.0.0.1:{free_port()}")(lambda job: None)
    app.adopt("nowhere")(lambda job: None)
    down, unknown = await adoption_checks(app)
    assert (down.level, unknown.level) == ("FAIL", "FAIL")
    assert "its jobs wait in BullMQ" in down.found
    assert "No Redis is known" in unknown.found
    assert "hidden-word" not in str(down)
