"""Renewing leases from a thread, on a connection of its own."""

from __future__ import annotations

import asyncio
import threading

from oncue.dsn import PostgresUrl
from oncue.store.postgres.connection import Connection, connect
from oncue.store.postgres.run import named
from oncue.store.postgres.trouble import TROUBLE, translate


class LeaseKeeper:
    """Renews a worker's lease; used by one thread. The loop that the driver needs runs in another."""

    def __init__(self, url: PostgresUrl) -> None:
        self._url = url
        self._conn: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def extend(self, worker: int, now: int, lease: int) -> bool:
        """Renew the lease until ``now + lease``; False where the worker's jobs were taken back. Raises a StoreError."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="oncue-lease", daemon=True)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._extend(worker, now, lease), self._loop).result()

    async def _extend(self, worker: int, now: int, lease: int) -> bool:
        # Short, so that a lease that can't be renewed is known to be over when it is.
        patience = lease / 5e6
        text, args = named("extend_lease", self._url.schema, {"worker": worker, "now": now, "until": now + lease})
        try:
            async with asyncio.timeout(patience):
                if self._conn is not None and self._conn.is_closed():
                    self._conn = None
                if self._conn is None:
                    self._conn = await connect(self._url, patience)
                return await self._conn.execute(text, *args) == "UPDATE 1"
        except TROUBLE as error:
            connected = self._conn is not None
            if self._conn is not None:
                self._conn.terminate()
                self._conn = None
            raise translate(error, self._url, connected=connected) from error

    def close(self) -> None:
        """Close the connection."""
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = None

    async def _disconnect(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            # The socket closes in the loop's next round.
            await asyncio.sleep(0)
