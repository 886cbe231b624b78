"""The server takes work back, keeps it waiting or has no room: it is tried again, or said, and never half done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from oncue import Scheduled
from oncue.errors import StoreBusy
from tests import pg
from tests.databases import database
from tests.postgres.failure import (
    CLOSED,
    GATE,
    Ledger,
    application,
    hold,
    holding,
    note,
    rows,
    until_rows,
    until_waiting,
    working,
)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with database(f"postgres{pg.NEWEST}", tmp_path) as made:
        yield made.url


def run(url: str, *statements: str) -> None:
    for statement in statements:
        with holding(url, statement) as connection:
            connection.commit()


def refuse_once(url: str, when: str, condition: str, state: str = "40001") -> None:
    """Have the server take back the first statement that touches such a job, as it does for a serialization failure."""
    run(
        url,
        "CREATE SEQUENCE refusals",
        f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF nextval('oncue.refusals') = 1 THEN RAISE EXCEPTION 'again, please' USING ERRCODE = '{state}'; END IF;
              RETURN coalesce(NEW, OLD); END $$""",
        f"CREATE TRIGGER refuse BEFORE {when} ON oncue_job FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()",
    )


REFUSED = "SELECT last_value FROM refusals WHERE is_called"


async def test_jobs_of_a_claim_that_the_server_took_back_half_way_run_once(url: str) -> None:
    refuse_once(url, "UPDATE", "NEW.state = 'running' AND NEW.queue = 'b'")
    ledger = Ledger()
    app = application(url, ledger)
    async with app:
        await app.schedule_many([Scheduled(note(app, 1), queue="a"), Scheduled(note(app, 2), queue="b")])
        async with working(app):
            await ledger.until(lambda: len(ledger.lines) >= 2)
            await until_rows(url, "SELECT count(*) FROM oncue_finished", wanted=lambda found: found == [(2,)])
    assert rows(url, REFUSED) != []
    assert ledger.counts() == {1: 1, 2: 1}


async def test_outcomes_that_the_server_took_back_half_way_are_recorded_once(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_once(url, "DELETE", "OLD.attempt = 2")
    ledger = Ledger()
    app = application(url, ledger)
    async with app:
        again, first = await app.schedule_many([hold(app, 1), hold(app, 2)])
        run(url, f"UPDATE oncue_job SET attempt = 1 WHERE id = {again.id}")
        async with working(app):
            await ledger.until(lambda: len(ledger.of("began")) == 2)
            ledger.go.set()
            await asyncio.gather(again.result(timeout=20), first.result(timeout=20))
    assert rows(url, REFUSED) != []
    assert rows(url, "SELECT attempt, outcome FROM oncue_finished ORDER BY attempt") == [
        (1, "completed"),
        (2, "completed"),
    ]
    assert "came too late" not in caplog.text


async def test_a_claim_that_arrives_long_after_it_was_given_up_is_found_by_the_sweep(url: str) -> None:
    ledger = Ledger()
    app = application(url, ledger)
    async with app.worker() as service:
        assert service.worker is not None
        await app.store.set_queue("default", True)
        handle = await app.schedule(note(app, 1))
        # What such a claim would do, whoever sent it, and whenever.
        run(
            url,
            f"UPDATE oncue_job SET state = 'running', attempt = 1, claimed_at = 0, worker = {service.worker.id}",
        )
        await app.store.set_queue("default", False)
        await service.sweep()
        assert await handle.result(timeout=20) == 1
    assert ledger.lines == [("ran", "w", 1, 2)]


async def test_where_transactions_are_serializable_by_default_all_runs_once(url: str) -> None:
    run(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_isolation = serializable")
    ledger = Ledger()
    one, other = application(url, ledger, "one"), application(url, ledger, "other")
    async with working(one), working(other):
        calls = [
            app.schedule(note(app, number), key=f"k{number}" if number % 2 else None, group=f"g{number % 3}")
            for app in (one, other)
            for number in range(40)
        ]
        await asyncio.gather(*calls)
        await until_rows(url, "SELECT count(*) FROM oncue_job", wanted=lambda found: found == [(0,)])
    # Those with a key may have been asked for twice while they waited.
    assert all(count == 2 for number, count in ledger.counts().items() if number % 2 == 0)
    [(finished,)] = rows(url, "SELECT count(*) FROM oncue_finished WHERE outcome = 'completed'")
    assert finished == len(ledger.lines)


async def test_a_deadlock_with_somebody_elses_transaction_is_tried_again(url: str) -> None:
    app = application(url, Ledger())
    async with app:
        first, second = await app.schedule_many([Scheduled(note(app, n), key=f"k{n}", delay=3600) for n in (1, 2)])
        with holding(url, "SET deadlock_timeout = '1min'") as other:
            other.execute("SELECT id FROM oncue_job WHERE id = %s FOR UPDATE", [second.id])
            again = [Scheduled(note(app, 5), key=f"k{n}", on_conflict="replace", delay=7200) for n in (1, 2)]
            asked = asyncio.create_task(app.schedule_many(again))
            await until_waiting(url, "FOR UPDATE")
            # It has locked the first and waits for the second; now this one waits for the first.
            await asyncio.to_thread(other.execute, "SELECT id FROM oncue_job WHERE id = %s FOR UPDATE", [first.id])
            other.commit()
        assert [handle.status for handle in await asked] == ["replaced", "replaced"]
    assert rows(url, "SELECT args::json->>'number' FROM oncue_job") == [("5",), ("5",)]
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    await until_rows(url, deadlocks, wanted=lambda found: found[0][0] == 1)


@pytest.mark.parametrize("setting", ["statement_timeout = '300ms'", "lock_timeout = '1min'"])
async def test_a_statement_that_takes_too_long_is_said_and_leaves_nothing(url: str, setting: str) -> None:
    run(url, GATE, f"ALTER DATABASE {url.rpartition('/')[2]} SET {setting}")
    app = application(url, Ledger(), busy_timeout=0.5)
    async with app:
        with holding(url, CLOSED) as other:
            for key in (None, "k"):
                with pytest.raises(StoreBusy, match=r"kept us waiting too long .*timeout.* pg_stat_activity"):
                    await app.schedule(note(app, 1), key=key)
            other.rollback()
        handle = await app.schedule(note(app, 2), key="k")
    assert rows(url, "SELECT id FROM oncue_job") == [(handle.id,)]


async def test_a_locked_row_keeps_neither_other_outcomes_nor_other_jobs_waiting(url: str) -> None:
    ledger = Ledger()
    app = application(url, ledger, busy_timeout=0.5)
    async with working(app):
        held, free = await app.schedule_many([hold(app, 1), hold(app, 2)])
        await ledger.until(lambda: len(ledger.of("began")) == 2)
        await app.store.set_queue("default", True)
        locked, other = await app.schedule_many([note(app, 3), note(app, 4)])
        with holding(url, f"SELECT 1 FROM oncue_job WHERE id IN ({held.id}, {locked.id}) FOR UPDATE") as somebody:
            ledger.go.set()
            await free.result(timeout=20)
            await app.store.set_queue("default", False)
            assert await other.result(timeout=20) == 4
            assert ledger.of("ran") == [4]
            somebody.rollback()
        await held.result(timeout=20)
        assert await locked.result(timeout=20) == 3
    assert ledger.lines[2:4] == [("ended", "w", 1, 1), ("ended", "w", 2, 1)]
    assert ledger.counts() == {3: 1, 4: 1}
    assert set(rows(url, "SELECT outcome FROM oncue_finished")) == {("completed",)}


async def test_a_cancel_in_an_open_transaction_holds_up_its_job_only(url: str) -> None:
    ledger = Ledger()
    app = application(url, ledger, busy_timeout=0.5)
    async with working(app):
        handle = await app.schedule(hold(app, 1))
        await ledger.until(lambda: ledger.of("began") == [1])
        with holding(url, "SELECT 1") as theirs:
            assert app.sync.cancel(id=handle.id, connection=theirs) == "requested"
            assert await (await app.schedule(note(app, 2))).result(timeout=20) == 2
            assert ledger.of("told") == []
            theirs.commit()
        await ledger.until(lambda: ledger.of("told") == [1])
        await until_rows(url, "SELECT 1 FROM oncue_finished WHERE state = 'cancelled'")


async def test_who_schedules_waits_for_a_lock_as_long_as_busy_timeout_says(url: str) -> None:
    waiting = """SELECT xact_start FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'oncue' AND wait_event_type = 'Lock' AND xact_start > %s"""
    app = application(url, Ledger(), busy_timeout=60.0)
    async with app:
        with holding(url, "LOCK TABLE oncue_job IN EXCLUSIVE MODE") as other:
            asked = asyncio.create_task(app.schedule(note(app, 1)))
            [(first,)] = await until_rows(url, waiting, "2000-01-01")
            # The server ended that one, and it was tried again.
            await until_rows(url, waiting, first)
            assert not asked.done()
            other.rollback()
        handle = await asked
    assert rows(url, "SELECT id FROM oncue_job") == [(handle.id,)]
