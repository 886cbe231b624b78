"""The databases that tests run on: SQLite, and the oldest and the newest PostgreSQL that is installed.

KINDS is for what the database itself decides; USUAL, without the oldest, for logic that stands on a store, and
NEWEST for commands and processes. ONCUE_ALL_DATABASES=1 makes them all of them.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from oncue import OnCue
from oncue.clock import SystemClock
from oncue.store import open_store
from oncue.store.postgres.run import qualified
from oncue.store.sqlite import SqliteStore
from tests import pg

POSTGRES = tuple(f"postgres{version}" for version in dict.fromkeys((pg.NEWEST, pg.OLDEST)) if version) or ("postgres0",)
KINDS = ("sqlite", *POSTGRES)
NEWEST = POSTGRES if os.environ.get("ONCUE_ALL_DATABASES") else POSTGRES[:1]
USUAL = ("sqlite", *NEWEST)


@dataclass(frozen=True)
class Backend:
    """A database of one test: its URL, and a connection as a user would open it for a transaction of their own."""

    url: str
    connect: Callable[[], Any]

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    def execute(self, sql: str) -> None:
        """Change OnCue's tables behind its back."""
        with self.connect() as conn:
            conn.execute(sql if self.is_sqlite else qualified(sql, "oncue"))
            conn.commit()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep everybody from storing jobs."""
        with self.connect() as conn:
            conn.execute("BEGIN IMMEDIATE" if self.is_sqlite else "LOCK TABLE oncue.oncue_job IN EXCLUSIVE MODE")
            yield
            conn.rollback()


@contextmanager
def database(kind: str, folder: Path) -> Iterator[Backend]:
    """A new database of this kind; on PostgreSQL with OnCue's tables in it already."""
    if kind == "sqlite":
        path = folder / "jobs.db"
        yield Backend(f"sqlite:///{path}", lambda: closing(sqlite3.connect(path)))
        return
    server = pg.running(int(kind.removeprefix("postgres")))
    with server.database(template=_template(kind)) as made:
        yield Backend(made.dsn, lambda: psycopg.connect(made.dsn))


@cache
def _template(kind: str) -> str:
    """A database with OnCue's tables, to be copied: that is faster than to make them each time."""
    made = pg.running(int(kind.removeprefix("postgres"))).create_database()

    async def prepare() -> None:
        store = open_store(made.dsn, SystemClock())
        await store.open()
        await store.close()

    # Whoever asks first may be in a loop already.
    thread = threading.Thread(target=lambda: asyncio.run(prepare()))
    thread.start()
    thread.join()
    return made.name


def sqlite_of(app: OnCue) -> SqliteStore:
    """The application's store, for a test that is about SQLite."""
    assert isinstance(app.store, SqliteStore)
    return app.store
