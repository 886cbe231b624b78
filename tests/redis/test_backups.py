"""Where workers have timers, BullMQ is the backup: what a timer served is taken back, the rest is delivered."""

from __future__ import annotations

import pytest

from oncue import relay
from oncue.clock import SECOND
from oncue.handle import JobHandle
from oncue.worker import Worker
from tests.redis.conftest import Make, Stage, on_each_kind
from tests.redis.test_carried import announced, keys
from tests.valkey import Server


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due within half a second is announced too."""
    monkeypatch.setattr(relay, "NEAREST", SECOND // 10)
    monkeypatch.setattr(relay, "_PAUSE", 0.01)


@pytest.fixture
def never_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what leaves BullMQ has been taken out of it."""
    monkeypatch.setattr(relay, "BACKUP", 3600 * SECOND)


async def healthy(stage: Stage) -> None:
    await stage.until_healthy()
    await stage.until(lambda: stage.wake.carrier is not None and stage.wake.carrier.ready)


@pytest.mark.usefixtures("never_delivered")
async def test_what_timers_served_is_taken_back_and_nothing_of_it_stays(make: Make, server: Server) -> None:
    stage = make()
    async with stage.app.worker():
        await healthy(stage)
        moved = await stage.app.schedule(stage.note.call(50), delay=60)
        await stage.schedule(range(20), 1.0, 0.005)
        await stage.schedule(range(20, 25))
        await stage.until(lambda: len(announced(server)) == 21)
        await stage.app.reschedule(id=moved.id, delay=0.5)
        await stage.once_each(26)
        # Of a job that moved, the announcements of its old and of its new time.
        await stage.until(lambda: stage.wake.stats.taken_back == 22)
        assert not announced(server)
    assert stage.wake.stats.delivered == 0


@pytest.mark.usefixtures("never_delivered")
async def test_a_worker_takes_back_what_another_announced(make: Make, server: Server) -> None:
    first, second = make(), make()
    async with first.app.worker():
        await healthy(first)
        await first.schedule(range(10), 2.5)
        await first.until(lambda: first.wake.stats.announced == 10)
    async with second.app.worker():
        await second.once_each(10)
        await second.until(lambda: second.wake.stats.taken_back == 10)
        await second.until(lambda: not keys(server))
    assert second.wake.stats.delivered == second.wake.stats.announced == 0


@pytest.mark.parametrize("options", ["", "timers=off"])
async def test_of_a_job_that_moves_often_or_is_cancelled_no_announcement_stays(
    make: Make, server: Server, options: str
) -> None:
    stage = make(options)
    async with stage.app.worker():
        await healthy(stage)

        async def typed(seconds: int) -> JobHandle[None]:
            before = stage.wake.stats.announced
            made = await stage.app.schedule(stage.note.call(1), delay=seconds, key="typing", on_conflict="replace")
            await stage.until(lambda: stage.wake.stats.announced > before)
            return made

        made = [await typed(seconds) for seconds in range(60, 90)][-1]
        await stage.until(lambda: announced(server) == {f"oc-{made.id}-{made._due}"})
        assert await stage.app.cancel(id=made.id) == "prevented"
        await stage.until(lambda: not announced(server))


@on_each_kind
async def test_what_no_timer_serves_is_delivered(make: Make, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Worker, when: int) -> None:
        self._armed = when

    stage = make()
    async with stage.app.worker():
        await healthy(stage)
        monkeypatch.setattr(Worker, "_arm", never)
        await stage.schedule(range(5), 0.5)
        await stage.until(lambda: stage.wake.stats.announced == 5)
        assert not stage.ran
        await stage.once_each(5)
        assert stage.wake.stats.delivered > 0
        await stage.until(lambda: stage.wake.stats.delivered + stage.wake.stats.taken_back == 5)
        await stage.until(lambda: not keys(server))
