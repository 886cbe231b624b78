"""What jobs wait behind, however many groups there are, what workers run, and how lanes are counted."""

from __future__ import annotations

import pytest

from oncue import OnCue
from oncue.operate import Operator
from oncue.operate.shape import iso
from oncue.store import Claim, WorkerRow
from oncue.testing import TestClock

S = 1_000_000


async def test_of_many_blockers_those_are_told_behind_which_most_wait(
    app: OnCue, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oncue.operate.flows._MOST_BLOCKERS", 2)
    note, first = app.tasks["note"], {}
    for group, count in (("a", 2), ("b", 4), ("c", 3)):
        first[group] = (await app.schedule(note.call(), group=group)).id
        for _ in range(count - 1):
            await app.schedule(note.call(), group=group)
    now = app.clock.now()
    worker, _ = await app.store.register(WorkerRow(0, "w", "elsewhere", 1, None, now, now, now + 60 * S))
    assert len((await app.store.claim(Claim(worker, now, now, 60 * S, 9))).jobs) == 3
    found = await operator.flows.blockers()
    assert [(one.name, one.waiting, one.job, one.state) for one in found] == [
        ("group:b", 3, first["b"], "running"),
        ("group:c", 2, first["c"], "running"),
    ]


async def test_a_worker_tells_what_it_runs_of_many_what_began_first(
    app: OnCue, operator: Operator, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oncue.operate.flows._MOST_RUNNING", 2)
    note, began = app.tasks["note"], []
    row = WorkerRow(0, "w", "elsewhere", 1, '{"default": 2}', clock.now(), clock.now(), clock.now() + 600 * S)
    (first, _), (second, _) = await app.store.register(row), await app.store.register(row)
    for worker in (first, first, first, second):
        clock.advance(1)
        id, now = (await app.schedule(note.call())).id, clock.now()
        assert len((await app.store.claim(Claim(worker, now, now, 600 * S, 9))).jobs) == 1
        began.append((id, "note", iso(now)))
    shown = {one.id: one for one in await operator.flows.workers()}
    told = {id: [(job.id, job.task, job.started_at) for job in one.jobs] for id, one in shown.items()}
    assert told == {first: began[:2], second: began[3:]}
    assert (shown[first].running, shown[first].queues, shown[first].weights) == (3, ["default"], {"default": 2.0})
    # One that is claimed a little ahead begins when it is due.
    id = (await app.schedule(note.call(), delay=0.01)).id
    now = clock.now()
    assert len((await app.store.claim(Claim(second, now, now + S, 600 * S, 9))).jobs) == 1
    *_, last = next(one for one in await operator.flows.workers() if one.id == second).jobs
    assert (last.id, last.started_at) == (id, iso(now + S // 100))


async def test_lanes_are_counted_as_the_whole_is(app: OnCue, operator: Operator, clock: TestClock) -> None:
    note = app.tasks["note"]
    for delay, group in ((0, "a"), (5, "a"), (0, None), (7, None)):
        await app.schedule(note.call(), delay=delay, group=group, queue=f"q{delay}")
    now = clock.now()
    worker, _ = await app.store.register(WorkerRow(0, "w", "elsewhere", 1, None, now, now, now + 60 * S))
    # One of the group runs, and the other is found to wait behind it once it is due.
    await app.store.claim(Claim(worker, now, now, 60 * S, 1))
    clock.advance(6)
    await app.store.claim(Claim(worker, clock.now(), clock.now(), 60 * S, 9))
    await app.schedule(note.call())
    clock.advance(0.5)
    counts, lanes = await operator.counts(), await operator.lanes("queues")
    assert (counts.scheduled, counts.blocked, counts.due, counts.running) == (1, 1, 1, 2)
    assert counts.next_due == iso(now + 6 * S), "what is due by now"
    for name in ("scheduled", "blocked", "due", "late", "running"):
        assert sum(getattr(lane, name) for lane in lanes) == getattr(counts, name), name
    (tasks,) = [lane for lane in await operator.lanes("tasks") if lane.name == "note"]
    assert (tasks.scheduled, tasks.blocked) == (counts.scheduled, 1)
