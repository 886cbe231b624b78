"""When LISTEN doesn't work: it is noticed, said once, bridged by looking often, and mended."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from tests import pg, pgfaults
from tests.store.kit import T0
from tests.wake.pgkit import HASTY, QUICK, Log, execute, hearing, is_so, listeners, proved, sender


async def test_a_connection_that_was_ended_is_made_again_and_everybody_looks(dsn: str, said: Log) -> None:
    """What was sent meanwhile is lost, so all look once when it is back."""
    slow = replace(QUICK, poll_every=3600.0)
    async with hearing(dsn, timing=slow) as (wake, ear):
        await proved(wake, ear)
        for pid in await listeners(dsn):
            await execute(dsn, "SELECT pg_terminate_backend($1)", pid)
        await ear.anything()
        assert ear.heard == [None]
        assert wake.healthy is None
        await sender(dsn)(str(T0))
        await ear.until(lambda heard: T0 in heard)
    assert wake.stats.reconnects >= 1
    assert "broke" in said.of("WARNING")[0]
    assert "works again" in said.of("INFO")[0]
    assert len(said.of("WARNING")) == len(said.of("INFO"))


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_server_that_restarts_is_heard_again(mode: pg.StopMode, said: Log) -> None:
    with pg.Server(pg.NEWEST) as server:
        dsn = server.create_database().dsn
        async with hearing(dsn) as (wake, ear):
            await proved(wake, ear)
            await asyncio.to_thread(server.stop, mode)
            await said.until("WARNING")
            ear.heard.clear()
            await ear.until(lambda heard: len(heard) >= 3)
            assert wake.healthy is not None
            assert "looking every 0.02 s" in wake.healthy
            await asyncio.to_thread(server.start)
            await proved(wake, ear)
            await sender(dsn)(str(T0))
            await ear.until(lambda heard: T0 in heard)
            assert wake.stats.polls >= 3
    # However long it was away and whatever was tried, it is said once.
    assert len(said.of("WARNING")) == 1


async def test_a_refused_connection_is_no_error_at_the_start(dsn: str, pg_proxy: pgfaults.Proxy, said: Log) -> None:
    pg_proxy.refuse()
    async with hearing(dsn, listen=pg_proxy.dsn(dsn)) as (wake, ear):
        assert "LISTEN" in await said.until("WARNING")
        assert wake.healthy is not None
        ear.heard.clear()
        await ear.until(lambda heard: heard[:2] == [None, None])
        pg_proxy.heal()
        await proved(wake, ear)
        await sender(dsn)(str(T0))
        await ear.until(lambda heard: T0 in heard)
        await said.until("INFO")
    assert len(said.of("WARNING")) == 1


async def test_looking_often_ends_when_the_channel_is_proved(dsn: str, pg_proxy: pgfaults.Proxy, said: Log) -> None:
    pg_proxy.refuse()
    async with hearing(dsn, listen=pg_proxy.dsn(dsn)) as (wake, ear):
        await said.until("WARNING")
        pg_proxy.heal()
        await proved(wake, ear)
        polls, probes = wake.stats.polls, wake.stats.probes
        while wake.stats.probes < probes + 3:
            await sender(dsn)(str(T0))
            await ear.until(lambda heard: T0 in heard)
            ear.heard.clear()
        assert wake.stats.polls == polls


async def test_a_connection_that_hangs_is_found_by_the_probe(dsn: str, pg_proxy: pgfaults.Proxy, said: Log) -> None:
    async with hearing(dsn, listen=pg_proxy.dsn(dsn), timing=HASTY) as (wake, ear):
        await proved(wake, ear)
        pg_proxy.silence("to_client")
        await said.until("WARNING")
        await is_so(wake, ear, lambda problem: problem is not None)
        assert wake.stats.probes_lost >= 1
        pg_proxy.heal()
        await proved(wake, ear)
        await said.until("INFO")


async def test_a_connection_that_was_cut_is_made_again(dsn: str, pg_proxy: pgfaults.Proxy, said: Log) -> None:
    async with hearing(dsn, listen=pg_proxy.dsn(dsn)) as (wake, ear):
        await proved(wake, ear)
        assert pg_proxy.connections == 1
        pg_proxy.cut()
        await said.until("INFO")
        await sender(dsn)(str(T0))
        await ear.until(lambda heard: T0 in heard)


async def test_a_url_that_leads_elsewhere_is_told_with_what_to_do(dsn: str, pg_server: pg.Cluster, said: Log) -> None:
    async with hearing(dsn, listen=pg_server.dsn(), timing=HASTY) as (wake, ear):
        text = await said.until("WARNING")
        assert "another database" in text
        assert 'wake="postgresql://' in text
        await ear.until(lambda heard: len(heard) > 2)
        assert wake.stats.probes_lost >= 1


async def test_a_store_that_cannot_send_proves_nothing(dsn: str, said: Log) -> None:
    works = False

    async def send(payload: str) -> None:
        if not works:
            raise OSError("no room in the pool")
        await sender(dsn)(payload)

    async with hearing(dsn, send) as (wake, ear):
        assert "no room in the pool" in await said.until("WARNING")
        works = True
        await proved(wake, ear)


async def test_the_probe_of_another_process_proves_nothing(dsn: str, said: Log) -> None:
    async def send(payload: str) -> None:
        await sender(dsn)("probe:somebody")

    async with hearing(dsn, send, timing=HASTY) as (wake, _):
        assert "did not arrive" in await said.until("WARNING")
        assert wake.healthy is not None


async def test_a_store_that_never_answers_proves_nothing(dsn: str, said: Log) -> None:
    async def send(payload: str) -> None:
        await asyncio.Event().wait()

    async with hearing(dsn, send, timing=HASTY) as (wake, ear):
        assert "no answer within 0.3 s" in await said.until("WARNING")
        await ear.until(lambda heard: len(heard) > 2)
        assert wake.healthy is not None


async def test_a_server_that_takes_no_writes_is_not_listened_to(dsn: str, pg_server: pg.Cluster, said: Log) -> None:
    """As after a failover, until the URL leads to the new primary."""
    name = dsn.rpartition("/")[2]
    await execute(pg_server.dsn(), f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with hearing(dsn) as (wake, ear):
        assert "takes no writes" in await said.until("WARNING")
        await execute(pg_server.dsn(), f"ALTER DATABASE {name} RESET ALL")
        await proved(wake, ear)


async def test_behind_pgbouncer_it_is_said_and_a_direct_url_for_listen_helps(
    dsn: str, pgbouncer: pgfaults.PgBouncer, said: Log
) -> None:
    pooled = pgbouncer.dsn(dsn)
    async with hearing(pooled, timing=HASTY) as (wake, ear):
        text = await said.until("WARNING")
        assert 'OnCue(url, wake="postgresql://' in text
        await ear.until(lambda heard: len(heard) > 2)
        assert wake.healthy is not None
    async with hearing(pooled, listen=dsn) as (wake, ear):
        await proved(wake, ear)
        await sender(pooled)(str(T0))
        await ear.until(lambda heard: T0 in heard)
        assert wake.healthy is None


async def test_a_url_that_says_pgbouncer_is_not_even_tried(dsn: str, pgbouncer: pgfaults.PgBouncer, said: Log) -> None:
    pooled = f"{pgbouncer.dsn(dsn)}?pgbouncer=true"
    async with hearing(pooled, sender(dsn)) as (wake, ear):
        assert "pgbouncer=true" in await said.until("WARNING")
        await ear.until(lambda heard: len(heard) > 2)
        assert wake.stats.probes == 0
        assert await listeners(dsn) == []
    async with hearing(pooled, sender(dsn), listen=dsn) as (wake, ear):
        await proved(wake, ear)


async def test_closing_in_trouble_ends_the_looking_and_the_trying(
    dsn: str, pg_proxy: pgfaults.Proxy, said: Log
) -> None:
    pg_proxy.silence()
    before = asyncio.all_tasks()
    async with hearing(dsn, listen=pg_proxy.dsn(dsn), timing=HASTY) as (wake, _):
        await said.until("WARNING")
    assert asyncio.all_tasks() == before
    assert wake.healthy is not None


async def test_of_several_hosts_one_that_is_silent_keeps_nobody_from_the_next(
    dsn: str, pg_proxy: pgfaults.Proxy, said: Log
) -> None:
    pg_proxy.silence()
    one, other = urlsplit(pg_proxy.dsn(dsn)), urlsplit(dsn)
    both = one._replace(netloc=f"{one.netloc},{other.netloc.rpartition('@')[2]}").geturl()
    async with hearing(dsn, listen=both, timing=replace(QUICK, prove_within=2.0)) as (wake, ear):
        await proved(wake, ear)
        await sender(dsn)(str(T0))
        await ear.until(lambda heard: T0 in heard)
        assert wake.stats.reconnects == 0
