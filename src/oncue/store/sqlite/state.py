"""Looking at the SQLite file without creating or changing anything."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from urllib.parse import quote

from oncue.errors import NoDatabase, SchemaTooNew, SchemaTooOld
from oncue.store.sqlite.connection import translated
from oncue.store.sqlite.schema import MIGRATIONS, VERSION, too_new, version_of
from oncue.store.views import Check, SchemaView

_LITTLE_ROOM = 200 * 1_000_000
_NO_ROOM = 20 * 1_000_000


def schema_of(path: Path) -> SchemaView:
    """Return the state of the schema in the file; a file that isn't there counts as version 0."""
    found, exists = 0, path.exists()
    if exists:
        with translated(path):
            # mode=rw never creates; mode=ro could not read a write-ahead log that nobody has open.
            conn = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=10)
            try:
                found = version_of(conn)
            finally:
                conn.close()
    pending = list(MIGRATIONS[found:])
    if pending:
        pending.append(f"INSERT OR REPLACE INTO oncue_counter (name, value) VALUES ('schema', {VERSION});")  # noqa: S608 - a number
    return SchemaView(str(path), exists, found, VERSION, pending)


def require_current(schema: SchemaView) -> None:
    """Raise NoDatabase, SchemaTooOld or SchemaTooNew unless this OnCue can work with the file as it is."""
    if not schema.exists:
        raise NoDatabase(
            f"There is no database at {schema.location}. Is DATABASE_URL (or --database) right, and this the right "
            "folder? A worker, or `oncue migrate`, makes a new one."
        )
    if schema.found > schema.expected:
        raise SchemaTooNew(too_new(schema.found))
    if schema.found < schema.expected:
        found = f"OnCue's tables of version {schema.found}" if schema.found else "no OnCue tables"
        raise SchemaTooOld(
            f"{schema.location} has {found}; this OnCue works with version {schema.expected}. "
            "Run `oncue migrate` (or start a worker), or check that DATABASE_URL is right."
        )


def check(conn: sqlite3.Connection, path: Path) -> list[Check]:
    """Return what the file's settings, folder and disk say."""
    return [_journal(conn), _durability(conn), _structure(conn), room(path)]


def _journal(conn: sqlite3.Connection) -> Check:
    mode = str(conn.execute("PRAGMA journal_mode").fetchone()[0])
    if mode.lower() == "wal":
        return Check("journal", "ok", "write-ahead log")
    remedy = "The file's system may not allow shared memory (a network share?): put the database on a local disk."
    return Check("journal", "FAIL", f"journal mode {mode}, not WAL", remedy)


def _durability(conn: sqlite3.Connection) -> Check:
    level = int(conn.execute("PRAGMA synchronous").fetchone()[0])
    if level >= 2:  # FULL; the setting belongs to each connection, and these are OnCue's own
        return Check("durability", "ok", "synchronous=FULL: what is promised survives a loss of power")
    return Check("durability", "FAIL", f"synchronous={level}", "OnCue's connections set FULL: report this as a bug.")


def _structure(conn: sqlite3.Connection) -> Check:
    missing = [
        name
        for name in ("oncue_job", "oncue_finished", "oncue_attempt", "oncue_worker", "oncue_schedule", "oncue_queue")
        if conn.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchone() is None
    ]
    if missing:
        return Check("tables", "FAIL", f"missing: {', '.join(missing)}", "Restore a backup: someone dropped them.")
    return Check("tables", "ok", "all there")


def room(path: Path) -> Check:
    """Return how much the disk still takes."""
    free = shutil.disk_usage(path.absolute().parent).free
    found = f"{free / 1e9:,.1f} GB free beside a database of {path.stat().st_size / 1e6:,.1f} MB"
    if free >= _LITTLE_ROOM:
        return Check("disk", "ok", found)
    remedy = "Free space: a full disk stops every schedule() and every outcome, though it loses nothing confirmed."
    return Check("disk", "FAIL" if free < _NO_ROOM else "warn", found, remedy)
