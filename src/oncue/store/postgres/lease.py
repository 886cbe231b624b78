"""Renewing leases from a thread, on a connection of its own."""

from __future__ import annotations

import asyncio

import asyncpg

from oncue.dsn import PostgresUrl
from oncue.store.postgres.connection import Connection, connect
from oncue.store.postgres.run import named
from oncue.store.postgres.trouble import translate


class LeaseKeeper:
    """Renews a worker's lease; used by one thread, which has no event loop but this one's."""

    def __init__(self, url: PostgresUrl) -> None:
        self._url = url
        self._runner = asyncio.Runner()
        self._conn: Connection | None = None

    def extend(self, worker: int, now: int, lease: int) -> bool:
        """Renew the lease until ``now + lease``; False where the worker's jobs were taken back. Raises a StoreError."""
        return self._runner.run(self._extend(worker, now, lease))

    async def _extend(self, worker: int, now: int, lease: int) -> bool:
        patience = lease / 3e6
        text, args = named("extend_lease", self._url.schema, {"worker": worker, "now": now, "until": now + lease})
        try:
            async with asyncio.timeout(patience):
                if self._conn is None or self._conn.is_closed():
                    self._conn = await connect(self._url, patience)
                return await self._conn.execute(text, *args) == "UPDATE 1"
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            if self._conn is not None:
                self._conn.terminate()
                self._conn = None
            raise translate(error, self._url) from error

    def close(self) -> None:
        """Close the connection."""
        if self._conn is not None and not self._conn.is_closed():
            self._conn.terminate()
        self._runner.close()
