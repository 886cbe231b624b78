"""Connections break or hang in every phase of the work: what was asked for happens once, and everybody is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oncue import Scheduled
from oncue.errors import StoreUnavailable
from oncue.store.postgres import connection
from tests import pg
from tests.databases import database
from tests.pgfaults import Proxy
from tests.postgres.failure import (
    CLOSED,
    GATE,
    Ledger,
    application,
    hold,
    holding,
    note,
    rows,
    said,
    until_rows,
    until_waiting,
    working,
)

UNKNOWN = r"broke.* may or may not be stored: with a key, scheduling it again is safe"


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[str]:
    """The URL of a database with OnCue's tables, straight to the server."""
    with database(f"postgres{pg.NEWEST}", tmp_path) as made:
        with holding(made.url, GATE) as owner:
            owner.commit()
        yield made.url


@pytest.fixture
def proxy(direct: str) -> Iterator[Proxy]:
    with Proxy(direct) as made:
        yield made


@pytest.mark.parametrize("fault", ["answer lost", "silent", "reset"])
async def test_a_schedule_whose_outcome_is_unknown_says_so_and_again_with_its_key_is_safe(
    direct: str, proxy: Proxy, fault: str
) -> None:
    ledger = Ledger()
    app = application(proxy.dsn(direct), ledger, busy_timeout=0.5)
    async with app:
        with holding(direct, CLOSED) as other:
            asked = asyncio.create_task(app.schedule(note(app, 1), key="k"))
            await until_waiting(direct, "COMMIT")
            if fault == "answer lost":
                proxy.silence("to_client")
            elif fault == "silent":
                proxy.silence()
            else:
                proxy.cut()
            other.rollback()
        with pytest.raises(StoreUnavailable, match=UNKNOWN):
            await asked
        proxy.heal()
        handle = await app.schedule(note(app, 1), key="k")
        async with working(app):
            assert await handle.result(timeout=20) == 1
        assert ledger.counts() == {1: 1}


@pytest.mark.parametrize("group", [None, "g"])
async def test_jobs_of_a_claim_whose_answer_was_lost_are_found_and_run_once(
    direct: str, proxy: Proxy, group: str | None
) -> None:
    ledger = Ledger()
    app = application(proxy.dsn(direct), ledger, busy_timeout=0.5)
    async with working(app):
        await app.store.set_queue("default", True)
        await app.schedule_many([Scheduled(note(app, number), group=group) for number in (1, 2, 3)])
        with holding(direct, CLOSED) as other:
            await app.store.set_queue("default", False)
            app.wake.hint(app.clock.now())
            await until_waiting(direct, "COMMIT" if group else "nothing binds")
            proxy.silence("to_client")
            other.rollback()
        await until_rows(
            direct, "SELECT count(*) FROM oncue_job WHERE state = 'running'", wanted=_is(1 if group else 3)
        )
        assert ledger.lines == []
        proxy.heal()
        await ledger.until(lambda: len(ledger.lines) >= 3)
        await until_rows(direct, "SELECT count(*) FROM oncue_finished", wanted=_is(3))
    assert ledger.counts() == {1: 1, 2: 1, 3: 1}


def _is(number: int) -> Callable[[list[Any]], bool]:
    return lambda found: found == [(number,)]


async def test_an_ack_whose_answer_was_lost_counts_as_what_it_is(
    direct: str, proxy: Proxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger()
    # Long enough for the answer to be stopped while the ack waits, on a busy machine too.
    monkeypatch.setattr(connection, "ROW_WAIT", 3.0)
    app = application(proxy.dsn(direct), ledger, busy_timeout=4.0)
    async with working(app) as worker:
        handle = await app.schedule(hold(app, 1))
        await ledger.until(lambda: ledger.of("began") == [1])
        with holding(direct, CLOSED) as other:
            ledger.go.set()
            await until_waiting(direct, "DELETE FROM")
            proxy.silence("to_client")
            other.rollback()
        await until_rows(direct, "SELECT 1 FROM oncue_finished")
        proxy.heal()
        await handle.result(timeout=20)
        # The worker asks again until it knows.
        again = await app.schedule(note(app, 2))
        assert await again.result(timeout=20) == 2
        assert worker.running == 0
    assert ledger.of("began") == [1]
    assert rows(direct, "SELECT attempt, outcome FROM oncue_finished ORDER BY id") == [(1, "completed")] * 2
    assert "came too late" not in caplog.text


async def test_a_heartbeat_whose_connection_broke_goes_on_over_another(
    direct: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger()
    app = application(proxy.dsn(direct), ledger, busy_timeout=2.0)
    lease = "SELECT lease_until FROM oncue_worker"
    async with working(app, lease=3.0) as worker:
        before = worker.id
        await app.schedule(hold(app, 1))
        await ledger.until(lambda: ledger.of("began") == [1])
        [(first,)] = rows(direct, lease)
        [(second,)] = await until_rows(direct, lease, wanted=lambda found: found[0][0] > first)
        proxy.cut()
        [(third,)] = await until_rows(direct, lease, wanted=lambda found: found[0][0] > second)
        # Half open: the renewal arrives, its answer doesn't.
        proxy.silence("to_client")
        await until_rows(direct, lease, wanted=lambda found: found[0][0] > third)
        proxy.heal()
        ledger.go.set()
        await until_rows(direct, "SELECT 1 FROM oncue_finished")
        assert worker.id == before
    assert [line[0] for line in ledger.lines] == ["began", "ended"]
    assert "lost its lease" not in caplog.text


async def test_past_its_lease_a_worker_without_network_is_told_and_another_goes_on(direct: str, proxy: Proxy) -> None:
    here, there = Ledger(), Ledger()
    cut_off = application(proxy.dsn(direct), here, "cut off", busy_timeout=0.5)
    other = application(direct, there, "other")
    async with working(cut_off, lease=1.5) as worker:
        before = worker.id
        await cut_off.schedule(hold(cut_off, 1), group="g")
        await cut_off.schedule(hold(cut_off, 2), group="g", delay=0.001)
        await here.until(lambda: here.of("began") == [1])
        async with working(other, lease=1.5):
            proxy.silence()
            [(until,)] = rows(direct, "SELECT lease_until FROM oncue_worker WHERE id = %s", before)
            # Nothing comes from the network any more: the worker knows by itself.
            await here.until(lambda: here.of("lost") == [1])
            await there.until(lambda: there.of("began") == [1])
            [(claimed,)] = rows(direct, "SELECT claimed_at FROM oncue_job WHERE state = 'running'")
            assert claimed > until
            there.go.set()
            await there.until(lambda: there.of("ended") == [1, 2])
        proxy.heal()
        await schedule_past(direct, 3)
        await here.until(lambda: here.of("ran") == [3])
        assert worker.id not in (0, before)
    assert [line[3] for line in there.lines if line[2] == 1] == [2, 2]
    assert [line[0] for line in here.lines] == ["began", "lost", "ran"]


async def schedule_past(direct: str, number: int) -> None:
    """Schedule from elsewhere, straight to the server."""
    async with application(direct, Ledger()) as app:
        await app.schedule(note(app, number))


async def test_what_a_zombie_writes_after_its_lease_changes_nothing(direct: str, proxy: Proxy) -> None:
    here, there = Ledger(), Ledger()
    zombie = application(proxy.dsn(direct), here, "zombie", busy_timeout=20.0)
    other = application(direct, there, "other")
    # Its ack is on the way, or waits behind another round trip, when the lease ends: each is said.
    with said("oncue.worker", r"its outcome .* came too late|and 1 that had ended came too late") as told:
        async with working(zombie, lease=1.0):
            await zombie.schedule(hold(zombie, 1), group="g")
            await here.until(lambda: here.of("began") == [1])
            proxy.silence("to_server")
            # It ends within its lease, but its ack is on the way until long after.
            here.go.set()
            await here.until(lambda: here.of("ended") == [1])
            async with working(other, lease=1.0):
                await there.until(lambda: there.of("began") == [1])
                proxy.heal()
                await told.wait()
                assert rows(direct, "SELECT state, attempt FROM oncue_job") == [("running", 2)]
                there.go.set()
                await until_rows(direct, "SELECT 1 FROM oncue_finished")
    assert rows(direct, "SELECT attempt, outcome FROM oncue_finished") == [(2, "completed")]
