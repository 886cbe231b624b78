"""Creating and migrating OnCue's tables: versioned, once, under the database's write lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from oncue.errors import SchemaTooNew
from oncue.store.sql import text

_STEPS = ("001_jobs", "002_adopted", "003_conversations", "004_operators", "005_when")
MIGRATIONS = tuple(text("sqlite", f"schema/{name}.sql") for name in _STEPS)
VERSION = len(MIGRATIONS)


def version_of(conn: sqlite3.Connection) -> int:
    """Return the schema's version in this file, 0 where OnCue has no tables yet."""
    if conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'oncue_counter'").fetchone() is None:
        return 0
    row = conn.execute("SELECT value FROM oncue_counter WHERE name = 'schema'").fetchone()
    return int(row[0]) if row else 0


def migrate(conn: sqlite3.Connection) -> int:
    """Bring the schema up to date inside the caller's write transaction; return how many steps were taken.

    Raises SchemaTooNew for a file that a newer version wrote.
    """
    found = version_of(conn)
    if found > VERSION:
        raise SchemaTooNew(too_new(found))
    for step in MIGRATIONS[found:]:
        for statement in statements(step):
            conn.execute(statement)
    if found < VERSION:
        conn.execute(
            "INSERT INTO oncue_counter (name, value) VALUES ('schema', ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (VERSION,),
        )
    return VERSION - found


def too_new(found: int) -> str:
    """Return what to tell a person whose database a newer OnCue wrote."""
    return (
        f"The database has OnCue's schema version {found}; this OnCue knows version {VERSION}. Nothing was "
        "changed. Upgrade oncue here, or restore the backup taken before the upgrade."
    )


def statements(script: str) -> Iterator[str]:
    """Split a script into its statements; ``executescript`` would commit the transaction that we are in."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
