"""An upgrade of the tables while workers run: a second step that isn't there yet stands for those to come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import pytest
from click.testing import CliRunner

from oncue import OnCue
from oncue.cli import main
from oncue.clock import SystemClock
from oncue.errors import SchemaTooNew, StoreError
from oncue.store import Store, open_store
from oncue.store.postgres import schema
from oncue.store.postgres.schema import Migration
from tests.postgres.conftest import Base

SECOND = Migration(
    "ALTER TABLE oncue_job ADD COLUMN shade text;\nCREATE INDEX oncue_job_shade ON oncue_job (shade);\n",
    "ALTER TABLE oncue_job DROP COLUMN shade;\n",
    oldest=1,
)
THIRD = Migration(
    "ALTER TABLE oncue_job DROP COLUMN progress;\n", "ALTER TABLE oncue_job ADD COLUMN progress text;\n", oldest=2
)
Know = Callable[..., None]


@pytest.fixture
def know(monkeypatch: pytest.MonkeyPatch) -> Know:
    """Has this process know so many steps after the first from now on; the first makes all that today's code needs."""
    today = schema.MIGRATIONS
    first = Migration("".join(step.up for step in today), "".join(step.down for step in reversed(today)), oldest=1)

    def switch(*more: Migration) -> None:
        monkeypatch.setattr(schema, "MIGRATIONS", (first, *more))
        monkeypatch.setattr(schema, "VERSION", 1 + len(more))

    switch()
    return switch


async def opened(base: Base) -> None:
    store = open_store(base.url, SystemClock())
    await store.open()
    await store.close()


def has_shade(base: Base) -> bool:
    return bool(base.rows("SELECT 1 FROM information_schema.columns WHERE column_name = 'shade'"))


async def test_workers_that_run_and_old_ones_that_start_go_on_after_the_next_step(base: Base, know: Know) -> None:
    app = OnCue(base.url)

    @app.task(name="greet")
    async def greet() -> str:
        return "hello"

    async with app.worker():
        assert await (await app.schedule(greet.call())).result(timeout=20) == "hello"
        know(SECOND)
        await opened(base)
        assert has_shade(base)
        know()
        assert await (await app.schedule(greet.call())).result(timeout=20) == "hello"
        # Also one that is started, or put back by a rollback of the code, while the tables stay.
        async with OnCue(base.url) as other:
            assert (await other.jobs.counts()).completed == 2
            found = await other.store.schema()
            assert (found.found, found.expected, found.good, found.pending) == (2, 1, True, [])


async def test_versions_that_the_tables_do_not_serve_any_more_are_refused(base: Base, know: Know) -> None:
    know(SECOND, THIRD)
    await opened(base)
    know(SECOND)
    await opened(base)
    know()
    with pytest.raises(SchemaTooNew, match=r"schema version 3; this OnCue knows version 1. Nothing was changed"):
        await opened(base)
    found = await open_store(base.url, SystemClock()).schema()
    assert (found.found, found.expected, found.good) == (3, 1, False)


async def test_two_steps_at_once_are_refused_while_workers_of_before_the_first_may_run(base: Base, know: Know) -> None:
    await opened(base)
    app = OnCue(base.url)
    async with app.worker():
        know(SECOND, THIRD)
        with pytest.raises(StoreError, match="1 worker is alive that may know version 1") as told:
            await opened(base)
        assert "Stop" in str(told.value)
        # The step that they can live with is taken.
        assert base.value("SELECT value FROM oncue.oncue_counter WHERE name = 'schema'") == 2
        know()
    know(SECOND, THIRD)
    await opened(base)
    assert base.value("SELECT value FROM oncue.oncue_counter WHERE name = 'schema'") == 3


async def test_a_long_transaction_holds_the_step_up_but_nobody_else(base: Base, know: Know) -> None:
    await opened(base)
    know(SECOND)
    other: Store = open_store(base.url, SystemClock())
    know()
    await other.open()
    conn = psycopg.connect(base.url)
    conn.execute("UPDATE oncue.oncue_job SET progress = NULL")
    know(SECOND)
    step = asyncio.create_task(opened(base))
    blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'oncue.oncue_job'::regclass"
    while not base.value(blocked):  # noqa: ASYNC110 - another session's wait sends no signal
        await asyncio.sleep(0.01)
    # Who comes after the step waits for it, until it gives way: not for the transaction, which is still open.
    await asyncio.wait_for(other.counts(0), 30)
    assert not step.done()
    conn.rollback()
    conn.close()
    await step
    assert has_shade(base)
    await other.close()


async def test_it_gives_up_in_the_end_with_nothing_changed(
    base: Base, know: Know, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(base)
    know(SECOND)
    monkeypatch.setattr(schema, "_TRIES", 2)
    monkeypatch.setattr(schema, "_LOCK_WAIT", "10ms")
    with psycopg.connect(base.url) as conn:
        conn.execute("LOCK TABLE oncue.oncue_job IN ROW EXCLUSIVE MODE")
        with pytest.raises(StoreError, match="others held locks on them at 2 tries"):
            await opened(base)
    assert not has_shade(base)
    await opened(base)
    assert has_shade(base)


def test_the_printed_step_refuses_tables_of_another_version(base: Base, know: Know) -> None:
    know(SECOND)
    with pytest.raises(psycopg.errors.UndefinedTable):
        base.run(schema.script(2, "oncue"))
    base.run(schema.script(1, "oncue") + schema.script(2, "oncue"))
    with pytest.raises(psycopg.errors.RaiseException, match="not of version 1"):
        base.run(schema.script(2, "oncue"))
    base.run(schema.backward(2, "oncue"))
    assert not has_shade(base)
    done = CliRunner().invoke(main, ["migrate", "--check", "--database", base.url])
    assert (done.exit_code, "version 1 of 2" in done.output) == (1, True)
