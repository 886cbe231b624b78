"""What operators do: to one, to many, to queues and tasks; and that the audit knows it, and only what was done."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from oncue import JobContext, OnCue, Retry
from oncue.clock import from_us
from oncue.errors import InvalidJob, StoreBusy, StoreError, UnknownJob, UnknownSchedule
from oncue.job import Ack, NewJob
from oncue.operate import Filter, Operator, actions
from oncue.operate.overview import Kept
from oncue.operate.schedule import Wish
from oncue.store import Claim, WorkerRow
from oncue.testing import TestClock
from tests.databases import Backend
from tests.operate.conftest import declare

S = 1_000_000


async def _claim(app: OnCue, count: int) -> None:
    """Have a worker that is elsewhere take due jobs."""
    now = app.clock.now()
    worker, _ = await app.store.register(WorkerRow(0, "w", "elsewhere", 1, None, now, now, now + 60 * S))
    found = await app.store.claim(Claim(worker, now, now, 60 * S, count))
    assert len(found.jobs) == count


async def _lines(operator: Operator) -> list[tuple[str, str, int]]:
    return [(line.action, line.target, line.count) for line in (await operator.audit()).items]


async def test_what_does_not_apply_changes_nothing_and_is_not_in_the_audit(operator: Operator, app: OnCue) -> None:
    id = (await app.schedule(app.tasks["note"].call())).id
    await app.drain()
    for action in ("run-now", "retry", "cancel", "reschedule"):
        with pytest.raises(InvalidJob, match="is completed"):
            await operator.act(action, id, at="2031-01-01T00:00:00Z")
    with pytest.raises(UnknownJob):
        await operator.act("cancel", 4711)
    with pytest.raises(UnknownSchedule):
        await operator.run_schedule("none")
    assert await _lines(operator) == []


async def test_one_that_runs_is_asked_to_stop(operator: Operator, app: OnCue) -> None:
    id = (await app.schedule(app.tasks["note"].call())).id
    await _claim(app, 1)
    assert (await operator.act("cancel", id)).text == "It runs; its handler was asked to stop."
    assert (await operator.job(id)).job.cancel_requested
    assert await _lines(operator) == [("cancel", f"job:{id}", 1)]


async def test_many_are_cancelled_whatever_they_do_and_their_lanes_go_on(
    operator: Operator, app: OnCue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "_BATCH", 2)
    note = app.tasks["note"]
    runs = (await app.schedule(note.call("runs"), group="g", queue="mail")).id
    await _claim(app, 1)
    waits = [(await app.schedule(note.call(), queue="mail", group="g", key=f"k-{n}")).id for n in range(4)]
    stays = (await app.schedule(note.call("stays"))).id
    counted = await operator.count("cancel", Filter(queue="mail"))
    assert counted.count == 5
    done = await operator.act_on_many("cancel", Filter(queue="mail"), counted.token, 5, at=None, delay=None)
    assert (done.done, done.refused, done.text) == (5, [], "cancel: 5 done.")
    states = {job.id: job.state for job in (await operator.page(Filter())).items}
    assert states == {runs: "running", **dict.fromkeys(waits, "cancelled"), stays: "scheduled"}
    assert (await operator.job(runs)).job.cancel_requested
    # Each key may be used anew.
    assert (await app.schedule(note.call(), key="k-0")).status == "created"
    assert (await _lines(operator))[0] == ("cancel", "jobs", 5)


async def test_many_are_moved_and_put_back_and_what_went_on_meanwhile_is_told(operator: Operator, app: OnCue) -> None:
    note, fail = app.tasks["note"], app.tasks["fail"]
    first, second = [(await app.schedule(note.call(), delay=500)).id for _ in range(2)]
    counted = await operator.count("reschedule", Filter(task="note"))
    await app.jobs.run_now(first)
    await app.drain()
    # It matches no more, so it is left alone.
    done = await operator.act_on_many("reschedule", Filter(task="note"), counted.token, 2, at=None, delay=7)
    assert done.done == 1
    assert (await app.store.job(second)).scheduled_at == app.clock.now() + 7 * S  # type: ignore[union-attr]
    broken = (await app.schedule(fail.call(), key="k")).id
    await app.drain()
    await app.schedule(note.call(), key="k")
    await _claim(app, 1)
    counted = await operator.count("retry", Filter(state="discarded"))
    done = await operator.act_on_many("retry", Filter(state="discarded"), counted.token, 1, at=None, delay=None)
    assert (done.done, [one.id for one in done.refused]) == (0, [broken])
    assert "key is in use" in done.refused[0].why
    assert done.text == "retry: 0 done, 1 refused."


async def test_a_question_is_answered_within_ten_minutes(operator: Operator, app: OnCue, clock: TestClock) -> None:
    await app.schedule(app.tasks["note"].call(), delay=5000)
    counted = await operator.count("cancel", Filter(task="note"))
    clock.advance(601)
    with pytest.raises(InvalidJob, match="more than ten minutes ago"):
        await operator.act_on_many("cancel", Filter(task="note"), counted.token, 1, at=None, delay=None)


async def test_what_came_since_the_last_look_is_known_however_long_that_is_kept(operator: Operator, app: OnCue) -> None:
    """Of many jobs the last look counts for minutes."""
    look = operator.look
    look._groups = Kept(look._ask_groups, least=1_000)
    await operator.lanes("queues")
    await app.schedule(app.tasks["note"].call(), queue="fresh")
    assert (await operator.pause("queue", "fresh")).text == "Queue fresh is paused."


async def test_what_was_done_is_told_so_where_it_can_no_more_be_looked_at(
    operator: Operator, app: OnCue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def too_long() -> None:
        raise StoreBusy("canceling statement due to statement timeout")

    monkeypatch.setattr(operator.look, "groups", too_long)
    done = await operator.pause("queue", "male")
    assert (done.done, done.text) == (True, "Queue male is paused.")
    assert [one.name for one in await app.store.queues(app.clock.now()) if one.paused_at is not None] == ["male"]


async def test_what_was_done_in_part_is_looked_at_anew(
    operator: Operator, app: OnCue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the last look is good for, whoever's action broke off sees how far it came."""
    monkeypatch.setattr(actions, "_BATCH", 2)
    look, change, parts = operator.look, app.store.change, []
    look._live = Kept(look._ask_live, least=1_000)
    for _ in range(4):
        await app.schedule(app.tasks["note"].call(), delay=60)
    assert (await operator.counts()).scheduled == 4
    counted = await operator.count("cancel", Filter(task="note"))

    async def breaks(*given: Any) -> Any:
        parts.append(given)
        if len(parts) == 3:
            raise StoreBusy("it went away")
        return await change(*given)

    monkeypatch.setattr(app.store, "change", breaks)
    with pytest.raises(StoreBusy):
        await operator.act_on_many("cancel", Filter(task="note"), counted.token, 4, at=None, delay=None)
    assert (await operator.counts()).scheduled == 2


async def test_what_nobody_knows_is_paused_with_a_doubt(operator: Operator, app: OnCue) -> None:
    assert (await operator.pause("task", "note")).text == "Task note is paused: nobody starts its jobs."
    found = await operator.pause("task", "nope")
    assert found.done
    assert found.text == (
        "Task nope is paused: nobody starts its jobs. No worker and no job knows a task 'nope'; tasks that are known: "
        "again, fail, note."
    )
    now = app.clock.now()
    newer = WorkerRow(
        0, "newer", "elsewhere", 1, '["mail"]', now, now, now + 60_000_000, tasks='["nope"]'
    )  # fmt: skip
    await app.store.register(newer)
    assert (await operator.pause("task", "nope", paused=False)).text == "Task nope goes on."
    assert (await operator.pause("queue", "mail")).text == "Queue mail is paused."
    assert (
        "no worker names, a queue 'male'; queues that are known: default, mail."
        in (await operator.pause("queue", "male", paused=False)).text
    )


async def test_a_paused_task_waits_says_why_and_goes_on(operator: Operator, app: OnCue) -> None:
    assert (await operator.pause("task", "note")).done
    assert not (await operator.pause("task", "note")).done
    id = (await app.schedule(app.tasks["note"].call())).id
    assert (await app.drain()).ran == 0
    assert "its task 'note' is paused by cli:ana" in (await operator.job(id)).why
    (lane,) = [lane for lane in await operator.lanes("tasks") if lane.name == "note"]
    assert (lane.paused, lane.blocked, lane.due, lane.scheduled, lane.running) == (True, 1, 0, 0, 0)
    assert [check.state for check in await operator.checks() if check.name == "paused tasks"] == ["warn"]
    assert (await operator.pause("task", "note", paused=False)).done
    assert (await app.drain()).ran == 1
    assert await _lines(operator) == [("resume", "task:note", 1), ("pause", "task:note", 1)]


async def test_a_jobs_life_is_told_from_its_call_to_its_end(operator: Operator, app: OnCue, clock: TestClock) -> None:
    id = (await app.schedule(app.tasks["again"].call(), delay=10)).id
    await operator.act("run-now", id)
    await app.drain()
    clock.advance(3600)
    await app.drain()
    clock.advance(36000)
    await app.drain()
    life = await operator.job(id)
    assert [event.event for event in life.life] == [
        "scheduled", "hint", "asked", *3 * ["claimed", "started", "failed"],
    ]  # fmt: skip
    assert all(event.at <= after.at for event, after in pairwise(life.life))
    assert life.life[3].text == f"attempt 1, by worker {life.life[3].worker}"
    assert life.why == "all 3 attempts failed"
    assert life.life[-1].text.startswith("discarded after")
    assert "ValueError: not yet" in (life.life[-1].traceback or "")
    assert life.job.state == "discarded"


async def test_a_life_says_how_workers_heard_of_it_and_who_claimed_and_acked_it(
    operator: Operator, app: OnCue, clock: TestClock, backend: Backend
) -> None:
    soon = (await app.schedule(app.tasks["note"].call(), delay=2)).id
    later = (await app.schedule(app.tasks["note"].call(), delay=86_400)).id
    said = [(await operator.job(id)).life[1] for id in (soon, later)]
    assert [one.event for one in said] == ["hint", "hint"]
    if backend.is_sqlite:
        assert {one.text for one in said} == {"workers hear each commit to this file"}
    else:
        assert said[0].text == "sent to workers with its commit"
        assert said[1].text.startswith("none needed")
    clock.advance(2)
    await _claim(app, 1)
    running = (await operator.job(soon)).life
    assert [one.event for one in running] == ["scheduled", "hint", "claimed", "started"]
    now, worker = clock.now(), running[2].worker or 0
    await app.store.claim(Claim(worker, now, now, 60 * S, 0, [Ack(soon, 1, "completed", "completed", now, now)]))
    done = (await operator.job(soon)).life
    assert [one.event for one in done] == ["scheduled", "hint", "claimed", "started", "completed"]
    assert done[-1].text.endswith(f", acked by worker {running[2].worker}")
    assert done[2] == running[2]


async def test_a_life_remembers_when_a_job_was_due_before_it_was_moved(
    operator: Operator, app: OnCue, clock: TestClock
) -> None:
    id = (await app.schedule(app.tasks["again"].call(), delay=7200)).id
    first, said = from_us(clock.now() + 7200 * S), "%Y-%m-%d %H:%M:%S.%f UTC"
    assert (await operator.job(id)).life[0].text == f"by the application, due {first:{said}}"
    await operator.act("reschedule", id, at="2035-01-01T00:00:00Z")
    await operator.act("run-now", id)
    now = from_us(clock.now())
    for _ in range(2):
        life = (await operator.job(id)).life
        assert life[0].text == f"by the application, due {first:{said}}; moved since to {now:{said}}"
        assert [one.text for one in life if one.event == "asked"] == [
            "it was moved by cli:ana, to 2035-01-01 00:00:00.000000 UTC",
            "it was asked to run now by cli:ana",
        ]
        await app.drain()
        clock.advance(3600)
        await app.drain()
    clock.advance(36_000)
    await app.drain()
    await operator.act("retry", id)
    assert (await operator.job(id)).life[0].text.startswith(f"by the application, due {first:{said}}; moved since")


async def test_a_life_says_no_start_where_there_was_none_and_no_ack_of_a_dead_worker(
    operator: Operator, app: OnCue, clock: TestClock
) -> None:
    note = app.tasks["note"]
    late = [
        (await app.schedule(note.call(), max_late=1, when_late=when)).id for when in ("skip", "fail")
    ]  # fmt: skip
    clock.advance(60)
    await app.drain()
    for id, end in zip(late, ("skipped", "failed"), strict=True):
        assert [one.event for one in (await operator.job(id)).life] == ["scheduled", "hint", "claimed", end]
    id = (await app.schedule(note.call())).id
    clock.advance(1)
    await operator.act("cancel", id)
    assert [one.event for one in (await operator.job(id)).life] == ["scheduled", "hint", "asked", "cancelled"]
    clock.advance(1)
    await operator.act("retry", id)
    await _claim(app, 1)
    clock.advance(3600)
    await app.store.rescue(clock.now(), None)
    life = (await operator.job(id)).life
    assert [one.event for one in life][3:] == ["cancelled", "asked", "claimed", "started", "rescued", "waits"]
    assert "acked" not in life[-2].text


async def test_what_was_cancelled_between_attempts_keeps_its_error_and_tells_of_its_end(
    operator: Operator, app: OnCue, clock: TestClock
) -> None:
    id = (await app.schedule(app.tasks["again"].call())).id
    await app.drain()
    clock.advance(0.001)
    counted = await operator.count("cancel", Filter(task="again"))
    await operator.act_on_many("cancel", Filter(task="again"), counted.token, counted.count, at=None, delay=None)
    found = await operator.job(id)
    assert [one.event for one in found.life][-4:] == ["started", "failed", "asked", "cancelled"]
    assert found.life[-1].text.endswith("cancelled before it ran")
    assert [(one.attempt, one.outcome) for one in found.attempts] == [(1, "retried")]
    await operator.act("retry", id)
    (first,) = (await operator.job(id)).attempts
    assert (first.outcome, first.error) == ("retried", "ValueError: not yet")
    await app.drain()
    assert [one.attempt for one in (await operator.job(id)).attempts] == [1, 2]


async def test_a_life_tells_what_was_done_to_many_that_the_job_was_among(
    operator: Operator, app: OnCue, clock: TestClock
) -> None:
    async def do(action: actions.Action) -> None:
        clock.advance(1)
        one = Filter(task="fail")
        counted = await operator.count(action, one)
        await operator.act_on_many(action, one, counted.token, counted.count, at=None, delay=None)

    ids = [(await app.schedule(app.tasks["fail"].call(), delay=60)).id for _ in range(3)]
    await do("run-now")
    await app.drain()
    await do("retry")
    other = (await app.schedule(app.tasks["note"].call())).id
    await do("cancel")
    said = [one.text for one in (await operator.job(ids[0])).life if one.event == "asked"]
    assert said == [
        "it was asked to run now by cli:ana, with 2 others",
        "it was put back by cli:ana, with 2 others",
        "it was asked to be cancelled by cli:ana, with 2 others",
    ]
    assert "asked" not in {one.event for one in (await operator.job(other)).life}


async def test_what_never_ran_has_no_start(operator: Operator, app: OnCue, clock: TestClock) -> None:
    note = app.tasks["note"]
    cancelled = (await app.schedule(note.call())).id
    skipped = (await app.schedule(note.call(), max_late=1, when_late="skip")).id
    ran = (await app.schedule(note.call(), delay=60)).id
    clock.advance(60)
    await operator.act("cancel", cancelled)
    await app.drain()
    page = await operator.page(Filter(task="note"))
    started = {one.id: one.started_at is not None for one in page.items}
    assert started == {cancelled: False, skipped: False, ran: True}
    for id, was_started in started.items():
        assert ((await operator.job(id)).job.started_at is not None) is was_started


async def test_who_asked_for_a_job_by_http_stands_in_its_life_also_once_it_was_put_back(
    operator: Operator, app: OnCue
) -> None:
    made, _ = await operator.schedule(Wish(task="fail", args={"text": "x"}))
    await app.drain()
    await operator.act("retry", made.id)
    life = await operator.job(made.id)
    assert (life.job.origin, life.life[0].text.partition(",")[0]) == ("api:cli:ana", "by api:cli:ana")


async def test_what_a_schedule_or_source_made_says_so_also_once_it_was_put_back(
    backend: Backend, clock: TestClock
) -> None:
    app, seen = OnCue(backend.url, clock=clock), list[str | None]()

    @app.task(name="look", retry=Retry.never())
    async def look(ctx: JobContext) -> None:
        seen.append(ctx.origin)
        raise ValueError("broken")

    made = [("cron:night ly", "5"), ("source:trials", '["k 1",5]'), ("bullmq:bull:mail", '["q-1",5]')]
    said = ["by the schedule night ly", "by the source trials, row k 1", "by bullmq:bull:mail"]
    async with app:
        operator, now = Operator(app, "cli:ana"), app.clock.now()
        rows = [NewJob(0, "look", "{}", "default", 0, now, 1, now, origin=one, origin_ref=ref) for one, ref in made]
        ids = [row.id for row in await app.store.insert_many(rows)]
        for _ in range(3):
            await app.drain()
            for id in ids:
                await operator.act("retry", id)
            lives = [await operator.job(id) for id in ids]
            assert [(life.job.origin, life.job.origin_ref) for life in lives] == made
            assert [life.life[0].text.rpartition(", due ")[0] for life in lives] == said
        assert seen == [one for one, _ in made] * 3
        # Whatever made them may do so again; neither is in the other's way when that is put back too.
        again = [row.id for row in await app.store.insert_many(rows)]
        assert not set(again) & set(ids)
        await app.drain()
        for id in [*ids, *again]:
            await operator.act("retry", id)


async def test_each_time_a_job_is_put_back_it_has_as_many_attempts_as_at_first(
    operator: Operator, app: OnCue, clock: TestClock
) -> None:
    once, thrice = [(await app.schedule(app.tasks[name].call())).id for name in ("fail", "again")]
    for turn in range(1, 4):
        for _ in range(5):
            await app.drain()
            clock.advance(36_000)
        found = [await app.jobs.get(id) for id in (once, thrice)]
        assert [(job.state, job.attempt, job.max_attempts) for job in found if job is not None] == [
            ("discarded", turn, turn), ("discarded", 3 * turn, 3 * turn),
        ]  # fmt: skip
        for id in (once, thrice):
            await operator.act("retry", id)
            await operator.act("cancel", id)
            await operator.act("retry", id)


async def test_what_can_not_be_audited_is_not_done(tmp_path: Path, clock: TestClock) -> None:
    app = declare(OnCue(f"sqlite:///{tmp_path}/jobs.db", clock=clock))

    @app.cron("30 2 * * *", name="night")
    async def night() -> None: ...

    async with app:
        operator = Operator(app, "cli:ana")
        await app.service(worker=False).planner.sync()
        with closing(sqlite3.connect(tmp_path / "jobs.db")) as other:
            other.execute("CREATE TRIGGER full BEFORE INSERT ON oncue_audit BEGIN SELECT RAISE(ABORT, 'no'); END")
        for act in (operator.run_schedule("night"), operator.pause("schedule", "night"), operator.pause("queue", "q")):
            with pytest.raises((StoreError, sqlite3.Error)):
                await act
        assert [row.paused for row in await app.store.schedules()] == [False]
        assert await app.jobs.list() == []
        assert await operator.lanes("queues") == [lane for lane in await operator.lanes("queues") if not lane.paused]


async def test_a_schedule_is_steered_and_its_line_tells_what_came_of_it(app: OnCue, operator: Operator) -> None:
    @app.cron("30 2 * * *", name="night")
    async def night() -> None: ...

    await app.service(worker=False).planner.sync()
    said = [await operator.pause("schedule", "night"), await operator.run_schedule("night")]
    lines = (await operator.audit()).items[::-1]
    assert [(line.action, line.target, line.detail) for line in lines] == [
        ("pause", "schedule:night", {"answer": said[0].text}),
        ("run-now", "schedule:night", {"answer": said[1].text}),
    ]
    (job,) = await app.jobs.list()
    assert said[1].text == f"Job {job.id} is due now."
