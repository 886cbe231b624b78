"""SIGKILL at every point where a job changes hands: nothing is lost, nothing that is durable runs again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oncue import OnCue
from oncue.store import Claim, Claims
from tests.crash.stage import Stage

# Where a worker dies, and how often each of its jobs has then been started.
WORKER_POINTS = {
    "claim not committed": 1,
    "claimed": 1,
    "handler": 2,
    "handled": 2,
    "ack not committed": 2,
    "acked": 1,
}


@pytest.mark.parametrize("point", WORKER_POINTS)
def test_a_worker_killed_at_a_named_point_loses_nothing(stage: Stage, point: str) -> None:
    stage.finish(stage.ready("producer", kind="gated", count=1))
    (stage.folder / "gate").touch()
    stage.dies(stage.start("worker", point=point))
    stage.finish(stage.ready("producer", kind="grouped", count=6, seed=1))
    stage.stop_after_rest(stage.ready("worker"))
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    assert verdict.promised == 7
    starts = stage.lines("start")
    assert len([one for one in starts if one.token == "gated-0-0"]) == WORKER_POINTS[point]


@pytest.mark.parametrize("point", ["inserted, not committed", "committed, not promised", "promised"])
def test_durable_before_promised(stage: Stage, point: str) -> None:
    """A producer killed around its commit: what it was promised runs; what it wasn't may, and is whole."""
    stage.dies(stage.start("producer", count=5, point=point, nth=3))
    stage.stop_after_rest(stage.ready("worker"))
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    ran = {one.token for one in stage.lines("end")}
    kept = 2 if point == "inserted, not committed" else 3
    assert ran == {f"plain-0-{n}" for n in range(kept)}
    assert verdict.promised == (3 if point == "promised" else 2)


@pytest.mark.parametrize("point", ["rescue not committed", "rescued"])
def test_a_rescuer_killed_in_its_rescue_loses_nothing(stage: Stage, point: str) -> None:
    stage.finish(stage.ready("producer", kind="gated", count=3))
    first = stage.ready("worker", lease=3600.0)
    stage.seen("start", 3)
    stage.kill(first)
    (stage.folder / "gate").touch()
    stage.dies(stage.start("worker", point=point))
    stage.stop_after_rest(stage.ready("worker"))
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    assert stage.rows("SELECT DISTINCT attempt, outcome FROM oncue_attempt") == [(1, "rescued")]
    assert stage.rows("SELECT DISTINCT attempt FROM oncue_finished") == [(2,)]


@pytest.mark.parametrize("point", ["fire not committed", "fired"])
def test_a_planner_killed_in_a_fire_makes_each_fire_once(stage: Stage, point: str) -> None:
    stage.dies(stage.start("planner", cron=True, point=point, nth=2))
    planner = stage.ready("planner", cron=True)
    worker = stage.ready("worker", cron=True)
    stage.seen("tick", 4)
    stage.stop(planner)
    stage.stop(worker)
    fires = [int(str(row[0])) for row in stage.rows(_FIRES)]
    assert len(fires) >= 4
    # Every second from the first to the last, each once: none lost between the two lives, none doubled.
    assert fires == list(range(fires[0], fires[-1] + 1, 1_000_000))


_FIRES = """
SELECT CAST(origin_ref AS INTEGER) AS nominal FROM oncue_finished WHERE origin = 'cron:tick'
UNION ALL SELECT CAST(origin_ref AS INTEGER) FROM oncue_job WHERE origin = 'cron:tick' ORDER BY nominal
"""


@pytest.mark.parametrize("nth", [1, 7, 20])
def test_a_migration_killed_in_the_middle_is_done_whole_by_the_next(stage: Stage, nth: int) -> None:
    stage.dies(stage.start("opener", point="migrating", nth=nth))
    assert not stage.rows("SELECT name FROM sqlite_master WHERE name LIKE 'oncue%'")
    stage.finish(stage.ready("producer", count=3))
    stage.stop_after_rest(stage.ready("worker"))
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    assert verdict.promised == 3


def test_a_worker_killed_while_it_signs_off_leaves_nothing_behind(stage: Stage) -> None:
    stage.finish(stage.ready("producer", count=3))
    first = stage.ready("worker", point="signing off")
    stage.seen("end", 3)
    first.process.terminate()
    stage.dies(first)
    stage.finish(stage.ready("producer", count=3, seed=1))
    stage.stop_after_rest(stage.ready("worker"))
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    assert verdict.again == 0
    assert stage.rows("SELECT count(*) FROM oncue_worker") == [(0,)]


async def test_a_claim_cancelled_before_its_answer_gives_its_jobs_back(tmp_path: Path) -> None:
    """The claim is durable, but its worker is cancelled before it hears of it: nobody else would look after it."""
    app = OnCue(f"sqlite:///{tmp_path / 'jobs.db'}")

    @app.task(name="work")
    async def work() -> None: ...

    claimed, original = asyncio.Event(), app.store.claim

    async def never_answered(request: Claim) -> Claims:
        found = await original(request)
        if found.jobs:
            claimed.set()
            await asyncio.Event().wait()
        return found

    app.store.claim = never_answered  # type: ignore[method-assign]
    async with app:
        working = asyncio.create_task(app.run_worker())
        handle = await app.schedule(work.call())
        await claimed.wait()
        job = await app.jobs.get(handle.id)
        assert job is not None
        assert job.state == "running"
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        job = await app.jobs.get(handle.id)
        assert job is not None
        assert (job.state, job.attempt, job.snoozes) == ("scheduled", 1, 1)
        (attempt,) = await app.jobs.attempts(handle.id)
        assert attempt.outcome == "released"
        assert "signed off" in (attempt.reason or "")
