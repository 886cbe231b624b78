"""Renewing leases beside the writing thread."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from oncue.store.sqlite.connection import connect, translated
from oncue.store.sqlite.run import SQL


class LeaseKeeper:
    """Renews a worker's lease on its own connection; used by one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._conn: sqlite3.Connection | None = None

    def extend(self, worker: int, now: int, lease: int) -> bool:
        """Renew the lease until ``now + lease``; False where the worker's jobs were taken back."""
        with translated(self._path):
            if self._conn is None:
                self._conn = connect(self._path)
            values = {"until": now + lease, "now": now, "worker": worker}
            return self._conn.execute(SQL["extend_lease"], values).rowcount == 1

    def close(self) -> None:
        """Close the connection."""
        if self._conn is not None:
            self._conn.close()
