"""Whatever a caller has set on a connection for its own use, our statements work, and its settings stay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import asyncpg
import psycopg
import psycopg2
import psycopg2.extras
import pytest
from django.db import connections, transaction
from psycopg.rows import dict_row
from psycopg.types import json as psycopg_json
from sqlalchemy.ext import asyncio as alchemy_async

from oncue import OnCue
from oncue.errors import InvalidJob
from oncue.store.postgres.links import sqlstate
from tests.callers.kinds import django_settings


async def _states(app: OnCue) -> list[tuple[str | None, str]]:
    return sorted([(job.key, job.state) for job in await app.jobs.list()], key=str)


async def _all_calls(app: OnCue, connection: Any) -> None:
    call = app.tasks["work"].call("100%")
    first = await app.schedule(call, delay=3600, key="k", group="g", connection=connection)
    assert (await app.schedule(call, key="k", connection=connection)).status == "kept"
    made = await app.schedule(call, delay=60, key="k", on_conflict="replace", connection=connection)
    assert (made.id, made.status) == (first.id, "replaced")
    await app.schedule_many([call, call], connection=connection)
    assert await app.reschedule(key="k", delay=120, connection=connection)
    assert await app.cancel(key="k", connection=connection) == "prevented"


DONE = sorted([(None, "scheduled"), (None, "scheduled"), ("k", "cancelled")], key=str)


@pytest.mark.parametrize("cursor_factory", [psycopg.Cursor, psycopg.ClientCursor, psycopg.RawCursor])
async def test_psycopg_cursors_rows_and_loaders(app: OnCue, url: str, cursor_factory: Any) -> None:
    with psycopg.connect(url, row_factory=dict_row, cursor_factory=cursor_factory) as connection:
        psycopg_json.set_json_loads(lambda text: pytest.fail("our answers are text"), connection)
        connection.prepare_threshold = None
        await _all_calls(app, connection)
        assert connection.row_factory is dict_row
    assert await _states(app) == DONE


async def test_psycopg_asynchronous_rows(app: OnCue, url: str) -> None:
    async with await psycopg.AsyncConnection.connect(
        url, row_factory=dict_row, cursor_factory=psycopg.AsyncClientCursor
    ) as connection:
        await _all_calls(app, connection)
    assert await _states(app) == DONE


@pytest.mark.parametrize("autocommit", [False, True])
async def test_psycopg_pipelines(app: OnCue, url: str, autocommit: bool) -> None:
    with psycopg.connect(url, autocommit=autocommit) as connection:
        with connection.pipeline():
            connection.execute("INSERT INTO mine VALUES (1)")
            await _all_calls(app, connection)
            connection.execute("INSERT INTO mine VALUES (2)")
            connection.execute("SET lock_timeout = '50ms'")
            with psycopg.connect(url) as other:
                app.sync.schedule(app.tasks["work"].call(), key="held", connection=other)
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    app.sync.schedule(app.tasks["work"].call(), key="held", connection=connection)
                other.rollback()
            connection.execute("INSERT INTO mine VALUES (3)")
        assert [row[0] for row in connection.execute("SELECT x FROM mine ORDER BY x").fetchall()] == [1, 2, 3]
    assert await _states(app) == DONE


@pytest.mark.parametrize("autocommit", [False, True])
async def test_psycopg_asynchronous_pipelines(app: OnCue, url: str, autocommit: bool) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=autocommit) as connection:
        async with connection.pipeline():
            await connection.execute("INSERT INTO mine VALUES (1)")
            await _all_calls(app, connection)
            await connection.execute("INSERT INTO mine VALUES (2)")
        assert len(await (await connection.execute("SELECT x FROM mine")).fetchall()) == 2
    assert await _states(app) == DONE


async def test_psycopg_transaction_blocks(app: OnCue, url: str) -> None:
    call = app.tasks["work"].call()
    with psycopg.connect(url, autocommit=True) as connection:
        with connection.transaction():
            app.sync.schedule(call, key="a", connection=connection)
            with connection.transaction(force_rollback=True):
                app.sync.schedule(call, key="b", connection=connection)
            assert await _states(app) == []
        assert await _states(app) == [("a", "scheduled")]


class _Rows(asyncpg.Record):
    def __getitem__(self, key: Any) -> Any:
        # asyncpg itself reads them, by name.
        return super().__getitem__(key) if isinstance(key, str) else pytest.fail("we read the caller's own records")


@pytest.fixture
async def coded(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url, record_class=_Rows, statement_cache_size=0)
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    yield connection
    await connection.close()


async def test_asyncpg_records_and_codecs(app: OnCue, coded: Any) -> None:
    async with coded.transaction():
        await _all_calls(app, coded)
        assert await _states(app) == []
    assert await _states(app) == DONE


async def test_psycopg2_cursors(app: OnCue, url: str) -> None:
    with closing(psycopg2.connect(url, cursor_factory=psycopg2.extras.RealDictCursor)) as connection:
        await _all_calls(app, connection)
        connection.commit()
    assert await _states(app) == DONE


async def test_a_search_path_and_a_time_zone_of_the_callers_own(app: OnCue, url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("SET search_path = pg_catalog; SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = German")
        await _all_calls(app, connection)
        connection.commit()
    assert await _states(app) == DONE


async def test_a_session_that_runs_synchronous_code(app: OnCue, url: str) -> None:
    engine = alchemy_async.create_async_engine(url.replace("postgresql", "postgresql+asyncpg", 1))
    call = app.tasks["work"].call()
    async with alchemy_async.AsyncSession(engine) as session:
        async with session.begin():
            await session.run_sync(lambda inner: app.sync.schedule(call, key="a", connection=inner))
            nested = await session.begin_nested()
            await app.schedule(call, key="b", connection=session)
            await nested.rollback()
        async with session.begin():
            await app.schedule(call, key="c", connection=session)
            await session.rollback()
    await engine.dispose()
    assert await _states(app) == [("a", "scheduled")]


def _schedule_and_fail(app: OnCue, connection: Any) -> None:
    with transaction.atomic():
        app.sync.schedule(app.tasks["work"].call(), key="b", connection=connection)
        raise ZeroDivisionError


def _in_atomic_blocks(app: OnCue, url: str) -> None:
    connections.settings = connections.configure_settings(django_settings(url))
    call = app.tasks["work"].call()
    connection = connections["default"]
    with transaction.atomic():
        app.sync.schedule(call, key="a", connection=connection)
        with pytest.raises(ZeroDivisionError):
            _schedule_and_fail(app, connection)
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '50ms'")
        with psycopg.connect(url) as other:
            app.sync.schedule(call, key="held", connection=other)
            with pytest.raises(Exception, match="lock timeout") as caught:
                app.sync.schedule(call, key="held", connection=connection)
            other.rollback()
        assert sqlstate(caught.value) == "55P03"
        app.sync.schedule(call, key="c", connection=connection)
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(InvalidJob, match="has failed already"):
            app.sync.schedule(call, key="d", connection=connection)
    app.sync.schedule(call, key="e", connection=connection)
    connection.close()


async def test_djangos_atomic_blocks(app: OnCue, url: str) -> None:
    await asyncio.to_thread(_in_atomic_blocks, app, url)
    assert await _states(app) == [("a", "scheduled"), ("c", "scheduled"), ("e", "scheduled")]
