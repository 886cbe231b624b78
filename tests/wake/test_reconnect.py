"""Somebody asks for the next try at once: no pause is waited for."""

from __future__ import annotations

from pathlib import Path

from oncue.wake.local import LocalWake
from oncue.wake.postgres import PostgresWake, Timing
from tests import pgfaults
from tests.wake.pgkit import Log, hearing, proved, sender

# Nobody waits for the second try, nor for the second proof.
LAZY = Timing(probe_every=3600, prove_within=5, poll_every=0.02, first_pause=3600, longest_pause=3600)


async def test_listen_is_tried_again_at_once(dsn: str, pg_proxy: pgfaults.Proxy, said: Log) -> None:
    pg_proxy.refuse()
    async with hearing(dsn, listen=pg_proxy.dsn(dsn), timing=LAZY) as (wake, ear):
        await said.until("WARNING")
        pg_proxy.heal()
        wake.reconnect()
        await proved(wake, ear)
        assert wake.stats.reconnects == 1


async def test_a_listen_that_seems_to_work_is_proved_at_once(dsn: str, pg_proxy: pgfaults.Proxy, said: Log) -> None:
    timing = Timing(probe_every=3600, prove_within=0.5, poll_every=0.02, first_pause=3600, longest_pause=3600)
    async with hearing(dsn, listen=pg_proxy.dsn(dsn), timing=timing) as (wake, ear):
        await proved(wake, ear)
        pg_proxy.silence("to_client")
        wake.reconnect()
        assert "did not arrive" in await said.until("WARNING")
        pg_proxy.heal()
        wake.reconnect()
        await proved(wake, ear)


async def test_asking_before_anybody_listens_or_after_the_end_does_nothing(dsn: str) -> None:
    silent = PostgresWake(dsn, sender(dsn))
    silent.reconnect()
    async with hearing(dsn) as (wake, ear):
        await proved(wake, ear)
    wake.reconnect()
    assert (wake.stats.reconnects, silent.stats.reconnects, silent.healthy) == (0, 0, None)


async def test_a_file_that_could_not_be_watched_is_tried_again(tmp_path: Path) -> None:
    wake = LocalWake(f"sqlite:///{tmp_path}/jobs.db")
    wake.reconnect()
    await wake.start()
    assert "can't be watched" in (wake.healthy or "")
    wake.reconnect()
    assert "can't be watched" in (wake.healthy or "")
    (tmp_path / "jobs.db-wal").touch()
    wake.reconnect()
    assert wake.healthy is None
    await wake.close()
