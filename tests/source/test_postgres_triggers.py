"""Triggers in PostgreSQL: they make no writer wait, lose no change, ask for few rights, and follow the declaration."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import psycopg
import pytest
import pytest_asyncio

from oncue import OnCue
from oncue.operate.checks import sources as _sources
from tests import pgfaults
from tests.databases import Backend
from tests.source.stage import TRIALS, Stage


@pytest_asyncio.fixture
async def trials(postgres: Backend) -> AsyncIterator[Stage]:
    """A stage on PostgreSQL with the source of the issue, its triggers made."""
    made = Stage(postgres)
    made.declare(trigger=True)
    async with made.app:
        await made.app.sources.install()
        yield made
    made.db.close()


@contextmanager
def another(stage: Stage, role: str | None = None) -> Iterator[psycopg.Connection]:
    """A user's connection besides; it is in a transaction as soon as it does anything."""
    with psycopg.connect(stage.backend.url) as conn:
        if role:
            conn.execute(f"SET SESSION AUTHORIZATION {role}")
            conn.commit()
        yield conn
        conn.rollback()


@contextmanager
def a_role(stage: Stage) -> Iterator[str]:
    role = f"writer_{uuid.uuid4().hex[:8]}"
    stage.db.execute(f"CREATE ROLE {role} LOGIN")
    try:
        yield role
    finally:
        stage.db.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def test_a_change_that_is_not_committed_yet_is_not_forgotten_with_the_one_before(trials: Stage) -> None:
    trials.put(1, trials.at(50))
    with another(trials) as conn:
        conn.execute("UPDATE free_trials SET next_question_scheduled_for = %s", (trials.at(20),))
        assert await trials.app.sources.reconcile_changed() == 1, "the sweeper is not held up either"
        assert trials.db.notes() == []
        conn.commit()
    assert trials.db.notes() == [("free_trials", 1)]
    assert await trials.app.sources.reconcile_changed() == 1
    assert [job.scheduled_at for job in await trials.jobs("scheduled")] == [trials.clock.now() + 20_000_000]


async def test_no_writer_waits_for_a_sweeper_or_another_writer(trials: Stage) -> None:
    trials.put(1, trials.at(50))
    trials.put(2, trials.at(50))
    with another(trials) as sweeper, another(trials) as one, another(trials) as two:
        sweeper.execute("DELETE FROM oncue.oncue_source_change")
        for conn, id in ((one, 1), (two, 2)):
            conn.execute("SET LOCAL lock_timeout = '100ms'")
            conn.execute("UPDATE free_trials SET status = 'paused' WHERE id = %s", (id,))
        sweeper.rollback()
        one.commit()
        two.commit()


async def test_notes_that_nobody_takes_do_not_pile_up(trials: Stage) -> None:
    trials.put(1, trials.at(50))
    trials.db.execute("UPDATE oncue_source_change SET noted_at = noted_at - 61000000")
    for second in range(5):
        trials.put(1, trials.at(second))
    assert trials.db.execute("SELECT count(*) FROM oncue_source_change").fetchone() == (1,)


async def test_one_hint_a_transaction_is_sent_and_none_for_a_change_that_does_not_matter(trials: Stage) -> None:
    with another(trials) as listener:
        listener.autocommit = True
        listener.execute("LISTEN oncue_oncue")
        with another(trials) as conn:
            for id in range(20):
                conn.execute(
                    "INSERT INTO free_trials (id, next_question_scheduled_for) VALUES (%s, %s)", (id, trials.at(9))
                )
            conn.commit()
            now = time.time()
        trials.db.execute("INSERT INTO free_trials (id, next_question_scheduled_for) VALUES (99, NULL)")
        trials.db.execute("DELETE FROM free_trials WHERE id = 99")
        trials.db.execute("NOTIFY oncue_oncue, 'the end'")
        *hints, end = [hint.payload for hint in listener.notifies(timeout=20, stop_after=2)]
    assert end == "the end"
    [hint] = hints
    assert abs(int(hint) / 1e6 - now) < 60


async def test_a_due_column_that_another_trigger_of_the_users_sets_is_seen(trials: Stage) -> None:
    trials.db.execute(
        "CREATE FUNCTION defer() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.next_question_scheduled_for := NEW.name; RETURN NEW; END $$"
    )
    trials.db.execute("CREATE TRIGGER d BEFORE UPDATE ON free_trials FOR EACH ROW EXECUTE FUNCTION defer()")
    trials.put(1, None)
    trials.declare(where=None, trigger=True, name="plain")
    await trials.app.sources.install()
    trials.db.execute("UPDATE free_trials SET name = ?", (trials.at(5),))
    assert ("plain", 1) in trials.db.notes()


async def test_nothing_is_locked_where_nothing_changed(trials: Stage) -> None:
    before = trials.db.execute("SELECT oid, xmin::text FROM pg_trigger ORDER BY oid").fetchall()
    assert len(trials.db.triggers()) == 3
    with another(trials) as conn:
        conn.execute("LOCK TABLE free_trials IN ROW EXCLUSIVE MODE")
        await trials.app.sources.install()
        await trials.sweep()
    assert trials.db.execute("SELECT oid, xmin::text FROM pg_trigger ORDER BY oid").fetchall() == before


async def test_a_table_that_stays_locked_is_swept_and_gets_its_triggers_later(
    postgres: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(postgres)
    stage.declare(trigger=True)
    async with stage.app:
        with another(stage) as conn:
            conn.execute("INSERT INTO free_trials (id, next_question_scheduled_for) VALUES (7, %s)", (stage.at(100),))
            stage.put(1, stage.at(0))
            await stage.app.sources.install()
            for _ in range(2):
                await stage.sweep()
            await stage.work()
            assert stage.ran == [1]
            assert caplog.text.count("stayed locked for 1s") == 1
            [status] = await stage.app.sources.status()
            assert "stayed locked" in str(status.drift)
            assert stage.db.triggers() == []
            conn.commit()
        await stage.sweep()
        assert len(stage.db.triggers()) == 3
        [status] = await stage.app.sources.status()
        assert status.drift is None
    stage.db.close()


async def test_whoever_writes_to_the_table_needs_no_rights_on_oncues(trials: Stage) -> None:
    with a_role(trials) as role:
        trials.db.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON free_trials TO {role}")
        # Enough to try to have our function called by a trigger on a table of one's own.
        trials.db.execute(f"GRANT USAGE ON SCHEMA oncue TO {role}")
        with another(trials, role) as conn:
            conn.execute("SET search_path = pg_temp")
            conn.execute(
                "INSERT INTO public.free_trials (id, next_question_scheduled_for) VALUES (1, %s)", (trials.at(0),)
            )
            conn.commit()
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute("SELECT * FROM oncue.oncue_source_change")
            conn.rollback()
            [(name, _), *_] = trials.db.triggers()
            conn.execute("CREATE TEMP TABLE mine (id integer, next_question_scheduled_for text)")
            mine = f"CREATE TRIGGER t AFTER INSERT ON mine EXECUTE FUNCTION oncue.{name.removesuffix('_delete')}()"
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="function"):
                conn.execute(mine)
        await trials.work()
        assert trials.ran == [1]


async def test_a_worker_that_may_make_no_triggers_sweeps_and_says_so(
    postgres: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    owner = Stage(postgres)
    with a_role(owner) as role:
        owner.db.execute(f"GRANT SELECT ON free_trials TO {role}")
        owner.db.execute(f"GRANT USAGE ON SCHEMA oncue TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA oncue TO {role}")
        owner.db.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA oncue TO {role}")
        worker = Backend(postgres.url.replace("postgres@", f"{role}@"), postgres.connect)
        stage = Stage(worker, schema="")
        stage.declare(trigger=True)
        async with stage.app:
            await stage.app.sources.install()
            owner.put(1, stage.at(0))
            await stage.sweep()
            await stage.work()
            assert stage.ran == [1]
            assert caplog.text.count("no trigger can be made on 'free_trials' (permission denied for") == 1
            [check] = await _sources(stage.app)
            assert (check.level, "GRANT TRIGGER ON" in check.found) == ("warn", True)
            # Someone who may makes them once, by the same code; then there is nothing left to make.
            owner.declare(trigger=True)
            async with owner.app:
                await owner.app.sources.install()
            await stage.sweep()
            [status] = await stage.app.sources.status()
            assert status.drift is None
            owner.put(2, stage.at(0))
            await stage.work()
            assert stage.ran == [1, 2]
        stage.db.close()
        assert len(owner.db.triggers()) == 3
    owner.db.close()


async def test_a_worker_may_drop_its_triggers_from_a_table_that_is_not_its_own(postgres: Backend) -> None:
    owner = Stage(postgres)
    with a_role(owner) as role:
        owner.db.execute(f"GRANT SELECT, TRIGGER ON free_trials TO {role}")
        owner.db.execute(f"GRANT ALL ON SCHEMA oncue TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA oncue TO {role}")
        owner.db.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA oncue TO {role}")
        worker = Backend(postgres.url.replace("postgres@", f"{role}@"), postgres.connect)
        for options, count in (({"trigger": True}, 3), ({"trigger": True, "where": None}, 3), ({}, 0)):
            stage = Stage(worker, schema="")
            stage.declare(**options)
            async with stage.app:
                await stage.app.sources.install()
            stage.db.close()
            assert len(owner.db.triggers()) == count
    owner.db.close()


async def test_a_table_that_was_made_anew_gets_its_triggers_again(trials: Stage) -> None:
    trials.db.execute("DROP TABLE free_trials")
    trials.db.execute(TRIALS)
    await trials.sweep()
    assert len(trials.db.triggers()) == 3
    trials.put(1, trials.at(0))
    await trials.work()
    assert trials.ran == [1]


async def test_workers_that_start_at_once_make_the_triggers_once(postgres: Backend) -> None:
    stages = [Stage(postgres, schema=TRIALS if not n else "") for n in range(4)]
    for stage in stages:
        stage.declare(trigger=True)
        await stage.app.open()
    await asyncio.gather(*(stage.app.sources.install() for stage in stages))
    assert len(stages[0].db.triggers()) == 3
    functions = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'oncue_note_%'"
    assert stages[0].db.execute(functions).fetchone() == (1,)
    for stage in stages:
        await stage.app.close()
        stage.db.close()


PROGRAM = """
import psycopg, sys, time
with psycopg.connect(sys.argv[1]) as db:
    db.execute("INSERT INTO free_trials (id, next_question_scheduled_for) VALUES (4, to_timestamp(%s))",
               (time.time() + 0.5,))
"""


async def test_a_change_by_another_program_wakes_the_worker(postgres: Backend) -> None:
    """Plain SQL from a process that has never heard of OnCue; the next sweep is an hour away."""
    with psycopg.connect(postgres.url, autocommit=True) as db:
        db.execute("CREATE TABLE free_trials (id integer PRIMARY KEY, next_question_scheduled_for timestamptz)")
    app = OnCue(postgres.url, sweep=3600)
    ran: asyncio.Queue[tuple[int, float]] = asyncio.Queue()

    @app.task()
    async def send_question(trial_id: int) -> None:
        await ran.put((trial_id, time.time()))

    app.source("free_trials", key="q-{id}", due="next_question_scheduled_for", task=send_question, trigger=True)
    async with app.worker():
        # The first sweep is through, so that none can be what sees the change.
        while not await app.sources.status():  # noqa: ASYNC110 - a state of the database, not of this process
            await asyncio.sleep(0.01)
        began = time.time()
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", PROGRAM, postgres.url], check=True)
        trial, at = await asyncio.wait_for(ran.get(), 30)
        assert trial == 4
        assert at >= began + 0.5


async def test_a_source_works_through_pgbouncer(postgres: Backend) -> None:
    if pgfaults.PGBOUNCER is None:
        pytest.skip("PgBouncer isn't installed (Debian's package pgbouncer)")
    stage = Stage(postgres)
    stage.db.execute("ALTER TABLE free_trials ALTER next_question_scheduled_for TYPE timestamptz USING NULL")
    stage.declare(trigger=True)
    with (
        pgfaults.PgBouncer(postgres.url, settings={"default_pool_size": "3"}) as bouncer,
        stage.app.bound_to(f"{bouncer.dsn(postgres.url)}?pgbouncer=true", stage.clock),
    ):
        async with stage.app:
            await stage.app.sources.install()
            stage.put(1, f"{stage.at(0)}Z")
            await stage.work()
            assert stage.ran == [1]
            stage.put(1, f"{stage.at(10)}Z")
            for _ in range(3):
                await stage.sweep()
            stage.clock.move(10)
            await stage.work()
            assert stage.ran == [1, 1]
            assert await stage.app.sources.reconcile_changed() == 0
            assert stage.db.notes() == []
    stage.db.close()
