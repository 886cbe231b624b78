"""Synchronous work: on the caller's own connection and transaction, or on one of ours a thread."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from oncue.errors import InvalidJob
from oncue.store.sqlite.connection import connect, translated
from oncue.store.sqlite.schema import migrate, version_of

T = TypeVar("T")


class _Plain:
    """A caller's connection whose rows come as tuples, whatever row factory the caller has set."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        cursor = self._conn.cursor()
        cursor.row_factory = None
        return cursor.execute(sql, values)


class SyncConnections:
    """Runs operations synchronously. Without a connection each is a durable transaction of its own."""

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self._path, self._busy_timeout = path, busy_timeout
        self._lock = threading.Lock()
        self._own: sqlite3.Connection | None = None

    def run(self, operation: Callable[[sqlite3.Connection], T], connection: object) -> T:
        """Run ``operation``; raises a StoreError, or InvalidJob for a connection that can't take part."""
        if connection is not None:
            return self._in_callers(operation, self._check(connection))
        with self._lock, translated(self._path):
            conn = self._opened()
            conn.execute("BEGIN IMMEDIATE")
            try:
                migrate(conn)
                result = operation(conn)
                conn.execute("COMMIT")
            except BaseException:
                # A full disk ends the transaction by itself.
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
                raise
            return result

    def _opened(self) -> sqlite3.Connection:
        if self._own is None:
            self._own = connect(self._path, self._busy_timeout)
            # An application that is only ever used synchronously is never closed: its connection goes with it.
            weakref.finalize(self, self._own.close)
        return self._own

    def close(self) -> None:
        """Close our own connection."""
        with self._lock:
            if self._own is not None:
                self._own.close()
                self._own = None

    def _in_callers(self, operation: Callable[[sqlite3.Connection], T], conn: sqlite3.Connection) -> T:
        plain = cast("sqlite3.Connection", _Plain(conn))
        with translated(self._path):
            if version_of(plain) == 0:
                raise InvalidJob(
                    f"{self._path} has no OnCue tables yet: run `async with app:` once, or `oncue migrate`, before "
                    "scheduling inside a transaction of your own."
                )
            if not conn.in_transaction and getattr(conn, "autocommit", -1) == -1 and conn.isolation_level is not None:
                # What the sqlite3 module itself does before the first write of a connection that is not autocommitting.
                conn.execute(f"BEGIN {conn.isolation_level}")
            conn.execute("SAVEPOINT oncue_call")
            try:
                result = operation(plain)
            except BaseException:
                if conn.in_transaction:
                    conn.execute("ROLLBACK TO oncue_call")
                    conn.execute("RELEASE oncue_call")
                raise
            conn.execute("RELEASE oncue_call")
            return result

    def _check(self, conn: object) -> sqlite3.Connection:
        if not isinstance(conn, sqlite3.Connection):
            raise InvalidJob(f"connection= takes a sqlite3.Connection to {self._path}, not a {type(conn).__name__}.")
        try:
            row = _Plain(conn).execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()
        except sqlite3.ProgrammingError as error:
            raise InvalidJob(
                f"connection= can't be used here: {error} Give an open connection to {self._path}, made in this thread."
            ) from error
        # Bytes where the caller's text factory says so.
        main = os.fsdecode(row[0] or "")
        if not main or not self._path.exists() or not self._path.samefile(main):
            raise InvalidJob(
                f"connection= is open on {main or 'an in-memory database'}, but the jobs live in {self._path}: one "
                "transaction can't span both. Keep your tables in the same file, or leave connection= out."
            )
        return conn
