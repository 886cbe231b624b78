"""The server takes work back, keeps it waiting or has no room: it is tried again, or said, and never half done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from oncue import Scheduled
from tests import pg
from tests.databases import database
from tests.postgres.failure import Ledger, application, hold, holding, note, rows, until_rows, working


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
