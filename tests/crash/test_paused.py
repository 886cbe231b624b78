"""SIGSTOP past the lease, then SIGCONT: the zombie changes nothing, is told, and goes on under a new life."""

from __future__ import annotations

import signal

import pytest

from tests.crash.stage import Player, Stage

RUNNING = "SELECT id, attempt, worker FROM oncue_job WHERE state = 'running' ORDER BY id"


def _rescued_by_another(stage: Stage, kind: str, count: int) -> tuple[Player, Player]:
    """Stop a worker past its lease; return it and the one that has taken all its jobs over."""
    stage.finish(stage.ready("producer", kind=kind, count=count))
    paused = stage.ready("worker", lease=1.0)
    stage.seen("start", count)
    stage.freeze(paused)
    # So full that what comes later is not for it.
    other = stage.ready("worker", concurrency=count)
    stage.seen("start", count, pid=other.pid)
    return paused, other


def test_fenced_a_paused_worker_changes_nothing_and_its_handlers_are_told(stage: Stage) -> None:
    paused, other = _rescued_by_another(stage, "gated", 3)
    held = stage.rows(RUNNING)
    assert [row[1] for row in held] == [2, 2, 2]
    stage.thaw(paused)
    stage.seen("told", 3, pid=paused.pid)
    assert {one.note for one in stage.lines("told")} == {"lease lost"}
    assert stage.rows(RUNNING) == held
    # It goes on: the other is full, so this one runs here, under another worker id.
    stage.finish(stage.ready("producer", kind="plain", count=1, seed=1))
    stage.seen("end", 1, pid=paused.pid)
    (stage.folder / "gate").touch()
    stage.rest()
    stage.stop(paused)
    stage.stop(other)
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    (old,) = stage.rows("SELECT DISTINCT worker FROM oncue_attempt")[0]
    (new,) = stage.rows("SELECT worker FROM oncue_finished WHERE args LIKE '%plain%'")[0]
    assert old not in (new, held[0][2])
    assert new != held[0][2]
    for (reason,) in stage.rows("SELECT reason FROM oncue_attempt WHERE outcome = 'rescued'"):
        assert "let its lease end" in str(reason)


def test_fenced_a_thread_that_ends_after_the_rescue_does_not_count(stage: Stage) -> None:
    paused, other = _rescued_by_another(stage, "gated_thread", 2)
    held = stage.rows(RUNNING)
    stage.thaw(paused)
    stage.wait(lambda _: "lost its lease" in paused.log.read_text(), "the zombie knows")
    assert stage.rows(RUNNING) == held
    (stage.folder / "gate").touch()
    # Both ran to their end; only the owner's outcome is kept.
    stage.seen("end", 2, pid=paused.pid)
    stage.rest()
    stage.stop(paused)
    stage.stop(other)
    assert not stage.verdict().wrong
    assert {one.note for one in stage.lines("told")} == {"lease lost"}
    assert {row[0] for row in stage.rows("SELECT result FROM oncue_finished")} == {"2"}
    assert {row[0] for row in stage.rows("SELECT worker FROM oncue_finished")} == {held[0][2]}


def test_fenced_an_outcome_handed_in_after_the_rescue_is_refused(stage: Stage) -> None:
    """The worker stops itself with the outcome in its hand, just before the transaction that would record it."""
    stage.finish(stage.ready("producer", kind="gated", count=1))
    paused = stage.ready("worker", lease=1.0, point="handing in", signal=signal.SIGSTOP)
    stage.seen("start")
    (stage.folder / "gate").touch()
    stage.seen("stopping")
    other = stage.ready("worker")
    stage.seen("end", 2)
    stage.rest()
    stage.thaw(paused)
    stage.wait(lambda _: "lost its lease" in paused.log.read_text(), "the zombie knows")
    stage.stop(paused)
    stage.stop(other)
    assert not stage.verdict().wrong
    assert stage.rows("SELECT attempt, result FROM oncue_finished") == [(2, "2")]
    assert "came too late" in paused.log.read_text()


def test_a_worker_paused_with_the_write_lock_makes_others_wait_and_loses_nothing(stage: Stage) -> None:
    stage.finish(stage.ready("producer", kind="gated", count=2))
    other = stage.ready("worker", concurrency=1, busy=0.1)
    stage.seen("start", 1, pid=other.pid)
    paused = stage.start("worker", concurrency=1, point="ack not committed", signal=signal.SIGSTOP, nth=1)
    stage.seen("start", 2)
    (stage.folder / "gate").touch()
    stage.seen("stopping", pid=paused.pid)
    stage.wait(lambda _: "stayed locked by another process" in other.log.read_text(), "the other says why it waits")
    stage.thaw(paused)
    stage.rest()
    stage.seen("ready", pid=paused.pid)
    stage.stop(paused)
    stage.stop(other)
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    assert verdict.again == 0


@pytest.mark.parametrize("proof", [True, False])
def test_bounded_recovery_without_a_sweep(stage: Stage, proof: bool) -> None:
    """A worker that idles beside takes a dead one's jobs over by its own timer: sweeps are an hour apart."""
    first = stage.ready("worker", lease=1.0)
    other = stage.ready("worker")
    stage.freeze(other)
    stage.finish(stage.ready("producer", kind="gated", count=2))
    stage.seen("start", 2, pid=first.pid)
    if not proof:
        for lock in (stage.folder / "jobs.db-workers").iterdir():
            lock.unlink()
    stage.thaw(other)
    stage.kill(first)
    (stage.folder / "gate").touch()
    stage.stop_after_rest(other)
    assert not stage.verdict().wrong
    reasons = {str(row[0]) for row in stage.rows("SELECT reason FROM oncue_attempt")}
    assert len(reasons) == 1
    if not proof:
        assert "let its lease end" in reasons.pop()
