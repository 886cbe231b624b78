"""The PostgreSQL servers that tests use: what a test may rely on when it starts, stops or kills one."""

from __future__ import annotations

import asyncpg

from tests import pg


async def test_a_database_of_the_shared_server_takes_asyncpg(pg_database: pg.Database) -> None:
    connection = await asyncpg.connect(pg_database.dsn)
    try:
        assert await connection.fetchval("SELECT current_database()") == pg_database.name
    finally:
        await connection.close()
