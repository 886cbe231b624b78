"""The triggers that note changed rows of a user's table: made, replaced and dropped with the declaration."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence

from oncue.store.sources import SourceBroken, Table
from oncue.store.sql import queries

_PREFIX = "oncue_source:"


def kind_of(conn: sqlite3.Connection, name: str) -> str | None:
    """Return "table" or "view", or None where there is neither of that name."""
    row = conn.execute(
        "SELECT type FROM sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE", (name,)
    ).fetchone()
    return None if row is None else str(row[0])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def definitions(table: Table) -> dict[str, str]:
    """Return the triggers of a source by name. The name holds a hash of the text, so that a changed one is another."""
    due, id = _quoted(table.due), _quoted(table.id)
    source = "'" + table.source.replace("'", "''") + "'"

    def note(row: str) -> str:
        # Not INSERT OR IGNORE: the clause of the statement that fires the trigger would override it.
        return queries("sqlite")["note_change"].replace("{id}", f"{row}.{id}").replace("{source}", source) + ";"

    # The condition may read any column; without one only these two matter.
    of = "" if table.where else f" OF {due}, {id}"
    on = _quoted(table.table)
    events = {
        "insert": f"AFTER INSERT ON {on} WHEN NEW.{due} IS NOT NULL BEGIN {note('NEW')} END",
        "update": f"AFTER UPDATE{of} ON {on} WHEN NEW.{due} IS NOT NULL OR OLD.{due} IS NOT NULL "
        f"BEGIN {note('NEW')} {note('OLD')} END",
        "delete": f"AFTER DELETE ON {on} WHEN OLD.{due} IS NOT NULL BEGIN {note('OLD')} END",
    }
    made = {}
    for event, text in events.items():
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        name = f"{_PREFIX}{table.source}:{event}:{digest}"
        made[name] = f"CREATE TRIGGER {_quoted(name)} {text}"
    return made


def differences(
    conn: sqlite3.Connection, app: str, names: Sequence[str], wanted: Sequence[Table]
) -> tuple[dict[str, str], list[str]]:
    """Return the triggers to make and the names of those to drop.

    An application drops those of its own sources only, and those of sources that it has given up.
    """
    there = {
        row[0]: row[1]
        for row in conn.execute(
            "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger' AND name GLOB ?", (_PREFIX + "*",)
        )
    }
    mine = {*names, *_undeclared(conn, app, names)}
    make: dict[str, str] = {}
    keep: set[str] = set()
    for table in wanted:
        for name, text in definitions(table).items():
            # A renamed table takes its triggers along: then it bears the name, and the new one has none.
            if there.get(name, "").lower() == table.table.lower():
                keep.add(name)
            else:
                make[name] = text
    drop = [name for name in there if name not in keep and name.removeprefix(_PREFIX).rsplit(":", 2)[0] in mine]
    return make, drop


def install(conn: sqlite3.Connection, app: str, names: Sequence[str], wanted: Sequence[Table]) -> list[str]:
    """Make and drop what differs; return what was done, in words. Raises SourceBroken for what can't have triggers."""
    make, drop = differences(conn, app, names, wanted)
    for name in drop:
        conn.execute(f"DROP TRIGGER {_quoted(name)}")
    for name, text in make.items():
        try:
            conn.execute(text)
        except sqlite3.OperationalError as error:
            raise SourceBroken(
                f"the trigger {name} can't be made ({error}). Views and virtual tables take none."
            ) from error
    gone = _undeclared(conn, app, names)
    for name in gone:
        conn.execute("DELETE FROM oncue_source WHERE name = ?", (name,))
        conn.execute("DELETE FROM oncue_source_change WHERE source = ?", (name,))
    done = [f"trigger {name} dropped" for name in drop] + [f"trigger {name} made" for name in make]
    return done + [f"source {name} is no longer in the code: it is not swept any more" for name in gone]


def _undeclared(conn: sqlite3.Connection, app: str, names: Sequence[str]) -> list[str]:
    rows = conn.execute("SELECT name FROM oncue_source WHERE app = ? ORDER BY name", (app,))
    return [name for (name,) in rows if name not in names]


def is_in_step(conn: sqlite3.Connection, app: str, names: Sequence[str], wanted: Sequence[Table]) -> bool:
    """Tell whether ``install`` would change nothing."""
    make, drop = differences(conn, app, names, wanted)
    return not make and not drop and not _undeclared(conn, app, names)
