"""Redis is lost in every way there is, and no job with it: each runs once, on the rows' word."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from oncue.wake.redis import Timing
from tests.pgfaults import Proxy
from tests.redis.conftest import Make, on_each_kind
from tests.valkey import VALKEY, Server

# What breaks while redis-py connects, it leaves to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed Connection <redis:ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:unclosed <StreamWriter transport=<_SelectorSocketTransport clos:ResourceWarning"
    ),
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Have it collected here, and not in a test that allows none."""
    yield
    gc.collect()


async def test_while_redis_is_down_jobs_are_scheduled_and_start_by_the_workers_timers(
    make: Make, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.kill()
    stage = make()
    async with stage.app.worker():
        await stage.schedule(range(10), 0.05, 0.02)
        await stage.once_each(10)
        await stage.until(lambda: stage.wake.stats.reconnects > 2)
        said = stage.wake.healthy or ""
        assert "jobs start by the workers' own timers" in said
        assert str(server.port) in said
        server.start()
        await stage.until_healthy()
        await stage.schedule(range(10, 15), 2.3)
        await stage.until(lambda: stage.wake.stats.announced == 5)
        await stage.once_each(15)
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1, warned


async def test_redis_is_tried_again_at_once_when_somebody_asks_for_it(make: Make, server: Server) -> None:
    server.kill()
    stage = make()
    stage.wake._timing = Timing(prove_every=3600, prove_within=2.0, first_pause=3600, longest_pause=3600)
    async with stage.app.worker():
        await stage.until(lambda: "not proved" not in (stage.wake.healthy or "not proved"))
        server.start()
        stage.wake.reconnect()
        await stage.until_healthy()
        assert stage.wake.stats.reconnects == 1


@on_each_kind
async def test_a_restart_loses_the_announcements_and_they_are_made_again_at_once(make: Make, server: Server) -> None:
    stage = make("timers=off")
    async with stage.app.worker():
        await stage.until_healthy()
        await stage.schedule(range(40), 0.3, 0.03)
        await stage.until_ran(5)
        server.kill()
        await stage.until(lambda: stage.wake.healthy)
        server.start()
        await stage.once_each(40)
        assert stage.wake.stats.reconnects > 0


@on_each_kind
async def test_flushall_again_and_again_delays_jobs_by_a_sweep_at_most(make: Make, server: Server) -> None:
    stage = make("timers=off", sweep=0.3)
    async with stage.app.worker():
        await stage.until_healthy()
        await stage.schedule(range(60), 0.2, 0.03)
        for count in (3, 15, 40):
            await stage.until_ran(count)
            with server.client() as link:
                link.flushall()
        await stage.once_each(60)
        count = 60
        while not stage.wake.stats.lost:
            # All that was announced may have been delivered before each flush, where the machine is busy.
            before = stage.wake.stats.announced
            await stage.schedule(range(count, count + 5), 0.4)
            await stage.until(lambda before=before: stage.wake.stats.announced > before)  # type: ignore[misc]
            with server.client() as link:
                link.flushall()
            count += 5
            await stage.once_each(count)


@on_each_kind
async def test_a_full_memory_is_said_and_jobs_start_all_the_same(
    make: Make, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    stage = make()
    async with stage.app.worker():
        await stage.until_healthy()
        with server.client() as link:
            link.config_set("maxmemory", 1)
            await stage.schedule(range(3), 60)
            await stage.schedule(range(3, 6))
            await stage.once_each(3)
            await stage.until(lambda: "its memory is full: raise maxmemory" in (stage.wake.healthy or ""))
            link.config_set("maxmemory", 0)
        await stage.until(lambda: stage.wake.stats.announced == 3)
        await stage.until_healthy()
    told = [record.message for record in caplog.records if record.name == "oncue.relay"]
    assert len(told) == 1, told
    assert told[0].endswith("(redis-cli --bigkeys)). They start by their rows all the same.")


async def test_evicted_keys_make_no_difference(make: Make, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """What an eviction does, without the luck of which keys it takes: every other key goes, each time."""
    with server.client() as link:
        link.config_set("maxmemory-policy", "allkeys-lru")
        stage = make("timers=off", sweep=0.3)
        async with stage.app.worker():
            await stage.until_healthy()
            await stage.schedule(range(40), 0.2, 0.03)
            for count in (3, 10, 20):
                await stage.until_ran(count)
                for key in sorted(link.keys("bull:oncue:*"))[::2]:
                    link.delete(key)
            await stage.once_each(40)
    assert "maxmemory-policy allkeys-lru" in caplog.text


async def test_a_failover_to_an_empty_server_is_a_restart(make: Make, server: Server) -> None:
    with Server(VALKEY) as other, Proxy(server.url) as proxy:
        stage = make("timers=off", url=f"redis://127.0.0.1:{proxy.port}")
        async with stage.app.worker():
            await stage.until_healthy()
            await stage.schedule(range(40), 0.3, 0.03)
            await stage.until_ran(5)
            proxy._target = ("127.0.0.1", other.port)
            proxy.cut()
            await stage.once_each(40)
        with other.client() as link:
            assert link.exists("bull:oncue:id")


# Connections to a server that never answers are left to the garbage collector: to close them in order would take it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_server_that_hangs_is_noticed_and_holds_up_neither_jobs_nor_the_end(make: Make, server: Server) -> None:
    stage = make()
    async with stage.app.worker():
        await stage.until_healthy()
        server.signal(signal.SIGSTOP)
        await stage.schedule(range(10), 0.05, 0.02)
        await stage.once_each(10)
        await stage.until(lambda: stage.wake.healthy)
        server.signal(signal.SIGCONT)
        await stage.until_healthy()
        server.signal(signal.SIGSTOP)
    assert len(asyncio.all_tasks()) == 1
    gc.collect()


async def test_without_redis_nothing_spins(make: Make, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the drivers' retries nor ours: the loop goes round some times for each try to connect, not thousands."""
    server.kill()
    stage = make("timers=off")
    loop: Any = asyncio.get_running_loop()
    go_round, rounds = loop._run_once, 0

    def counted() -> None:
        nonlocal rounds
        rounds += 1
        go_round()

    async with stage.app.worker():
        await stage.until(lambda: stage.wake.stats.reconnects > 2)
        monkeypatch.setattr(loop, "_run_once", counted)
        await stage.until(lambda: stage.wake.stats.reconnects > 22)
        assert 20 < rounds < 20 * 200, rounds


async def test_a_process_that_only_schedules_needs_no_redis(make: Make, server: Server) -> None:
    server.kill()
    stage = make()
    async with stage.app:
        await stage.schedule(range(3), 0.05)
        await stage.until(lambda: stage.wake.unsent)
    async with stage.app.worker():
        await stage.once_each(3)
