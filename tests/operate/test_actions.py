"""What operators do: to one, to many, to queues and tasks; and that the audit knows it, and only what was done."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from oncue import OnCue
from oncue.errors import InvalidJob, StoreBusy, StoreError, UnknownJob, UnknownSchedule
from oncue.operate import Filter, Operator, actions
from oncue.operate.overview import Kept
from oncue.store import WorkerRow
from oncue.testing import TestClock
from tests.operate.conftest import claimed_elsewhere, declare

S = 1_000_000


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
    await claimed_elsewhere(app, 1)
    assert (await operator.act("cancel", id)).text == "It runs; its handler was asked to stop."
    assert (await operator.job(id)).job.cancel_requested
    assert await _lines(operator) == [("cancel", f"job:{id}", 1)]


async def test_many_are_cancelled_whatever_they_do_and_their_lanes_go_on(
    operator: Operator, app: OnCue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "_BATCH", 2)
    note = app.tasks["note"]
    runs = (await app.schedule(note.call("runs"), group="g", queue="mail")).id
    await claimed_elsewhere(app, 1)
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
    await claimed_elsewhere(app, 1)
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
