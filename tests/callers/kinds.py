"""Callers of every kind: a connection with a transaction of its own, used alike whatever its driver is called for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import django
import psycopg
import psycopg2
import sqlalchemy
from django.conf import settings
from django.db.utils import ConnectionHandler
from django.utils.connection import ConnectionProxy
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as alchemy_async

from oncue import OnCue

if not settings.configured:
    settings.configure(USE_TZ=True)
    django.setup()


@dataclass
class Caller:
    """One connection of a caller. ``execute`` runs the caller's own SQL and returns its rows, [] where it has none.

    Synchronous ones live in a thread of their own, where ``run`` calls a function.
    """

    app: OnCue
    connection: Any
    is_async: bool
    execute: Callable[[str], Awaitable[list[tuple[Any, ...]]]]
    commit: Callable[[], Awaitable[None]]
    rollback: Callable[[], Awaitable[None]]
    run: Callable[[Callable[[], Any]], Awaitable[Any]]

    async def call(self, name: str, /, *args: Any, **options: Any) -> Any:
        """``app.schedule(..., connection=...)`` and so on, or ``app.sync.schedule(...)``, as the driver is."""
        if self.is_async:
            return await getattr(self.app, name)(*args, connection=self.connection, **options)
        return await self.run(partial(getattr(self.app.sync, name), *args, connection=self.connection, **options))

    async def schedule(self, token: str = "", **options: Any) -> Any:
        """Schedule the task "work" within this connection's transaction."""
        return await self.call("schedule", self.app.tasks["work"].call(token), **options)


Kind = Callable[[OnCue, str, bool], AsyncIterator[Caller]]
KINDS: dict[str, Any] = {}


def _kind(name: str) -> Callable[[Any], Any]:
    def add(opened: Any) -> Any:
        KINDS[name] = asynccontextmanager(opened)
        return opened

    return add


async def _direct(function: Callable[[], Any]) -> Any:
    return function()


async def _asyncpg(app: OnCue, connection: Any, autocommit: bool) -> AsyncIterator[Caller]:
    async def execute(sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await connection.fetch(sql)]

    async def end(how: str) -> None:
        await connection.execute(how if autocommit else f"{how}; BEGIN")

    if not autocommit:
        await connection.execute("BEGIN")
    yield Caller(app, connection, True, execute, partial(end, "COMMIT"), partial(end, "ROLLBACK"), _direct)


@_kind("asyncpg")
async def _asyncpg_connection(app: OnCue, dsn: str, autocommit: bool) -> AsyncIterator[Caller]:
    connection = await asyncpg.connect(dsn)
    async for caller in _asyncpg(app, connection, autocommit):
        yield caller
    await connection.close()


@_kind("asyncpg-pool")
async def _asyncpg_pool(app: OnCue, dsn: str, autocommit: bool) -> AsyncIterator[Caller]:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        async for caller in _asyncpg(app, connection, autocommit):
            yield caller


@_kind("psycopg-async")
async def _psycopg_async(app: OnCue, dsn: str, autocommit: bool) -> AsyncIterator[Caller]:
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit)

    async def execute(sql: str) -> list[tuple[Any, ...]]:
        cursor = await connection.execute(sql)
        return await cursor.fetchall() if cursor.description else []

    yield Caller(app, connection, True, execute, connection.commit, connection.rollback, _direct)
    await connection.close()


async def _sync(
    app: OnCue, autocommit: bool, make: Callable[[], Any], query: Callable[[Any, str], list[Any]]
) -> AsyncIterator[Caller]:
    """A caller whose connection ``make`` opens, in a thread of its own; it has commit(), rollback() and close()."""
    with ThreadPoolExecutor(1) as thread:

        async def run(function: Callable[[], Any]) -> Any:
            return await asyncio.get_running_loop().run_in_executor(thread, function)

        async def execute(sql: str) -> list[tuple[Any, ...]]:
            rows: list[Any] = await run(lambda: query(connection, sql))
            return [tuple(row) for row in rows]

        connection = await run(make)
        # What Django's proxy stands for depends on the thread that asks.
        commit, rollback = (partial(run, partial(_do, connection, name)) for name in ("commit", "rollback"))
        yield Caller(app, connection, False, execute, commit, rollback, run)
        await run(partial(_do, connection, "close"))


def _do(connection: Any, name: str) -> None:
    getattr(connection, name)()


def _by_cursor(connection: Any, sql: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


@_kind("psycopg")
async def _psycopg(app: OnCue, dsn: str, autocommit: bool) -> AsyncIterator[Caller]:
    async for caller in _sync(app, autocommit, lambda: psycopg.connect(dsn, autocommit=autocommit), _by_cursor):
        yield caller


@_kind("psycopg2")
async def _psycopg2(app: OnCue, dsn: str, autocommit: bool) -> AsyncIterator[Caller]:
    def connect() -> Any:
        connection = psycopg2.connect(dsn)
        connection.autocommit = autocommit
        return connection

    async for caller in _sync(app, autocommit, connect, _by_cursor):
        yield caller


def _result_rows(result: Any) -> list[Any]:
    return list(result.all()) if result.returns_rows else []


def _alchemy(name: str, driver: str, wrap: Callable[[Any], Any]) -> None:
    @_kind(name)
    async def _opened(app: OnCue, dsn: str, autocommit: bool) -> AsyncIterator[Caller]:
        options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
        engine = sqlalchemy.create_engine(dsn.replace("postgresql", f"postgresql+{driver}", 1), **options)

        def query(connection: Any, sql: str) -> list[Any]:
            return _result_rows(connection.execute(sqlalchemy.text(sql)))

        async for caller in _sync(app, autocommit, lambda: wrap(engine), query):
            yield caller
        engine.dispose()


_alchemy("sqlalchemy-session", "psycopg", orm.Session)
_alchemy("sqlalchemy-session-psycopg2", "psycopg2", orm.Session)
_alchemy("sqlalchemy-scoped", "psycopg", lambda engine: orm.scoped_session(orm.sessionmaker(engine)))
_alchemy("sqlalchemy-connection", "psycopg2", lambda engine: engine.connect())


def _alchemy_async(name: str, driver: str, wrap: Callable[[Any], Any]) -> None:
    @_kind(name)
    async def _opened(app: OnCue, dsn: str, autocommit: bool) -> AsyncIterator[Caller]:
        options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
        engine = alchemy_async.create_async_engine(dsn.replace("postgresql", f"postgresql+{driver}", 1), **options)
        connection = wrap(engine)
        if isinstance(connection, alchemy_async.AsyncConnection):
            await connection.start()

        async def execute(sql: str) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in _result_rows(await connection.execute(sqlalchemy.text(sql)))]

        yield Caller(app, connection, True, execute, connection.commit, connection.rollback, _direct)
        await connection.close()
        await engine.dispose()


def _async_scoped(engine: Any) -> Any:
    # Fixtures run in other tasks than the test: one scope for all.
    return alchemy_async.async_scoped_session(alchemy_async.async_sessionmaker(engine), lambda: None)


_alchemy_async("sqlalchemy-async-session", "asyncpg", alchemy_async.AsyncSession)
_alchemy_async("sqlalchemy-async-session-psycopg", "psycopg", alchemy_async.AsyncSession)
_alchemy_async("sqlalchemy-async-scoped", "asyncpg", _async_scoped)
_alchemy_async("sqlalchemy-async-connection", "asyncpg", lambda engine: engine.connect())


def django_settings(dsn: str) -> dict[str, Any]:
    """Django's DATABASES for a test's database."""
    parts = urlsplit(dsn)
    return {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": parts.path[1:],
            "USER": parts.username,
            "PASSWORD": parts.password or "",
            "HOST": parts.hostname,
            "PORT": parts.port,
        }
    }


def _django(name: str, choose: Callable[[ConnectionHandler], Any]) -> None:
    @_kind(name)
    async def _opened(app: OnCue, dsn: str, autocommit: bool) -> AsyncIterator[Caller]:
        def connect() -> Any:
            connection = choose(ConnectionHandler(django_settings(dsn)))
            connection.set_autocommit(autocommit)
            return connection

        async for caller in _sync(app, autocommit, connect, _by_cursor):
            yield caller


_django("django", lambda handler: handler["default"])
_django("django-proxy", lambda handler: ConnectionProxy(handler, "default"))
