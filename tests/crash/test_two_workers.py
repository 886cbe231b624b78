"""Several processes on one file: groups, keys, limits and fires hold across all of them."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from oncue import OnCue
from tests.crash.stage import Stage


def test_groups_keys_and_chains_hold_across_two_workers(stage: Stage) -> None:
    # Too small for one of them to do it all.
    workers = [stage.ready("worker", concurrency=2), stage.ready("worker", concurrency=2)]
    producers = [
        stage.start("producer", kind=kind, count=count, seed=seed)
        for kind, count, seed in (("grouped", 60, 1), ("chain", 6, 2), ("keyed", 10, 3))
    ]
    for producer in producers:
        stage.finish(producer)
    stage.rest()
    for worker in workers:
        stage.stop(worker)
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    assert verdict.again == 0
    assert verdict.promised == 60 + 6 * 6 + 10
    # Both have worked, or nothing was shared.
    assert {one.pid for one in stage.lines("start")} == {worker.pid for worker in workers}
    assert {one.note for one in stage.lines("promised") if one.note} == {"created,kept,kept"}


def test_limits_are_exact_across_two_workers(stage: Stage) -> None:
    producers = [stage.ready("producer", kind=kind, count=20) for kind in ("limited", "capped")]
    for producer in producers:
        stage.finish(producer)
    workers = [stage.ready("worker"), stage.ready("worker")]
    stage.rest()
    for worker in workers:
        stage.stop(worker)
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    # 20 a second, one at a time: the n-th is allowed no earlier than the first plus n twentieths, and starts no sooner.
    allowed = {one.job: one.now for one in stage.lines("allowed")}
    turns = sorted(allowed.values())
    assert len(turns) == 20
    assert all(turn >= turns[0] + n * 50_000 for n, turn in enumerate(turns)), turns
    limited = [one for one in stage.lines("start") if one.token.startswith("limited")]
    assert all(one.now >= allowed[one.job] for one in limited), (limited, allowed)
    edges = [(one.at, 1) for one in stage.lines("start") if one.token.startswith("capped")]
    edges += [(one.at, -1) for one in stage.lines("end") if one.token.startswith("capped")]
    running = most = 0
    for _, step in sorted(edges):
        running += step
        most = max(most, running)
    assert most <= 2


def test_a_fire_happens_once_with_two_planners_and_two_workers(stage: Stage) -> None:
    players = [stage.ready(role, cron=True) for role in ("planner", "worker", "planner", "worker")]
    stage.seen("tick", 3)
    for player in players:
        stage.stop(player)
    done = [int(str(row[0])) for row in stage.rows("SELECT origin_ref FROM oncue_finished WHERE origin = 'cron:tick'")]
    done.sort()
    assert len(done) == len(stage.lines("tick"))
    assert all(later - earlier == 1_000_000 for earlier, later in pairwise(done)), done


def test_a_fire_happens_once_though_a_second_planner_lags_behind(stage: Stage) -> None:
    """It is stopped with a fire in its hand, which another makes and a worker runs; then it goes on with it."""
    lagging = stage.start("planner", cron=True, point="about to fire", signal=signal.SIGSTOP)
    stage.seen("stopping")
    players = [stage.ready(role, cron=True) for role in ("planner", "worker")]
    stage.seen("tick", 2)
    stage.thaw(lagging)
    stage.seen("tick", 3)
    for player in (lagging, *players):
        stage.stop(player)
    done = [row[0] for row in stage.rows("SELECT origin_ref FROM oncue_finished WHERE origin = 'cron:tick'")]
    assert len(done) >= 3
    assert len(done) == len(set(done)) == len(stage.lines("tick")), sorted(map(str, done))


def test_another_process_wakes_a_sleeping_worker(stage: Stage) -> None:
    """Sweeps are an hour apart and the longest sleep is a minute: only the hint can start this in time."""
    worker = stage.ready("worker")
    stage.finish(stage.ready("producer", count=1))
    stage.seen("start", pid=worker.pid)
    stage.stop_after_rest(worker)
    assert not stage.verdict().wrong


def test_where_files_cannot_be_watched_another_process_is_heard_by_polling(stage: Stage) -> None:
    worker = stage.ready("worker", deaf=True)
    stage.finish(stage.ready("producer", count=1))
    stage.seen("start", pid=worker.pid)
    stage.stop_after_rest(worker)
    assert not stage.verdict().wrong
    assert "can't be watched" in worker.log.read_text()


async def test_a_hint_that_comes_before_its_commit_can_be_seen_is_not_lost(tmp_path: Path) -> None:
    """A commit writes to the log, is made durable, and only then becomes visible: the answer waits for that."""
    async with OnCue(f"sqlite:///{tmp_path / 'jobs.db'}") as app:
        await app.store.changed_elsewhere()
        with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("CREATE TABLE note (token TEXT)")
            asked = asyncio.create_task(app.store.changed_elsewhere())
            await asyncio.wait({asked}, timeout=0.1)
            other.execute("COMMIT")
        assert await asked
        assert not await app.store.changed_elsewhere()
