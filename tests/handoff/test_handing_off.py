"""A task that a Node worker runs: its arguments go there, and its result, progress and failure come back."""

from __future__ import annotations

from contextlib import closing

import pytest
import redis

from oncue import errors
from tests.databases import Backend
from tests.handoff.stage import PAIRS, QUEUE, Resized, Stage

pytestmark = pytest.mark.parametrize(("backend", "redis_url"), PAIRS, indirect=True)


async def test_every_outcome_in_node_comes_into_the_row(stage: Stage) -> None:
    async with stage.worker(), stage.node():
        cat, once, hopeless, odd, fails = [
            await stage.resize(image, 640, delay=0.05) for image in ("cat", "fails-once", "hopeless", "odd", "fails")
        ]
        assert await cat.result(timeout=20) == Resized("cat.png", 640)
        assert await once.result(timeout=20) == Resized("again.png", 640)
        failures = [one.error for one in await stage.app.jobs.attempts(once.id)]
        assert failures == ["NodeError: not today"]
        for handle in (hopeless, odd, fails):
            with pytest.raises(errors.JobFailed):
                await handle.result(timeout=20)
        job = await stage.job(hopeless)
        assert (job.error, job.reason) == ("NodeDiscard: not an image", "not an image")
        job = await stage.job(fails)
        assert job.error == "NodeError: no such file"
        assert job.traceback is not None
        assert "resize.mjs" in job.traceback
        job = await stage.job(odd)
        assert job.error is not None
        assert '"as you like it", which is no Resized' in job.error
    assert stage.seen() == {
        "began cat": 1, "ended cat": 1, "began fails-once": 2, "ended fails-once": 1, "began hopeless": 1,
        "began odd": 3, "ended odd": 3, "began fails": 3,
    }  # fmt: skip


async def test_progress_comes_while_it_runs_and_a_caller_s_transaction_decides(stage: Stage, backend: Backend) -> None:
    async with stage.worker(), stage.node() as node:
        with backend.connect() as conn:
            await stage.resize("undone", connection=conn)
            conn.rollback()
            slow = await stage.resize("slow", connection=conn)
            conn.commit()
        job = await stage.until(slow, lambda job: job.progress)
        assert job.progress == {"fraction": 0.4, "note": ""}
        node.tell("go on")
        assert await slow.result(timeout=20) == Resized("slow.png", 100)
    assert stage.seen() == {"began slow": 1, "ended slow": 1}


async def test_a_cancelled_job_is_removed_whether_it_waits_or_runs(stage: Stage, redis_url: str) -> None:
    async with stage.worker():
        waiting = await stage.resize("cat")
        with closing(redis.Redis.from_url(redis_url, decode_responses=True)) as link:
            while not link.llen(f"bull:{QUEUE}:wait"):
                await stage.job(waiting)
            assert await stage.app.cancel(id=waiting.id) == "requested"
            await stage.until(waiting, lambda job: job.state == "cancelled")
            assert not list(link.scan_iter(f"bull:{QUEUE}:oc-*"))
            async with stage.node():
                slow = await stage.resize("slow")
                await stage.noted("began slow")
                assert await stage.app.cancel(id=slow.id) == "requested"
                await stage.until(slow, lambda job: job.state == "cancelled")
                await stage.noted("aborted slow")
                assert not list(link.scan_iter(f"bull:{QUEUE}:oc-*"))
    assert stage.seen() == {"began slow": 1, "aborted slow": 1}
