"""Jobs that programs of Node add to a BullMQ queue drive Python tasks, chosen by queue and payload."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import oncue.testing
from oncue.clock import from_us
from tests.adopt.stage import ONE, PAIRS, QUEUE, Producer, Trial, question
from tests.databases import Backend
from tests.nodejs import Node


@pytest.mark.parametrize(("backend", "redis_url"), PAIRS, indirect=True)
async def test_both_lines_of_the_trial_drive_a_task_in_python(node: Node, backend: Backend, redis_url: str) -> None:
    trial = Trial(backend.url, redis_url)

    async def add(*args: Any) -> None:
        await asyncio.to_thread(node.run, "trial.mjs", *args, env={"REDIS_URL": redis_url})

    async with trial.app.worker():
        await add("t-1", 0)
        (first,) = await trial.stored(1)
        # Adopted when it was added, long before it is due, and due when Node said.
        assert first.state == "scheduled"
        assert first.scheduled_at == 1000 * (trial.seen[0].timestamp + 2000)
        assert from_us(first.scheduled_at) == trial.seen[0].due
        await trial.app.jobs.run_now(first.id)
        assert await trial.wait_sent(1) == ["t-1"]
        await add("t-2", 3_600_000, "named")
        await trial.adopted(2)
        second = (await trial.jobs())[1]
        assert second.state == "scheduled"
        # The second question of the same trial, with the same jobId, goes out too.
        await add("t-2", 10, "named")
        assert await trial.wait_sent(2) == ["t-1", "t-2"]
        await trial.app.jobs.run_now(second.id)
        assert await trial.wait_sent(3) == ["t-1", "t-2", "t-2"]
        await trial.adopted(3)
    with trial.client() as client:
        kept = {key.rpartition(":")[2] for key in client.scan_iter("bull:*")}
    assert kept <= {"meta", "events", "id", "marker"}


@ONE
async def test_the_same_id_again_while_the_first_runs_and_when_it_is_done(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url)
    trial.gate = asyncio.Event()
    async with trial.app.worker():
        await producer.add(question("t", jobId="question-t", delay=0))
        await trial.begun.wait()
        # Until it is out of BullMQ, Node takes the next of its id for the same.
        await trial.adopted(1)
        await producer.add(question("t", jobId="question-t", delay=0))
        await trial.adopted(2)
        trial.gate.set()
        await trial.wait_sent(2)
        await producer.add(question("t", jobId="question-t", delay=0))
        await trial.wait_sent(3)
    assert {job.origin for job in await _jobs(trial)} == {f"bullmq:bull:{QUEUE}"}


async def _jobs(trial: Trial) -> list[Any]:
    async with trial:
        return await trial.jobs()


@ONE
async def test_what_waits_is_found_in_every_list_and_becomes_what_bullmq_said(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url)
    await producer.add(
        question("none", delay=0), question("five", delay=0, priority=5), question("last", delay=0, priority=2_000_000),
        question("tries", attempts=7), question("both", priority=9, delay=5000),
    )  # fmt: skip
    await producer.ask("pause")
    await producer.add(question("paused", delay=0))
    async with trial:
        assert await trial.adopter().run_once() == 6
        found = {job.args["trial_id"]: job for job in await trial.jobs()}
        assert {name: job.priority for name, job in found.items()} == {
            "none": 0, "five": 5, "last": 100, "tries": 0, "both": 9, "paused": 0,
        }  # fmt: skip
        assert {name for name, job in found.items() if job.max_attempts == 7} == {"tries"}
        assert found["none"].max_attempts == 5
    assert await producer.left() == {}
    (tries,) = [job for job in trial.seen if job.data["trialId"] == "tries"]
    assert (tries.queue, tries.name, tries.attempts, tries.priority) == (QUEUE, "send-question", 7, 0)
    assert (tries.delay, tries.opts["delay"]) == (3_600_000, 3_600_000)


@ONE
async def test_a_job_is_due_where_change_delay_has_moved_it_to(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url)
    (id,) = await producer.add(question("t"))
    await producer.ask("changeDelay", id, 7_200_000)
    async with trial:
        await trial.adopter().run_once()
        (job,) = await trial.jobs()
    assert 7_190 < job.scheduled_at / 1e6 - trial.seen[0].timestamp / 1000 < 7_260


@ONE
async def test_what_the_function_leaves_stays_and_hides_nothing(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url)
    trial.wanted = lambda job: int(job.data["trialId"]) % 3 != 0
    await producer.add(*(question(str(number)) for number in range(450)))
    await producer.add(*(question(str(number), delay=0) for number in range(450, 900)))
    adopter = trial.adopter()
    async with trial:
        assert await adopter.run_once() == 600
        assert await adopter.run_once() == 0
        assert len(await trial.jobs()) == 600
    assert (adopter.counts.adopted, adopter.counts.left) == (600, 300)
    assert await producer.left() == {"delayed": 150, "wait": 150}


@ONE
async def test_a_key_of_the_function_is_settled_as_ever(producer: Producer, backend: Backend, redis_url: str) -> None:
    trial = Trial(backend.url, redis_url)
    data = {"trialId": "t", "type": "question", "key": "question-t"}
    async with trial:
        for _ in range(2):
            await producer.add(("q", data, {"delay": 60_000}))
            assert await trial.adopter().run_once() == 1
        (job,) = await trial.jobs()
        assert (job.key, job.folded) == ("question-t", 1)


@ONE
async def test_large_jobs_are_adopted_up_to_the_limit_of_arguments(
    producer: Producer, backend: Backend, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Trial(backend.url, redis_url)
    await producer.add(*(question("x" * 100_000, jobId=f"large-{n}") for n in range(20)), question("x" * 300_000))
    adopter = trial.adopter()
    async with trial:
        assert await adopter.run_once() == 20
        assert {len(job.args["trial_id"]) for job in await trial.jobs()} == {100_000}
    assert adopter.counts.refused == 1
    assert "at most 262,144 are stored" in caplog.text


@pytest.mark.parametrize(("backend", "redis_url"), PAIRS, indirect=True)
async def test_many_adopters_at_once_store_each_job_once(producer: Producer, backend: Backend, redis_url: str) -> None:
    trial = Trial(backend.url, redis_url)
    async with trial:
        await producer.add(*(question(f"t-{n}", jobId=f"q-{n}") for n in range(300)))
        async with trial.running(3) as roles:
            # The events of these reach all of them.
            await producer.add(*(question(f"t-{n}", jobId=f"q-{n}") for n in range(300, 500)))
            await trial.adopted(500)
        jobs = await trial.jobs()
        assert len({job.origin_ref for job in jobs}) == 500
        assert await trial.adopter().run_once() == 0
        assert sum(one.counts.begun + one.counts.doubled + one.counts.refused for one in roles) == 0
    assert await producer.left() == {}


@ONE
async def test_a_test_takes_nothing_out_of_a_queue_that_is_in_use(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url)
    await producer.add(question("now", delay=0))
    async with oncue.testing.run(trial.app) as t:
        await t.drain()
        assert not t.jobs()
    assert await producer.left() == {"wait": 1}
    assert (await trial.app.drain()).ran == 1


@ONE
async def test_a_drain_adopts_before_it_works(producer: Producer, backend: Backend, redis_url: str) -> None:
    trial = Trial(backend.url, redis_url)
    await producer.add(question("now", delay=0), question("later"))
    assert (await trial.app.drain()).ran == 1
    assert trial.sent == ["now"]
    assert await producer.left() == {}
