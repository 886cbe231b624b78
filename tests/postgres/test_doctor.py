"""``oncue doctor`` on PostgreSQL finds what is wrong with the server, the tables, the role and other sessions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import psycopg
import pytest
from click.testing import CliRunner

from oncue import OnCue
from oncue.cli import main
from oncue.clock import SystemClock
from oncue.operate.views import Health
from oncue.store import open_store
from oncue.store.postgres import state
from oncue.store.postgres.clock import ServerClock
from oncue.store.postgres.schema import VERSION
from oncue.store.views import Check
from tests import pg, pgfaults
from tests.postgres.conftest import Base

Doctor = Callable[..., dict[str, Health]]
Checked = Callable[..., dict[str, Check]]


@pytest.fixture
def doctor(base: Base) -> Doctor:
    """What the command finds, by name; the tables are there."""
    assert CliRunner().invoke(main, ["migrate", "--database", base.url]).exit_code == 0

    def look(url: str = base.url) -> dict[str, Health]:
        done = CliRunner().invoke(main, ["doctor", "--json", "--database", url])
        answer = json.loads(done.stdout)
        assert done.exit_code == (0 if answer["ok"] else 1)
        return {one["name"]: Health(**one) for one in answer["checks"]}

    return look


@pytest.fixture
def checked(base: Base, doctor: Doctor) -> Checked:
    """What the store alone finds, by name."""

    async def look(url: str) -> dict[str, Check]:
        store = open_store(url, SystemClock())
        await store.open(migrate=False)
        try:
            return {one.name: one for one in await store.check()}
        finally:
            await store.close()

    return lambda url=base.url: asyncio.run(look(url))


@pytest.fixture
def other(base: Base) -> Iterator[psycopg.Connection]:
    with psycopg.connect(base.url) as conn:
        yield conn
        conn.rollback()


async def test_with_a_worker_on_a_durable_server_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRON_SECRET", "a-secret-of-some-length")
    with pg.Server(pg.NEWEST, pg.DURABLE) as server:
        url = server.create_database().dsn
        app = OnCue(url)
        async with app.worker():
            await app.store.prune(app.clock.now(), 10)
            done = await asyncio.to_thread(CliRunner().invoke, main, ["doctor", "--json", "--database", url])
        answer = json.loads(done.stdout)
        assert {one["state"] for one in answer["checks"]} == {"ok"}, answer
        assert done.exit_code == 0
        assert len({one["name"] for one in answer["checks"]}) == len(answer["checks"])


def test_a_server_that_may_lose_what_was_promised_fails(base: Base, checked: Checked) -> None:
    base.run(f"ALTER DATABASE {base.name} SET synchronous_commit = off")
    assert checked()["durability"].level == "FAIL"
    assert "synchronous_commit=off" in checked()["durability"].found
    assert "synchronous_commit" in checked()["durability"].remedy


def test_it_looks_for_every_table(base: Base, doctor: Doctor) -> None:
    tables = {row[0] for row in base.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'oncue'")}
    assert tables == set(state._TABLES)


def test_missing_tables_fail(base: Base, doctor: Doctor) -> None:
    base.run("DROP TABLE oncue.oncue_finished; DROP TABLE oncue.oncue_limit")
    found = doctor()
    assert found["tables"].found == "missing: oncue_finished, oncue_finished_rest, oncue_limit"
    assert found["history"].state == "fail"
    assert "lacks something of OnCue's tables" in found["discarded"].found
    assert found["queues"].state == "ok"


def test_newer_tables_that_serve_are_a_warning(base: Base, doctor: Doctor) -> None:
    base.run("UPDATE oncue.oncue_counter SET value = value + 1 WHERE name = 'schema'")
    assert doctor()["schema"].state == "warn"
    known = f"schema version {VERSION + 1}; this OnCue knows {VERSION} and goes on with it"
    assert known in doctor()["schema"].found
    base.run(f"UPDATE oncue.oncue_counter SET value = {VERSION + 1} WHERE name = 'schema_oldest'")
    assert "Upgrade oncue here" in doctor()["database"].found


def test_a_role_that_may_not_all_is_told_what_it_lacks(base: Base, checked: Checked, role: Callable[[], str]) -> None:
    name = role()
    base.run(f"""
        GRANT USAGE ON SCHEMA oncue TO {name};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA oncue TO {name};
        REVOKE DELETE ON oncue.oncue_job FROM {name}""")
    found = checked(base.url_of(name))["privileges"]
    assert found.level == "warn"
    assert "it lacks DELETE on oncue_job; USAGE on oncue_" in found.found
    base.run(f"GRANT DELETE ON oncue.oncue_job TO {name}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA oncue TO {name}")
    assert checked(base.url_of(name))["privileges"].level == "ok"
    assert "owns the tables" in checked(base.url_of(name))["history"].remedy


def test_limits_of_the_role_that_are_too_low(base: Base, checked: Checked, role: Callable[[], str]) -> None:
    name = role()
    base.run(f"""
        ALTER ROLE {name} SUPERUSER CONNECTION LIMIT 6;
        ALTER ROLE {name} SET statement_timeout = '1s'""")
    found = checked(base.url_of(name))
    assert found["timeouts"].level == "warn"
    assert "statement_timeout = 1000 ms" in found["timeouts"].found
    assert found["connections"].level == "warn"
    assert "the role has 1 of 6" in found["connections"].found
    assert {one.level for one in (checked()["timeouts"], checked()["connections"])} == {"ok"}


def test_an_idle_session_that_holds_jobs_is_named(
    base: Base, checked: Checked, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_IDLE_SECONDS", 0)
    other.execute("SELECT * FROM oncue.oncue_job")
    assert checked()["transactions"].level == "ok"
    other.execute("UPDATE oncue.oncue_job SET priority = 0")
    found = checked()["transactions"]
    assert found.level == "warn"
    assert f"session {other.info.backend_pid} (postgres)" in found.found
    assert "pg_terminate_backend" in found.remedy


def test_a_role_that_may_not_read_a_table_hears_of_all_else(
    base: Base, doctor: Doctor, role: Callable[[], str]
) -> None:
    name = role()
    base.run(f"""
        GRANT USAGE ON SCHEMA oncue TO {name};
        GRANT SELECT ON ALL TABLES IN SCHEMA oncue TO {name};
        REVOKE SELECT ON oncue.oncue_worker FROM {name}""")
    found = doctor(base.url_of(name))
    told = f"role {name} may not do that (permission denied for table oncue_worker). GRANT what docs/"
    assert told in found["workers"].found
    assert {found[one].state for one in ("workers", "tasks", "clock")} == {"fail"}
    assert {found[one].state for one in ("database", "queues", "discarded", "schedules", "blockers")} == {"ok"}


def test_a_role_that_is_blind_to_other_sessions_says_so(
    base: Base, checked: Checked, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, role: Callable[[], str]
) -> None:
    name = role()
    base.run(f"""
        GRANT USAGE ON SCHEMA oncue TO {name};
        GRANT SELECT ON ALL TABLES IN SCHEMA oncue TO {name}""")
    monkeypatch.setattr(state, "_IDLE_SECONDS", 0)
    other.execute("UPDATE oncue.oncue_job SET priority = 0")
    found = checked(base.url_of(name))
    assert found["transactions"].level == "warn"
    assert found["transactions"].found == f"role {name} can't see other roles' sessions"
    assert found["transactions"].remedy == f"GRANT pg_read_all_stats TO {name}"
    # Ours and the other one at least.
    assert int(found["connections"].found.partition(" ")[0]) >= 2
    base.run(f"GRANT pg_read_all_stats TO {name}")
    assert f"session {other.info.backend_pid} (postgres)" in checked(base.url_of(name))["transactions"].found


def test_an_old_transaction_that_holds_back_vacuum_is_named(
    base: Base, checked: Checked, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checked()["transactions"].level == "ok"
    other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    other.execute("SELECT 1")
    monkeypatch.setattr(state, "_OLD_SECONDS", 0)
    found = checked()["transactions"]
    assert "old ones hold back vacuum" in found.found
    assert f"session {other.info.backend_pid}" in found.found


def test_dead_rows_that_pile_up(base: Base, checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "_ROWS", 50)
    base.run("""
        ALTER TABLE oncue.oncue_job SET (autovacuum_enabled = false);
        INSERT INTO oncue.oncue_job (scheduled_at, eligible_at, created_at, priority, max_attempts, task, args, queue)
        SELECT 1, 1, 1, 0, 1, 't', '{}', 'q' FROM generate_series(1, 100)""")
    assert checked()["vacuum"].level == "ok"
    base.run("DELETE FROM oncue.oncue_job")
    assert checked()["vacuum"].level == "warn"
    assert "100 dead ones" in checked()["vacuum"].found


def test_clocks_that_differ(checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked()["clock skew"].level == "ok"
    monkeypatch.setattr(ServerClock, "skew", -300.0)
    found = checked()["clock skew"]
    assert (found.level, "300.000 s behind this machine's" in found.found) == ("warn", True)
    assert "NTP" in found.remedy


def test_a_server_that_takes_no_writes_is_one_line(base: Base, doctor: Doctor) -> None:
    base.run(f"ALTER DATABASE {base.name} SET default_transaction_read_only = on")
    assert "takes no writes now" in doctor()["database"].found


def test_a_pooler_is_seen_and_has_to_be_told_of(pg_database: pg.Database, pgbouncer: pgfaults.PgBouncer) -> None:
    runner = CliRunner()
    assert runner.invoke(main, ["migrate", "--database", pg_database.dsn]).exit_code == 0
    url = pgbouncer.dsn(pg_database.dsn)

    def found(url: str) -> dict[str, dict[str, str]]:
        answer = json.loads(runner.invoke(main, ["doctor", "--json", "--database", url]).stdout)
        return {one["name"]: one for one in answer["checks"]}

    assert "a pooler stands between us and PostgreSQL" in found(url)["database"]["found"]
    assert "Add pgbouncer=true to the URL" in found(url)["database"]["found"]
    told = found(f"{url}?pgbouncer=true")
    assert told["pooler"]["state"] == "ok"
    assert "a pooler stands between, as the URL says" in told["pooler"]["found"]
    assert told["wake"]["state"] == "warn"
    assert "LISTEN" in told["wake"]["found"]
