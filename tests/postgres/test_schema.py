"""``oncue migrate`` on PostgreSQL: once, under a lock, in any schema, by a role that may do it, and as text."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import psycopg
import pytest
from click.testing import CliRunner, Result

from oncue import OnCue
from oncue.cli import main
from oncue.clock import SystemClock
from oncue.errors import SchemaTooOld, StoreError
from oncue.store import open_store
from oncue.store.postgres import schema
from tests.postgres.conftest import Base, on_the_newest

LAST = schema.VERSION
TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = '{}'"


def migrate(url: str, *options: str) -> Result:
    return CliRunner().invoke(main, ["migrate", *options, "--database", url])


def test_it_makes_the_tables_and_says_when_there_is_nothing_to_do(base: Base) -> None:
    checked = migrate(base.url, "--check")
    assert (checked.exit_code, checked.output.endswith(f"schema oncue: version 0 of {LAST}\n")) == (1, True), (
        checked.output
    )
    assert base.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'oncue'") == 0
    assert migrate(base.url).output.endswith(f"migrated from version 0 to {LAST}\n")
    assert migrate(base.url, "--check").exit_code == 0
    assert migrate(base.url).output.endswith("nothing to do\n")
    assert migrate(base.url, "--sql").output.endswith("nothing to do\n")


def test_the_sql_that_it_prints_makes_the_same_tables(base: Base) -> None:
    columns = """
        SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
        WHERE table_schema = '{0}' UNION ALL
        SELECT tablename, indexname, replace(indexdef, '{0}.', ''), '', '' FROM pg_indexes WHERE schemaname = '{0}'
        ORDER BY 1, 2"""
    url = f"{base.url}?schema=by_hand"
    printed = migrate(url, "--sql").output
    base.run(printed)
    assert migrate(url, "--check").exit_code == 0
    assert migrate(url).output.endswith("nothing to do\n")
    assert migrate(base.url).exit_code == 0
    assert base.rows(columns.format("by_hand")) == base.rows(columns.format("oncue")) != []
    # Once more it fails as a whole, and nothing is changed.
    with pytest.raises(psycopg.errors.DuplicateTable):
        base.run(printed)
    assert migrate(url, "--check").exit_code == 0


async def test_each_schema_has_tables_of_its_own(base: Base) -> None:
    one, two = (OnCue(f"{base.url}?schema={name}") for name in ("one", "two"))

    @one.task(name="greet")
    async def greet() -> None: ...

    async with one, two:
        await one.schedule(greet.call(), delay=3600)
        assert ((await one.jobs.counts()).scheduled, (await two.jobs.counts()).scheduled) == (1, 0)
    assert base.value(TABLES.format("public")) == 0


async def test_many_who_start_at_once_make_the_tables_once(base: Base) -> None:
    stores = [open_store(base.url, SystemClock()) for _ in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(store.close() for store in stores))
    assert (await asyncio.to_thread(migrate, base.url, "--check")).exit_code == 0


def test_a_schema_that_exists_is_enough(base: Base, role: Callable[[], str]) -> None:
    name = role()
    base.run(f"CREATE SCHEMA cue AUTHORIZATION {name}")
    done = migrate(f"{base.url_of(name)}?schema=cue")
    assert done.exit_code == 0, done.output
    assert base.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'cue' AND tableowner <> '" + name + "'") == 0


@pytest.mark.parametrize("exists", [True, False], ids=["schema exists", "no schema"])
def test_a_role_that_may_not_is_told_the_grant_that_helps(base: Base, role: Callable[[], str], exists: bool) -> None:
    name = role()
    if exists:
        base.run(f"CREATE SCHEMA oncue; GRANT USAGE ON SCHEMA oncue TO {name}")
    done = migrate(base.url_of(name))
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    grant = re.search(r"GRANT .*?;", done.output)
    assert grant is not None, done.output
    base.run(grant[0])
    assert migrate(base.url_of(name)).exit_code == 0


def test_a_role_that_may_not_look_gets_one_line(base: Base, role: Callable[[], str]) -> None:
    assert migrate(base.url).exit_code == 0
    for command in (["workers"], ["doctor"], ["migrate"]):
        done = CliRunner().invoke(main, [*command, "--database", base.url_of(role())])
        assert done.exit_code == 1
        assert "permission denied for schema oncue" in done.output
        assert "docs/how-to/postgresql.md" in done.output


def test_other_commands_never_make_tables(base: Base) -> None:
    for command in (["jobs", "list"], ["workers"], ["queues", "list"], ["schedules", "list"], ["restored"], ["doctor"]):
        done = CliRunner().invoke(main, [*command, "--database", base.url])
        assert done.exit_code == 1, command
        assert "Run `oncue migrate`" in done.output, command
    missing = CliRunner().invoke(main, ["jobs", "list", "--database", f"{base.url}_missing"])
    assert "does not exist" in missing.output
    assert base.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'oncue'") == 0


async def test_a_store_that_may_not_migrate_changes_nothing(base: Base) -> None:
    store = open_store(base.url, SystemClock())
    with pytest.raises(SchemaTooOld, match="no OnCue tables in schema 'oncue'"):
        await store.open(migrate=False)
    assert base.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'oncue'") == 0


@on_the_newest
def test_a_server_that_is_away_is_one_line(base: Base) -> None:
    url = re.sub(r":\d+/", ":1/", base.url) + "?connect_timeout=1"
    done = CliRunner().invoke(main, ["migrate", "--database", url])
    assert done.exit_code == 1
    assert "can't be reached" in done.output
    assert done.output.count("\n") == 1


async def test_taken_back_the_users_tables_can_be_written(base: Base) -> None:
    base.run("CREATE TABLE trials (id int PRIMARY KEY, due timestamptz)")
    app = OnCue(f"{base.url}?schema=cue")

    @app.task(name="greet")
    async def greet() -> None: ...

    app.source(
        name="t", table="trials", key="k-{id}", due="due", task=greet, args=lambda row: greet.call(), trigger=True
    )
    triggers = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"
    async with app:
        await app.service(worker=False).sweep()
        assert base.value(triggers) != 0
    for number in range(LAST, 0, -1):
        base.run(schema.backward(number, "cue"))
    base.run("INSERT INTO trials VALUES (1, now())")
    assert (base.value(triggers), base.value(TABLES.format("cue"))) == (0, 0)
    async with app:
        await app.service(worker=False).sweep()
        assert (await app.jobs.counts()).due == 1


def test_steps_keep_the_rule_for_rolling_deploys() -> None:
    for number, step in enumerate(schema.MIGRATIONS, 1):
        assert step.oldest <= max(1, number - 1), f"step {number} breaks processes that know version {number - 1}"


async def test_unknown_errors_while_migrating_leave_nothing(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = schema.Migration("CREATE TABLE oncue_counter (a int); SELECT 1/0;", "", oldest=1)
    monkeypatch.setattr(schema, "MIGRATIONS", (broken, *schema.MIGRATIONS[1:]))
    with pytest.raises(StoreError, match="division by zero"):
        await open_store(base.url, SystemClock()).open()
    assert base.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'oncue'") == 0
