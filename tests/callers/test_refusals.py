"""What can't take part is refused with what to do instead, and nothing is stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy
from django.db.utils import ConnectionHandler
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as alchemy_async

from oncue import OnCue
from oncue.errors import InvalidJob
from tests import databases, pg
from tests.callers.conftest import make_app
from tests.callers.kinds import Caller, django_settings


async def _refused(app: OnCue, connection: Any, match: str) -> None:
    call = app.tasks["work"].call()
    with pytest.raises(InvalidJob, match=match):
        await app.schedule(call, connection=connection)
    with pytest.raises(InvalidJob, match=match):
        await app.cancel(key="k", connection=connection)
    with pytest.raises(InvalidJob, match=match):
        await app.reschedule(key="k", delay=1, connection=connection)
    _refused_sync(app, connection, match)
    assert await app.jobs.list() == []


def _refused_sync(app: OnCue, connection: Any, match: str) -> None:
    call = app.tasks["work"].call()
    with pytest.raises(InvalidJob, match=match):
        app.sync.schedule_many([call], connection=connection)
    with pytest.raises(InvalidJob, match=match):
        app.sync.cancel(key="k", connection=connection)
    with pytest.raises(InvalidJob, match=match):
        app.sync.reschedule(key="k", delay=1, connection=connection)


@pytest.fixture
def other(url: str) -> Any:
    """A copy of the database, as a backup that was restored beside it: its tables bear the same identity."""
    server = pg.running(int(databases.POSTGRES[0].removeprefix("postgres")))
    with server.database(template=url.rpartition("/")[2]) as made:
        yield made.dsn


async def test_to_another_database(other: str, app: OnCue, opened: Callable[..., Any]) -> None:
    caller: Caller = await opened(at=other)
    await caller.execute("INSERT INTO mine VALUES (1)")
    match = r"open on the database 'oncue_test_.*but the jobs live in postgresql://.*leave connection= out"
    for _ in range(2):
        with pytest.raises(InvalidJob, match=match):
            await caller.schedule()
    await caller.commit()
    assert await caller.execute("SELECT x FROM mine") == [(1,)], "the caller's transaction went on"


async def test_to_another_database_of_the_same_name(app: OnCue, caller: Caller) -> None:
    await caller.execute("UPDATE oncue.oncue_counter SET value = 7 WHERE name = 'identity'")
    with pytest.raises(InvalidJob, match="of that name but another one, but the jobs live in"):
        await caller.schedule()
    await caller.rollback()


async def test_without_tables(app: OnCue, caller: Caller) -> None:
    await caller.execute("DROP SCHEMA oncue CASCADE")
    await caller.commit()
    with pytest.raises(InvalidJob, match=r"without OnCue's tables in schema 'oncue'.*oncue migrate"):
        await caller.schedule()
    assert await caller.execute("SELECT count(*) FROM mine") == [(0,)]
    await caller.rollback()


async def test_with_tables_of_another_version(url: str, app: OnCue) -> None:
    for name, value, match in (("schema", 0, "oncue migrate"), ("schema_oldest", 99, "Upgrade oncue here")):
        with psycopg.connect(url) as connection:
            connection.execute(f"UPDATE oncue.oncue_counter SET value = {value} WHERE name = '{name}'")
            with pytest.raises(InvalidJob, match=match):
                app.sync.schedule(app.tasks["work"].call(), connection=connection)
            connection.rollback()


async def test_closed_ones(app: OnCue, url: str) -> None:
    closed = "connection= is closed, or was given back to its pool"
    with psycopg.connect(url) as sync:
        pass
    await _refused(app, sync, closed)
    old = psycopg2.connect(url)
    old.close()
    await _refused(app, old, closed)
    connection = await asyncpg.connect(url)
    await connection.close()
    asynchronous = await psycopg.AsyncConnection.connect(url)
    await asynchronous.close()
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
        async with pool.acquire() as lent:
            pass
        for one in (connection, asynchronous, lent):
            with pytest.raises(InvalidJob, match=closed):
                await app.schedule(app.tasks["work"].call(), connection=one)


async def test_closed_ones_of_sqlalchemy(app: OnCue, url: str) -> None:
    engine = sqlalchemy.create_engine(url.replace("postgresql", "postgresql+psycopg", 1))
    with engine.connect() as connection:
        pass
    await _refused(app, connection, "can't be used here: This Connection is closed")
    with orm.Session(engine, autobegin=False) as session:
        await _refused(app, session, "can't be used here: Autobegin is disabled")
    with orm.Session() as session:
        await _refused(app, session, "can't be used here: .*not bound to a single Engine")
    with orm.Session(engine) as session:
        with pytest.raises(sqlalchemy.exc.DBAPIError), session.begin_nested():
            session.execute(sqlalchemy.text("SELECT 1 / 0"))
        app.sync.schedule(app.tasks["work"].call(), connection=session)
    engine.dispose()
    asynchronous = alchemy_async.create_async_engine(url.replace("postgresql", "postgresql+asyncpg", 1))
    with pytest.raises(InvalidJob, match="can't be used here: .*not been started"):
        await app.schedule(app.tasks["work"].call(), connection=asynchronous.connect())
    async with asynchronous.connect() as connection_of_it:
        assert connection_of_it.sync_connection is not None
        with pytest.raises(InvalidJob, match="can't be used here: .*greenlet"):
            app.sync.schedule(app.tasks["work"].call(), connection=connection_of_it.sync_connection)
    await asynchronous.dispose()
    assert await app.jobs.list() == []


async def test_what_is_no_connection(app: OnCue, url: str, tmp_path: Path) -> None:
    takes = "takes an asyncpg, psycopg or psycopg2 connection.*not a "
    with closing(sqlite3.connect(tmp_path / "own.db")) as file:
        await _refused(app, file, takes + "Connection")
    for wrong in (7, url, object()):
        await _refused(app, wrong, takes + type(wrong).__name__)
    engine = sqlalchemy.create_engine(url.replace("postgresql", "postgresql+psycopg", 1))
    await _refused(app, engine, takes + "Engine.*Take a connection from it first")
    await _refused(app, orm.sessionmaker(engine), takes + "sessionmaker.*Take a connection from it first")
    async with asyncpg.create_pool(url, min_size=0) as pool:
        await _refused(app, pool, takes + "Pool.*Take a connection from it first")


async def test_to_databases_of_other_kinds(app: OnCue, tmp_path: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'own.db'}")
    with orm.Session(engine) as session:
        await _refused(app, session, r"SQLAlchemy's sqlite\+pysqlite.*Use one of those")
    engine.dispose()
    handler = ConnectionHandler({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path / "own.db"}})
    await _refused(app, handler["default"], "Django's to sqlite.*but the jobs live in")


async def test_asynchronous_ones_in_a_synchronous_call(app: OnCue, url: str) -> None:
    engine = alchemy_async.create_async_engine(url.replace("postgresql", "postgresql+asyncpg", 1))
    connection = await asyncpg.connect(url)
    async with (
        await psycopg.AsyncConnection.connect(url) as psycopg_connection,
        alchemy_async.AsyncSession(engine) as session,
        engine.connect() as alchemy_connection,
    ):
        for one in (connection, psycopg_connection, session, alchemy_connection):
            _refused_sync(app, one, r"takes a synchronous connection, not a .*await app\.schedule.*await ctx\.complete")
    await connection.close()
    await engine.dispose()


async def test_djangos_in_a_coroutine(app: OnCue, url: str) -> None:
    connection = ConnectionHandler(django_settings(url))["default"]
    await _refused(app, connection, "Django's connection can't be used in a coroutine.*sync_to_async")


async def test_synchronous_ones_in_an_asynchronous_call_do(app: OnCue, url: str) -> None:
    call = app.tasks["work"].call()
    engine = sqlalchemy.create_engine(url.replace("postgresql", "postgresql+psycopg", 1))
    with psycopg.connect(url) as connection, orm.Session(engine) as session:
        await app.schedule(call, key="a", delay=99, connection=connection)
        await app.schedule(call, key="b", delay=99, connection=session)
        assert await app.jobs.list() == []
        connection.commit()
        session.commit()
        assert await app.cancel(key="a", connection=connection) == "prevented"
    engine.dispose()
    assert sorted((job.key or "", job.state) for job in await app.jobs.list()) == [
        ("a", "cancelled"),
        ("b", "scheduled"),
    ]


async def test_an_application_that_was_never_opened(url: str, other: str) -> None:
    app = make_app(url)
    with psycopg.connect(other) as wrong, pytest.raises(InvalidJob, match="but the jobs live in"):
        app.sync.schedule(app.tasks["work"].call(), connection=wrong)
    with psycopg.connect(url) as connection:
        app.sync.schedule(app.tasks["work"].call(), delay=99, connection=connection)
    asynchronous = await asyncpg.connect(url)
    await app.schedule(app.tasks["work"].call(), delay=99, connection=asynchronous)
    await asynchronous.close()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM oncue.oncue_job").fetchall() == [(2,)]
    await app.store.close()
