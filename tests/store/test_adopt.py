"""Jobs of BullMQ queues: stored once by queue, id and timestamp, whoever offers them and however often."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from oncue.store import Adopted, Adoption, Store
from tests.store.kit import DAY, Bench, job

QUEUE = "bull:messages"


async def taken(store: Store, now: int, *names: tuple[str, int], **options: str) -> list[Adopted | None]:
    return await store.adopt(QUEUE, [Adoption(id, at, job(60, **options)) for id, at in names], now)


async def test_a_job_is_stored_with_the_memory_of_it(bench: Bench) -> None:
    one, two = await taken(bench.store, bench.now, ("question-1", 5), ("17", 6))
    assert one is not None
    assert two is not None
    assert (one.new, two.new) == (True, True)
    assert one.job != two.job
    stored = await bench.get(one.job)
    assert (stored.origin, stored.origin_ref) == ("bullmq:bull:messages", '["question-1",5]')
    # A second call changes nothing and tells which job it is.
    assert await taken(bench.store, bench.now, ("question-1", 5)) == [Adopted(one.job, False)]
    assert (await bench.store.counts(bench.now)).scheduled == 2


async def test_the_same_id_with_another_timestamp_or_queue_is_another_job(bench: Bench) -> None:
    names = [("question-1", 5), ("question-1", 6), ("question-1", 5)]
    first, second, again = await taken(bench.store, bench.now, *names)
    (other,) = await bench.store.adopt("bull:others", [Adoption("question-1", 5, job(60))], bench.now)
    assert first is not None
    assert second is not None
    assert other is not None
    assert len({first.job, second.job, other.job}) == 3
    assert again is not None
    assert again.job == first.job
    assert (await bench.store.counts(bench.now)).scheduled == 3


async def test_one_that_is_done_and_pruned_is_not_stored_again(bench: Bench) -> None:
    (one,) = await taken(bench.store, bench.now, ("17", 5))
    assert one is not None
    worker = await bench.worker()
    bench.clock.move(60)
    (claimed,) = await bench.claim(worker)
    await bench.done(worker, claimed, retention=0)
    bench.clock.move(1)
    await bench.store.prune(bench.now, 100)
    assert await bench.store.job(one.job) is None
    assert await taken(bench.store, bench.now, ("17", 5)) == [Adopted(one.job, False)]
    assert not await bench.claim(worker)


async def test_many_who_adopt_the_same_jobs_store_each_once(
    bench: Bench, opened: Callable[[], Awaitable[Store]]
) -> None:
    stores = [bench.store, await opened(), await opened()]
    names = [(f"job-{number}", number) for number in range(50)]
    parts = (taken(stores[n % 3], bench.now, *(names if n % 2 else reversed(names))) for n in range(12))
    answers = await asyncio.gather(*parts)
    assert (await bench.store.counts(bench.now)).scheduled == 50
    found = [one for part in answers for one in part if one is not None]
    assert len(found) == 600
    assert len([one for one in found if one.new]) == 50
    assert len({one.job for one in found}) == 50


async def test_the_key_of_the_job_is_settled_as_ever(bench: Bench) -> None:
    (first,) = await taken(bench.store, bench.now, ("1", 5), key="question")
    (second,) = await taken(bench.store, bench.now, ("2", 6), key="question")
    assert first is not None
    assert second == Adopted(first.job, True)
    assert await taken(bench.store, bench.now, ("2", 6), key="question") == [Adopted(first.job, False)]


async def test_what_stays_with_node_after_all_is_cancelled_and_forgotten(bench: Bench) -> None:
    (one,) = await taken(bench.store, bench.now, ("17", 5))
    assert one is not None
    assert await bench.store.disown(QUEUE, "17", 5, bench.now, None)
    gone = await bench.get(one.job)
    assert gone.state == "cancelled"
    assert "a Node worker had begun job '17'" in (gone.reason or "")
    assert not await bench.store.disown(QUEUE, "17", 5, bench.now, None)
    (again,) = await taken(bench.store, bench.now, ("17", 5))
    assert again is not None
    assert again.new
    assert again.job != one.job


async def test_what_has_begun_is_not_cancelled(bench: Bench) -> None:
    (one,) = await taken(bench.store, bench.now, ("17", 5))
    assert one is not None
    worker = await bench.worker()
    bench.clock.move(60)
    assert await bench.ids(worker) == [one.job]
    assert not await bench.store.disown(QUEUE, "17", 5, bench.now, None)
    assert await bench.state(one.job) == "running"
    assert await taken(bench.store, bench.now, ("17", 5)) == [Adopted(one.job, False)]


async def test_a_lane_goes_on_when_its_first_is_given_back_to_node(bench: Bench) -> None:
    await taken(bench.store, bench.now, ("1", 5), group="trial", key="question")
    (second,) = await bench.add(job(61, group="trial"))
    assert await bench.store.disown(QUEUE, "1", 5, bench.now, None)
    bench.clock.move(62)
    assert await bench.ids(await bench.worker()) == [second]


async def test_it_is_forgotten_a_week_after_it_was_due(bench: Bench) -> None:
    await taken(bench.store, bench.now, ("1", 5), ("2", 5), ("3", 5))
    assert await bench.store.forget_adopted(QUEUE, bench.now + 7 * DAY, 100) == 0
    bench.clock.move(7 * 86_400 + 60)
    assert await bench.store.forget_adopted("bull:others", bench.now, 100) == 0
    assert await bench.store.forget_adopted(QUEUE, bench.now, 2) == 2
    assert await bench.store.forget_adopted(QUEUE, bench.now, 2) == 1
