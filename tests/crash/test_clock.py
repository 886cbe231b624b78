"""The clock set back or forward by an hour while work is in hand: nothing early by that clock, and nothing lost."""

from __future__ import annotations

from oncue.job import Claimed, Rescued, Snoozed, decide
from tests.crash.stage import Stage


def _set_clock(stage: Stage, hours: float) -> None:
    new = stage.folder / "shift.new"
    new.write_text(str(hours))
    new.rename(stage.folder / "shift")


def test_set_back_an_hour_what_is_due_now_still_runs_and_the_rest_waits_for_its_time(stage: Stage) -> None:
    worker = stage.ready("worker")
    stage.finish(stage.ready("producer", kind="keyed", count=1))
    _set_clock(stage, -1)
    # Due by the new time: heard and run at once. What was due by the old time waits.
    stage.finish(stage.ready("producer", kind="plain", count=2))
    stage.seen("end", 2)
    # On a slow machine it may have run before the clock was set.
    assert not [one for one in stage.lines("start") if one.token.startswith("keyed") and one.now < one.due]
    _set_clock(stage, 0)
    stage.finish(stage.ready("producer", kind="plain", count=1, seed=2))
    stage.stop_after_rest(worker)
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    assert verdict.again == 0


def test_set_back_an_hour_while_jobs_run_neither_loses_nor_repeats_them(stage: Stage) -> None:
    stage.finish(stage.ready("producer", kind="gated", count=3))
    worker = stage.ready("worker", lease=1.0)
    stage.seen("start", 3)
    _set_clock(stage, -1)
    other = stage.ready("worker", lease=1.0)
    (stage.folder / "gate").touch()
    stage.rest()
    stage.stop(worker)
    stage.stop(other)
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    assert verdict.again == 0


def test_set_back_an_hour_a_killed_workers_jobs_are_taken_over_by_proof(stage: Stage) -> None:
    """Its lease now ends in an hour; the lock that its process held tells sooner."""
    stage.finish(stage.ready("producer", kind="gated", count=3))
    worker = stage.ready("worker")
    stage.seen("start", 3)
    _set_clock(stage, -1)
    stage.kill(worker)
    (stage.folder / "gate").touch()
    other = stage.ready("worker")
    # Rescued at once, but due by a clock that is an hour ahead of this one: nothing starts early, whatever happened.
    stage.wait(lambda _: not stage.rows("SELECT 1 FROM oncue_job WHERE state = 'running'"), "taken over")
    _set_clock(stage, 0)
    stage.finish(stage.ready("producer", kind="plain", count=1))
    stage.stop_after_rest(other)
    verdict = stage.verdict()
    assert not verdict.wrong, verdict


def test_set_forward_an_hour_what_has_become_due_runs_once(stage: Stage) -> None:
    """Leases look ended by the new clock. Jobs may be taken over and run again; none is lost, one outcome counts."""
    stage.finish(stage.ready("producer", kind="gated", count=3))
    worker = stage.ready("worker")
    stage.seen("start", 3)
    stage.finish(stage.ready("producer", kind="far", count=2))
    with stage.away([worker]):
        _set_clock(stage, 1)
    other = stage.ready("worker")
    stage.seen("end", 2)
    (stage.folder / "gate").touch()
    stage.rest()
    stage.stop(worker)
    stage.stop(other)
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    assert stage.rows("SELECT count(*), count(DISTINCT id) FROM oncue_finished") == [(5, 5)]


def test_never_early_after_a_rescue_within_the_look_ahead() -> None:
    """A claim is up to 20 ms ahead of the due time; a worker that dies in between may not make the job early."""
    due = 1_000_000_000
    job = Claimed(
        1,
        "work",
        "{}",
        "default",
        0,
        due,
        1,
        0,
        5,
        None,
        None,
        0,
        None,
        "wait",
        0,
        None,
        "run",
        None,
        None,
        None,
        0,
        due,
    )
    for outcome in (Rescued("worker died"), Snoozed(0, "given back", released=True)):
        ack = decide(job, outcome, due - 10_000, started_at=due - 15_000)
        assert (ack.state, ack.scheduled_at, ack.eligible_at) == ("scheduled", due, due)
