"""What BullMQ carries, shown with the workers' own timers off: the rows decide, whatever is delivered."""

from __future__ import annotations

import asyncio
import json

import pytest

from oncue import Retry, relay
from oncue.redis_link import bullmq_options, client, driver
from oncue.redis_url import parse_redis
from oncue.store import Claim, Claims
from tests.redis.conftest import Make, Stage, on_each_kind
from tests.store.kit import Bench, S
from tests.valkey import Server

OFF = "timers=off"


def keys(server: Server) -> set[str]:
    """What Redis holds of the queue besides what BullMQ keeps of every queue."""
    with server.client() as link:
        found = {key.decode().removeprefix("bull:oncue:") for key in link.scan_iter("*")}
    return found - {"id", "meta", "events", "oncue-turn", "stalled-check"}


def announced(server: Server) -> set[str]:
    with server.client() as link:
        return {name.decode() for name in link.zrange("bull:oncue:delayed", 0, -1)}


async def add(server: Server, name: str, opts: dict[str, object]) -> None:
    """Add a job to the queue of the deliveries as anybody could."""
    url = parse_redis(server.url)
    queue = driver("bullmq").Queue("oncue", bullmq_options(url, client(url)))
    await queue.add(name, {}, opts)
    await queue.close()


@on_each_kind
async def test_jobs_run_when_bullmq_delivers_them_and_nothing_stays_in_redis(make: Make, server: Server) -> None:
    stage = make(OFF)
    async with stage.app.worker():
        await stage.until_healthy()
        await stage.schedule(range(30), 0.3, 0.01)
        await stage.schedule(range(30, 40))
        await stage.once_each(40)
        await stage.until(lambda: not keys(server))
        # What is due may be announced again before its delivery, and one delivery serves all that are due.
        assert 0 < stage.wake.stats.delivered <= stage.wake.stats.announced


async def test_without_a_delivery_nothing_starts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that timers=off measures what it says."""

    async def lose(jobs: object, now: int) -> None: ...

    stage = make(OFF)
    async with stage.app.worker() as service:
        await stage.until_healthy()
        monkeypatch.setattr(stage.wake.carrier, "announce", lose)
        await stage.schedule(range(1))
        while not (await stage.app.jobs.counts()).due:  # noqa: ASYNC110 - a due time comes without an event
            await asyncio.sleep(0.005)
        assert service.worker is not None
        # A round of the worker, for which no delivery asked, leaves what is due alone.
        assert (await service.worker.run_once()).jobs == []
        assert not stage.ran
        assert await service.worker.look()
        await stage.once_each(1)


async def test_a_delivery_that_comes_during_a_claim_is_served_though_others_wrote_meanwhile(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make(OFF)
    async with stage.app.worker() as service:
        await stage.until_healthy()
        worker, claim = service.worker, stage.app.store.claim
        assert worker is not None
        asked: list[asyncio.Future[bool]] = []

        async def meanwhile(request: Claim) -> Claims:
            found = await claim(request)
            if not asked:
                asked.append(worker.look())
                worker._heard(None)
            return found

        monkeypatch.setattr(stage.app.store, "claim", meanwhile)
        assert await worker.look()
        assert await asked[0]


async def test_a_job_that_moved_runs_at_its_new_time_once(make: Make, server: Server) -> None:
    stage = make(OFF)
    async with stage.app.worker():
        await stage.until_healthy()
        earlier = await stage.app.schedule(stage.note.call(1), delay=60)
        later = await stage.app.schedule(stage.note.call(2), delay=0.3)
        gone = await stage.app.schedule(stage.note.call(3), delay=0.3)
        await stage.until(lambda: len(announced(server)) == 3)
        await stage.app.reschedule(id=earlier.id, delay=0.2)
        await stage.app.reschedule(id=later.id, delay=0.6)
        assert await stage.app.cancel(id=gone.id) == "prevented"
        await stage.until(lambda: 1 in stage.ran)
        await stage.until(lambda: 2 in stage.ran)
        assert stage.order == [1, 2]
        await stage.once_each(2)


async def test_groups_priorities_retries_and_pauses_are_as_ever(make: Make) -> None:
    stage = make(OFF)
    failed: list[int] = []

    @stage.app.task(name="flaky", retry=Retry(3, delay=0.05))
    async def flaky() -> None:
        failed.append(1)
        if len(failed) < 3:
            raise ValueError("not yet")

    async with stage.app:
        await stage.app.store.set_queue("mail", paused=True)
        await stage.schedule(range(10, 13), 0.2, queue="mail")
    async with stage.app.worker():
        await stage.until_healthy()
        await stage.schedule(range(6), 0.2, group="one")
        await stage.app.schedule(flaky.call(), delay=0.2)
        await stage.until(lambda: sum(stage.ran.values()) == 6 and len(failed) == 3)
        assert stage.order == list(range(6))
        await stage.app.store.set_queue("mail", paused=False)
        stage.app.wake.hint(stage.app.clock.now())
        await stage.until_ran(9)
    assert set(stage.ran.values()) == {1}


async def test_stale_doubled_and_unknown_deliveries_end_as_nothing(make: Make, server: Server) -> None:
    stage = make()
    async with stage.app.worker():
        await stage.until_healthy()
        for name in ("oc-999-5", "oc-1-1", "oc-1-0"):
            await add(server, "due", {"jobId": name, "removeOnComplete": True})
        await stage.schedule(range(3), 0.1)
        await stage.once_each(3)
        await stage.until(lambda: stage.wake.stats.delivered == 3 and not keys(server))


async def test_a_job_of_somebody_else_in_the_queue_is_failed_and_kept(
    make: Make, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    stage = make()
    async with stage.app.worker():
        await stage.until_healthy()
        for name in ("theirs-1", "theirs-2"):
            await add(server, "resize", {"jobId": name})
        with server.client() as link:
            await stage.until(lambda: link.zcard("bull:oncue:failed") == 2)
            reason = str(link.hget("bull:oncue:theirs-1", "failedReason"))
    assert "carries deliveries of OnCue" in reason
    assert [record.message.count("theirs-") for record in caplog.records if "got a job" in record.message] == [1]


async def test_a_transaction_that_was_rolled_back_leaves_nothing(make: Make, server: Server) -> None:
    import sqlite3

    stage = make()
    async with stage.app.worker():
        await stage.until_healthy()
        with sqlite3.connect(stage.app.url.removeprefix("sqlite:///"), isolation_level=None) as mine:
            mine.execute("BEGIN IMMEDIATE")
            await stage.app.schedule(stage.note.call(1), delay=20, connection=mine)
            mine.execute("ROLLBACK")
        mine.close()
        kept = await stage.app.schedule(stage.note.call(2), delay=30)
        await stage.until(lambda: announced(server))
        found = {name.split("-")[1]: name for name in announced(server)}
        assert list(found) == [str(kept.id)]
        with server.client() as link:
            data = json.loads(link.hget(f"bull:oncue:{found[str(kept.id)]}", "data") or "null")
        assert data["id"] == kept.id


async def test_no_more_than_the_cap_is_announced_ahead(
    make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "MOST_AHEAD", 5)
    stage = make(OFF)
    async with stage.app:
        await stage.schedule(range(12), 20, 0.01)
        await stage.schedule(range(12, 30), 0.4, 0.02)
    async with stage.app.worker():
        await stage.until(lambda: announced(server))
        assert len(announced(server)) <= 5
        await stage.until_ran(18)
        await stage.until(lambda: len(announced(server)) == 5)
    assert set(stage.ran) == set(range(12, 30))


async def test_one_process_announces_at_a_time_and_another_takes_over(make: Make, server: Server) -> None:
    first, second = make(), make()
    async with second.app.worker():
        async with first.app.worker():
            await first.until_healthy()
            await second.until_healthy()
            await first.schedule(range(5), 30)
            await first.until(lambda: first.wake.stats.announced + second.wake.stats.announced >= 5)
            assert sorted((first.wake.stats.announced, second.wake.stats.announced)) == [0, 5]
        mine = second.wake.stats.announced
        await second.schedule(range(5, 9), 30)
        await second.until(lambda: second.wake.stats.announced == mine + 4)
        assert len(announced(server)) == 9


async def test_a_process_that_hears_by_redis_alone_is_told_of_others_jobs(
    make: Make, server: Server, tmp_path: object
) -> None:
    """As behind a pooler, where the database's own hints don't arrive."""
    from oncue.wake import open_wake

    stage: Stage = make("mode=pubsub")
    deaf = open_wake(f"{server.url}/0?queue=oncue&mode=pubsub", "sqlite:////nowhere/other.db")
    heard: asyncio.Queue[int | None] = asyncio.Queue()
    await deaf.start()
    deaf.listen(heard.put_nowait)
    while deaf.healthy is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    async with stage.app:
        made = await stage.app.schedule(stage.note.call(1), delay=40)
        while await heard.get() != made._due:
            pass
    await deaf.close()


async def test_what_a_dead_worker_held_runs_again_though_no_delivery_tells_of_it(make: Make, server: Server) -> None:
    stage = make(OFF)
    async with stage.app.worker():
        await stage.until_healthy()
        server.kill()
        dead = Bench(stage.app.store, stage.app.clock)  # type: ignore[arg-type]
        lost = await dead.worker("dead", lease=S // 2)
        await stage.schedule(range(1))
        claim = Claim(lost, dead.now, dead.now, S // 2, count=9)
        assert len((await stage.app.store.claim(claim)).jobs) == 1
        await stage.until_ran(1)
    for life in dead.lives.values():
        life.release()
