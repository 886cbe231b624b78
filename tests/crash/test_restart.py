"""A restart after SIGKILL with 100 jobs running: all complete, and none waits for a lease."""

from __future__ import annotations

from tests.crash.stage import Stage


def test_a_restart_completes_100_running_jobs_by_proof_of_death(stage: Stage) -> None:
    stage.finish(stage.ready("producer", kind="gated", count=100))
    first = stage.ready("worker", lease=3600.0)
    stage.seen("start", 100)
    stage.kill(first)
    (stage.folder / "gate").touch()
    # Its lease ends in an hour, which this test would not live to see.
    stage.stop_after_rest(stage.ready("worker", lease=3600.0))
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    assert verdict.promised == verdict.again == 100
    told = stage.rows("SELECT outcome, reason, count(*) FROM oncue_attempt GROUP BY outcome, reason")
    assert len(told) == 1
    assert told[0][0] == "rescued"
    assert "died (its process holds its lock no more)" in str(told[0][1])
    assert told[0][2] == 100
    assert stage.rows("SELECT state, count(*) FROM oncue_finished GROUP BY state") == [("completed", 100)]
