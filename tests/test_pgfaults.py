"""The faults that tests put between a client and PostgreSQL are really there, and go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests import pg, pgfaults

# Long enough for an answer on loopback: what has not come by then is held back.
PATIENCE = 0.3
DEADLINE = 30.0

LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


@pytest.fixture
def dsn(pg_database: pg.Database, pg_proxy: pgfaults.Proxy) -> Iterator[str]:
    yield pg_proxy.dsn(pg_database.dsn)
    pg_proxy.heal()


@asynccontextmanager
async def session(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn, timeout=DEADLINE, statement_cache_size=0)
    try:
        yield connection
    finally:
        connection.terminate()


async def comes(task: asyncio.Task[object]) -> bool:
    done, _ = await asyncio.wait([task], timeout=PATIENCE)
    return bool(done)


async def test_without_a_fault_it_passes_everything_on(dsn: str, pg_proxy: pgfaults.Proxy) -> None:
    async with session(dsn) as connection:
        assert pg_proxy.connections == 1
        assert await connection.fetchval("SELECT repeat('x', 1000000) || $1", "end") == "x" * 1_000_000 + "end"
    async with asyncio.timeout(DEADLINE):
        while pg_proxy.connections:  # noqa: ASYNC110 - the proxy's thread ends it
            await asyncio.sleep(0.01)


async def test_cut_resets_what_is_open_and_lets_new_connections_in(dsn: str, pg_proxy: pgfaults.Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", pg_proxy.port)
    async with session(dsn) as connection:
        waiting = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        pg_proxy.cut()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(LOST):
            await waiting
        assert pg_proxy.connections == 0
    writer.close()
    async with session(dsn) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_silence_holds_back_both_ways_and_closes_nothing(dsn: str, pg_proxy: pgfaults.Proxy) -> None:
    async with session(dsn) as connection:
        pg_proxy.silence()
        asked: asyncio.Task[object] = asyncio.create_task(connection.fetchval("SELECT 7"))
        fresh: asyncio.Task[object] = asyncio.create_task(asyncpg.connect(dsn, timeout=DEADLINE))
        assert not await comes(asked)
        assert not await comes(fresh)
        assert not connection.is_closed()
        pg_proxy.heal()
        assert await asked == 7
        late = await fresh
        assert isinstance(late, asyncpg.Connection)
        late.terminate()


async def test_silence_to_the_client_lets_the_server_work_and_hides_its_answer(
    dsn: str, pg_proxy: pgfaults.Proxy, pg_database: pg.Database
) -> None:
    async with session(dsn) as connection, session(pg_database.dsn) as beside:
        pg_proxy.silence("to_client")
        asked: asyncio.Task[object] = asyncio.create_task(connection.execute("CREATE TABLE t ()"))
        async with asyncio.timeout(DEADLINE):
            while await beside.fetchval("SELECT to_regclass('t')") is None:  # noqa: ASYNC110 - the server makes it
                await asyncio.sleep(0.01)
        assert not await comes(asked)
        # The end of the session is an answer too.
        await beside.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        assert not await comes(asked)
        pg_proxy.heal()
        assert await asked == "CREATE TABLE"


async def test_refuse_keeps_what_is_open(dsn: str, pg_proxy: pgfaults.Proxy) -> None:
    async with session(dsn) as connection:
        pg_proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", pg_proxy.port)
        assert await connection.fetchval("SELECT 1") == 1
        pg_proxy.heal()
        async with session(dsn) as fresh:
            assert await fresh.fetchval("SELECT 1") == 1


async def test_delay_brings_an_answer_later(dsn: str, pg_proxy: pgfaults.Proxy) -> None:
    async with session(dsn) as connection:
        pg_proxy.delay(2 * PATIENCE)
        asked: asyncio.Task[object] = asyncio.create_task(connection.execute("SELECT 7"))
        assert not await comes(asked)
        assert await asked == "SELECT 1"


async def test_a_server_that_is_down_ends_the_connection(pg_proxy: pgfaults.Proxy) -> None:
    with pgfaults.Proxy("postgresql://postgres@127.0.0.1:1/postgres") as proxy:
        with pytest.raises(LOST):
            await asyncpg.connect(proxy.dsn("postgresql://postgres@127.0.0.1:1/postgres"), timeout=DEADLINE)
        assert proxy.connections == 0


async def test_pgbouncer_gives_one_server_session_to_many_clients(pg_server: pg.Cluster) -> None:
    if pgfaults.PGBOUNCER is None:
        pytest.skip("PgBouncer isn't installed (Debian's package pgbouncer)")
    with pg_server.database() as database:
        with pgfaults.PgBouncer(database.dsn, settings={"default_pool_size": "1"}) as bouncer:
            dsn = bouncer.dsn(database.dsn)
            async with session(dsn) as first, session(dsn) as second:
                pids = [await each.fetchval("SELECT pg_backend_pid()") for each in (first, second, first)]
        assert len(set(pids)) == 1
        with pytest.raises(LOST):
            await asyncpg.connect(dsn, timeout=DEADLINE)
    assert not bouncer.folder.exists()


async def test_the_pgbouncer_fixture_reaches_the_database_of_a_test(
    pgbouncer: pgfaults.PgBouncer, pg_database: pg.Database
) -> None:
    async with session(pgbouncer.dsn(pg_database.dsn)) as connection:
        assert await connection.fetchval("SELECT current_database()") == pg_database.name
