"""What people see: jobs and their history, filters, counts, what is overdue, progress."""

from __future__ import annotations

import json
from copy import copy
from typing import Any

import pytest

from oncue.job import Claimed, Completed, Failed, Outcome, Snoozed
from tests.store.kit import T0, Bench, S, job


async def listed(bench: Bench, limit: int = 50, **filters: Any) -> list[int]:
    return [one.id for one in await bench.store.list_jobs(limit=limit, **filters)]


async def test_history_has_every_attempt_with_its_times_and_errors(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job(-1))
    outcomes: list[Outcome] = [
        Failed("E1", "trace 1", 2 * S),
        Snoozed(3 * S, "not yet"),
        Failed("E2", "trace 2", 4 * S),
    ]
    for outcome in outcomes:
        (got,) = await bench.claim(worker)
        ack = bench.ack(got, outcome)
        ack.started_at = bench.now + 10
        bench.clock.move(1)
        ack.finished_at = bench.now
        await bench.ask(worker, [ack], count=0)
        bench.clock.move(9)
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Completed('{"ok":true}'))
    seen = await bench.store.attempts(id)
    assert [(one.attempt, one.outcome, one.error, one.traceback, one.worker) for one in seen] == [
        (1, "retried", "E1", "trace 1", worker),
        (2, "snoozed", None, None, worker),
        (3, "retried", "E2", "trace 2", worker),
    ]
    assert [one.reason for one in seen] == ["attempt 1 of 5 failed", "not yet", "attempt 2 of 5 failed"]
    assert [(one.started_at - T0, one.finished_at - T0) for one in seen] == [
        (10, S),
        (10 * S + 10, 11 * S),
        (20 * S + 10, 21 * S),
    ]
    assert [one.scheduled_at - T0 for one in seen] == [-S, 2 * S, 13 * S]
    view = await bench.get(id)
    assert (view.attempt, view.snoozes, view.result, view.started_at) == (4, 1, {"ok": True}, bench.now)


async def test_a_view_shows_all_of_a_job_in_each_state(bench: Bench) -> None:
    worker = await bench.worker()
    options: dict[str, Any] = {"key": "k", "group": "g", "metadata": '{"m":[1]}', "max_late": 9, "when_late": "fail"}
    (id,) = await bench.add(job(1, "send", args='{"a":null}', queue="q", priority=-7, max_attempts=3, **options))
    assert await bench.store.job(id + 1) is None
    running: Claimed | None = None
    for state in ("scheduled", "running", "completed"):
        view = await bench.get(id)
        assert view.state == state
        assert (view.task, view.args, view.queue, view.priority, view.max_attempts) == ("send", {"a": None}, "q", -7, 3)
        assert (view.key, view.group, view.metadata, view.max_late, view.when_late) == ("k", "g", {"m": [1]}, 9, "fail")
        assert (view.scheduled_at, view.created_at, view.cancel, view.folded) == (T0 + S, T0, 0, 0)
        bench.clock.move(1)
        for got in await bench.claim(worker):
            running = got
        if state == "running" and running is not None:
            await bench.done(worker, running)


async def test_filters_are_combined(bench: Bench) -> None:
    worker = await bench.worker()
    a = await bench.add(*[job(task="a", queue=f"q{n % 2}", group=f"g{n}", key=f"k{n}") for n in range(4)])
    b = await bench.add(*[job(3600, task="b") for _ in range(4)])
    jobs = await bench.claim(worker)
    await bench.done(worker, jobs[0])
    await bench.done(worker, jobs[1], Failed("E"))
    assert await listed(bench) == list(reversed(a + b))
    assert await listed(bench, task="a") == list(reversed(a))
    assert await listed(bench, task="a", queue="q0") == [a[2], a[0]]
    assert await listed(bench, group="g1") == [a[1]]
    assert await listed(bench, key="k3") == [a[3]]
    assert await listed(bench, state=["completed", "discarded"]) == [jobs[1].id, jobs[0].id]
    assert await listed(bench, state=["running"]) == sorted((one.id for one in jobs[2:]), reverse=True)
    assert await listed(bench, state=["scheduled"]) == list(reversed(b))
    assert await listed(bench, state=["scheduled"], task="a") == []
    assert await listed(bench, limit=3) == [b[3], b[2], b[1]]
    assert await listed(bench, limit=3, before=b[1]) == [b[0], a[3], a[2]]
    assert await listed(bench, task="'; DROP TABLE oncue_job; --") == []
    assert await listed(bench, key="k_") == []


async def test_counts_add_up(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.add(job(5), job(7), job(), job(-1, group="g"), job(group="g"), job(-1), job(-1), job(-1))
    jobs = await bench.claim(worker, count=5)
    await bench.claim(worker, count=0)
    await bench.done(worker, jobs[0])
    await bench.done(worker, jobs[1], Failed("E"))
    await bench.store.cancel(bench.now, None, id=(await bench.add(job(9)))[0], key=None)
    counts = await bench.store.counts(bench.now)
    known = await bench.store.list_jobs(limit=99)
    states = [one.state for one in known]
    assert counts.completed == states.count("completed") == 1
    assert counts.discarded == states.count("discarded") == 1
    assert counts.cancelled == states.count("cancelled") == 1
    assert counts.running == states.count("running") == 3
    parked = sum(one.state == "scheduled" and one.eligible_at is None for one in known)
    assert counts.scheduled + counts.due + parked == states.count("scheduled")
    assert counts.scheduled == 2
    later = await bench.store.counts(T0 + 6 * S)
    assert (later.scheduled, later.due) == (1, counts.due + 1)


async def test_overdue_shows_the_longest_overdue_first(bench: Bench) -> None:
    worker = await bench.worker()
    ids = await bench.add(job(-3, group="g"), job(-9, group="g"), job(-5, queue="nobody"), job(3))
    (got,) = await bench.claim(worker, queues=frozenset({"default"}))
    assert got.id == ids[1]
    found = await bench.store.overdue(T0 - S, 10)
    assert [one.id for one in found] == [ids[2], ids[0]]
    assert [one.id for one in await bench.store.overdue(T0 - S, 1)] == [ids[2]]


async def test_the_backlog_counts_what_could_run_but_for_a_blocker(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.add(job(-2, group="g"), job(-1, group="g"), job(5), job(-1, queue="other"), job(-1, queue="paused"))
    await bench.store.set_queue("paused", True)
    await bench.claim(worker, queues=frozenset({"default"}))
    left = await bench.store.backlog(bench.now, frozenset({"default"}))
    assert (left.remaining, left.next_due) == (1, T0 + 5 * S)
    assert (await bench.store.backlog(bench.now, None)).remaining == 2


async def test_what_is_coming_is_told_soonest_first_over_all_lanes_and_no_more_than_asked_for(bench: Bench) -> None:
    worker = await bench.worker()
    lanes = [("default", 0), ("default", -5), ("mail", 0), ("mail", 7)]
    jobs = [job(n, queue=queue, priority=priority) for n in (30, 10, 20) for queue, priority in lanes]
    ids = await bench.add(*jobs)
    rows = sorted(zip((one.scheduled_at for one in jobs), ids, strict=True))
    due = [(id, at) for at, id in rows]
    now = bench.now
    assert await bench.store.coming(now, now + 60 * S, 100) == due
    assert await bench.store.coming(now, now + 60 * S, 5) == due[:5]
    assert await bench.store.coming(now + 10 * S, now + 20 * S, 100) == due[4:8], "after the first time, by the second"
    mail = [one for one, job in zip(ids, jobs, strict=True) if job.queue == "mail"]
    assert {id for id, _ in await bench.store.coming(now, now + 60 * S, 100, frozenset({"mail"}))} == set(mail)
    await bench.store.set_queue("mail", paused=True)
    assert [id for id, _ in await bench.store.coming(now, now + 60 * S, 100)] == [id for id, _ in due if id not in mail]
    bench.clock.move(10)
    await bench.claim(worker)
    assert len(await bench.store.coming(0, now + 60 * S, 100)) == 4, "neither paused nor running"
    assert await bench.store.reschedule(now + 45 * S, id=ids[0], key=None)
    assert (await bench.store.coming(now, now + 60 * S, 100))[-1] == (ids[0], now + 45 * S)


async def test_progress_is_seen_while_the_job_runs_and_after(bench: Bench) -> None:
    worker = await bench.worker()
    (id,) = await bench.add(job())
    (got,) = await bench.claim(worker)
    assert await bench.store.progress(worker, got, {"fraction": 0.5, "note": "half"})
    assert (await bench.get(id)).progress == {"fraction": 0.5, "note": "half"}
    assert not await bench.store.progress(worker + 1, got, {"fraction": 1})
    await bench.done(worker, got)
    assert (await bench.get(id)).progress == {"fraction": 0.5, "note": "half"}
    assert not await bench.store.progress(worker, got, {"fraction": 1})


@pytest.mark.parametrize("text", ["", "ß→🙂", "a'b\"c\\d", "x" * 200_000, "\u0001\u2028", "{}[]:,"])
async def test_text_comes_back_as_it_went_in(bench: Bench, text: str) -> None:
    import msgspec

    worker = await bench.worker()
    args = msgspec.json.encode({"text": text}).decode()
    (id,) = await bench.add(job(args=args, key=f"k{text[:20]}", group=f"g{text[:20]}", metadata=args))
    (got,) = await bench.claim(worker)
    assert (got.args, got.metadata, got.key, got.group) == (args, args, f"k{text[:20]}", f"g{text[:20]}")
    await bench.done(worker, got, Failed(f"E {text[:500]}", text[:500], 0))
    (got,) = await bench.claim(worker)
    await bench.done(worker, got, Completed(msgspec.json.encode(text).decode()))
    view = await bench.get(id)
    assert (view.args, view.result) == ({"text": text}, text)
    assert (await bench.store.attempts(id))[0].error == f"E {text[:500]}"


async def test_jobs_that_are_stored_together_keep_what_is_their_own(bench: Bench) -> None:
    """Columns that are alike may travel as one value, but never lend it to a neighbour."""
    unlike = [
        job(1, "a", group="g", metadata='{"n":1}', max_late=5, when_late="skip", args='{"i":1}'),
        job(2, "b", queue="mail", priority=7, max_attempts=1, args='{"i":2}'),
        job(3, "a", group="h", args='{"i":3}'),
        job(3, "a", args='{"i":4}'),
    ]
    for chosen in (unlike, unlike[::-1], unlike[1:2] * 2):
        jobs = [copy(one) for one in chosen]
        for id, one in zip(await bench.add(*jobs), jobs, strict=True):
            seen = await bench.store.job(id)
            assert seen is not None
            kept = (seen.task, seen.queue, seen.priority, seen.scheduled_at, seen.max_attempts, seen.group)
            assert kept == (one.task, one.queue, one.priority, one.scheduled_at, one.max_attempts, one.group)
            assert (seen.args, seen.max_late, seen.when_late) == (json.loads(one.args), one.max_late, one.when_late)
            assert seen.metadata == (one.metadata and json.loads(one.metadata))
