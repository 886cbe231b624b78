"""Keys: one waiting and one started job each, and what ``on_conflict`` and ``while_started`` make of another."""

from __future__ import annotations

import pytest

from oncue.job import Completed, Failed, Inserted, NewJob, Snoozed
from tests.store.kit import T0, Bench, S, job


def told(found: Inserted) -> tuple[int, str, float]:
    return found.id, found.status, (found.scheduled_at - T0) / S


async def test_keep_leaves_the_waiting_job_and_counts_the_other(bench: Bench) -> None:
    first = await bench.put(job(5, key="k", args='{"n":1}'))
    again = await bench.put(job(1, key="k", args='{"n":2}'))
    assert told(again) == (first.id, "kept", 5)
    found = await bench.get(first.id)
    assert (found.args, found.folded, found.scheduled_at) == ({"n": 1}, 1, T0 + 5 * S)
    assert (await bench.store.counts(bench.now)).scheduled == 1


async def test_replace_takes_everything_of_the_new_one_but_its_identity(bench: Bench) -> None:
    first = await bench.put(job(5, key="k", args='{"n":1}', priority=3, metadata='{"a":1}', created_at=T0 - S))
    new = job(2, "other", key="k", args='{"n":2}', priority=-3, queue="q", group="g", max_attempts=2, max_late=7)
    new.when_late, new.metadata, new.on_conflict = "skip", '{"b":2}', "replace"
    assert told(await bench.put(new)) == (first.id, "replaced", 2)
    found = await bench.get(first.id)
    assert (found.task, found.args, found.queue, found.priority) == ("other", {"n": 2}, "q", -3)
    assert (found.group, found.max_attempts, found.max_late, found.when_late) == ("g", 2, 7, "skip")
    assert (found.metadata, found.folded, found.created_at) == ({"b": 2}, 1, T0 - S)
    assert found.eligible_at == found.scheduled_at == T0 + 2 * S


async def test_reschedule_takes_only_the_time(bench: Bench) -> None:
    first = await bench.put(job(5, key="k", args='{"n":1}'))
    again = await bench.put(job(9, key="k", args='{"n":2}', on_conflict="reschedule"))
    assert told(again) == (first.id, "rescheduled", 9)
    found = await bench.get(first.id)
    assert (found.args, found.scheduled_at, found.eligible_at, found.folded) == ({"n": 1}, T0 + 9 * S, T0 + 9 * S, 1)


async def test_debounce_moves_back_but_never_beyond_the_longest_wait(bench: Bench) -> None:
    def bounce(at: float) -> NewJob:
        made = job(at + 5, key="k", args=f'{{"at":{at:g}}}', on_conflict="debounce", max_wait=12 * S)
        made.created_at = T0 + round(at * S)
        return made

    first = await bench.put(bounce(0))
    assert told(first) == (first.id, "created", 5)
    assert told(await bench.put(bounce(4))) == (first.id, "debounced", 9)
    assert told(await bench.put(bounce(8))) == (first.id, "debounced", 12)
    # Past the longest wait (no worker came): due at once, never in the past.
    assert told(await bench.put(bounce(20))) == (first.id, "debounced", 20)
    found = await bench.get(first.id)
    assert (found.args, found.folded) == ({"at": 20}, 3)


async def test_debounce_without_a_longest_wait_moves_for_ever(bench: Bench) -> None:
    first = await bench.put(job(0, key="k", on_conflict="debounce"))
    for at in range(1, 50):
        assert told(await bench.put(job(at, key="k", on_conflict="debounce"))) == (first.id, "debounced", at)


@pytest.mark.parametrize(
    ("conflict", "status", "due", "args"),
    [
        ("keep", "kept", 5, {"n": 1}),
        ("replace", "replaced", 2, {"n": 2}),
        ("reschedule", "rescheduled", 2, {"n": 1}),
        ("debounce", "debounced", 2, {"n": 2}),
    ],
)
async def test_duplicates_inside_one_batch_count_as_if_they_came_one_by_one(
    bench: Bench, conflict: str, status: str, due: float, args: dict[str, int]
) -> None:
    batch = [
        job(5, key="k", args='{"n":1}'),
        job(1, key="other"),
        job(2, key="k", args='{"n":2}', on_conflict=conflict),
        job(3),
    ]
    first, other, second, plain = await bench.store.insert_many(batch)
    assert told(first) == (first.id, "created", 5)
    assert (other.status, plain.status) == ("created", "created")
    assert told(second) == (first.id, status, due)
    found = await bench.get(first.id)
    assert (found.args, found.scheduled_at, found.folded) == (args, T0 + round(due * S), 1)
    assert len({first.id, other.id, plain.id}) == 3
    assert (await bench.store.counts(bench.now)).scheduled == 3


async def test_duplicates_inside_one_batch_against_a_stored_one(bench: Bench) -> None:
    stored = await bench.put(job(5, key="k", group="g1"))
    batch = [job(n, key="k", group=f"g{n}", on_conflict="replace") for n in (6, 7, 8)]
    found = await bench.store.insert_many(batch)
    assert [one.id for one in found] == [stored.id] * 3
    view = await bench.get(stored.id)
    assert (view.group, view.folded, view.scheduled_at) == ("g8", 3, T0 + 8 * S)


async def test_a_replaced_job_frees_the_lane_that_it_leaves(bench: Bench) -> None:
    worker = await bench.worker()
    head = await bench.put(job(-2, key="k", group="a", queue="unserved"))
    (behind,) = await bench.add(job(-1, group="a"))
    queues = frozenset({"default"})
    assert await bench.ids(worker, queues=queues) == []
    assert (await bench.get(behind)).blocked_by == "group:a"
    moved = await bench.put(job(-2, key="k", group="b", queue="unserved", on_conflict="replace"))
    assert moved.id == head.id
    assert await bench.ids(worker, queues=queues) == [behind]


async def test_a_key_names_a_started_and_a_waiting_job_side_by_side(bench: Bench) -> None:
    worker = await bench.worker()
    first = await bench.put(job(key="k"))
    (running,) = await bench.claim(worker)
    second = await bench.put(job(key="k"))
    assert second.status == "created"
    assert second.id != first.id
    assert (await bench.put(job(key="k"))).id == second.id
    assert await bench.ids(worker) == []
    view = await bench.get(second.id)
    assert (view.blocked_by, view.eligible_at) == ("key:k", None)
    await bench.done(worker, running)
    assert await bench.ids(worker) == [second.id]


@pytest.mark.parametrize("outcome", [Failed("x", delay=30 * S), Snoozed(30 * S, "later")])
async def test_between_attempts_a_job_still_has_its_key(bench: Bench, outcome: Failed | Snoozed) -> None:
    worker = await bench.worker()
    first = await bench.put(job(key="k"))
    (running,) = await bench.claim(worker)
    await bench.done(worker, running, outcome)
    second = await bench.put(job(key="k"))
    assert second.id != first.id
    assert await bench.ids(worker) == []
    bench.clock.move(30)
    (again,) = await bench.claim(worker)
    assert (again.id, again.attempt) == (first.id, 2)
    await bench.done(worker, again, Completed())
    assert await bench.ids(worker) == [second.id]


async def test_while_started_keep_counts_the_started_one_too(bench: Bench) -> None:
    worker = await bench.worker()
    first = await bench.put(job(key="k"))
    (running,) = await bench.claim(worker)
    assert told(await bench.put(job(9, key="k", while_started="keep"))) == (first.id, "kept", 0)
    await bench.done(worker, running, Failed("x", delay=30 * S))
    assert (await bench.put(job(9, key="k", while_started="keep"))).status == "kept"
    assert (await bench.get(first.id)).folded == 2
    bench.clock.move(30)
    (again,) = await bench.claim(worker)
    await bench.done(worker, again)
    assert (await bench.put(job(9, key="k", while_started="keep"))).status == "created"


@pytest.mark.parametrize("outcome", [Completed(), Failed("x", delay=None, reason="no more")])
async def test_a_final_job_frees_its_key(bench: Bench, outcome: Completed | Failed) -> None:
    worker = await bench.worker()
    for _ in range(3):
        made = await bench.put(job(key="k"))
        assert made.status == "created"
        (running,) = await bench.claim(worker)
        assert running.id == made.id
        await bench.done(worker, running, outcome)


async def test_many_keys_in_one_batch(bench: Bench) -> None:
    found = await bench.store.insert_many([job(n % 7, key=f"k{n % 500}") for n in range(1500)])
    assert [one.status for one in found] == ["created"] * 500 + ["kept"] * 1000
    assert [one.id for one in found[:500]] == [one.id for one in found[500:1000]] == [one.id for one in found[1000:]]
