"""The user's own tables in SQLite: what there is, and which of their rows are due."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec.json import decode

from oncue.store.due import near
from oncue.store.sources import Found, Row, RowKey, SourceBroken, Table, read_row
from oncue.store.sql import queries
from oncue.store.sqlite import triggers
from oncue.store.steps import as_json

SQL = queries("sqlite")
_MOST = 20_000
_FORGET = 500
_EXAMPLES = 5
_UNHANDLED = """NOT EXISTS (SELECT 1 FROM oncue_source_row AS oncue_r WHERE oncue_r.source = :oncue_source
  AND oncue_r.row_key = +{id} AND oncue_r.raw IS +{due} AND oncue_r.unsettled = 0)"""


@contextmanager
def users_table(conn: sqlite3.Connection, table: Table) -> Iterator[None]:
    """Report what is wrong with the user's table as that, never as the store's failure, which others would share."""
    factory = conn.text_factory
    conn.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.ProgrammingError, sqlite3.IntegrityError) as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) != sqlite3.SQLITE_ERROR:
            raise
        raise SourceBroken(f"source {table.source}: {explain(conn, table, str(error))}") from error
    finally:
        conn.text_factory = factory


def check(conn: sqlite3.Connection, table: Table) -> list[str]:
    """Return the table's columns. Raises SourceBroken where something in the declaration does not exist."""
    names = columns(conn, table.table)
    for wanted in dict.fromkeys((table.id, table.due, *(table.columns or ()))):
        if not names or wanted.lower() not in [name.lower() for name in names]:
            raise SourceBroken(f"source {table.source}: {explain(conn, table, f'no such column: {wanted}')}")
    with users_table(conn, table):
        conn.execute(f"EXPLAIN {_select(table)} LIMIT 0", {}).fetchall()
    if triggers.kind_of(conn, table.table) == "table" and not _unique(conn, table):
        raise SourceBroken(
            f"source {table.source}: {table.id!r} is neither the primary key of {table.table!r} nor unique, so it "
            "can't tell rows apart. Give id= the name of a unique column, or add a unique index."
        )
    return names


def columns(conn: sqlite3.Connection, table: str) -> list[str]:
    """Return the names of a table's columns, generated ones included."""
    return [row[0] for row in conn.execute("SELECT name FROM pragma_table_xinfo(?)", (table,))]


def _unique(conn: sqlite3.Connection, table: Table) -> bool:
    keys = [row[0] for row in conn.execute("SELECT name FROM pragma_table_info(?) WHERE pk > 0", (table.table,))]
    single = conn.execute(
        "SELECT min(c.name) FROM pragma_index_list(?) AS i, pragma_index_info(i.name) AS c "
        'WHERE i."unique" AND NOT i.partial GROUP BY i.name HAVING count(*) = 1',
        (table.table,),
    ).fetchall()
    unique = [name for (name,) in single if name is not None] + (keys if len(keys) == 1 else [])
    return table.id.lower() in [name.lower() for name in unique]


def explain(conn: sqlite3.Connection, table: Table, problem: str) -> str:
    """Say what is wrong in the declaration, with what there is instead."""
    names = columns(conn, table.table)
    if not names:
        there = conn.execute(
            "SELECT group_concat(name, ', ') FROM (SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
            "AND name NOT LIKE 'oncue\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name)"
        ).fetchone()[0]
        return f"no table {table.table!r} in this database. There are: {there or 'none but OnCue its own'}."
    where = f" (where={table.where!r})" if table.where else ""
    return f"{problem}{where}. The columns of {table.table!r} are: {', '.join(names)}."


def quoted(name: str) -> str:
    """Quote an identifier, so that it is a name whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def _select(table: Table) -> str:
    """The statement that reads rows: id, due, whether the condition holds, and the columns that templates need."""
    # On lines of its own, a comment in the condition can't swallow what follows.
    ok = f"CASE WHEN (\n{table.where}\n) THEN 1 ELSE 0 END" if table.where else "1"
    extra = ["*"] if table.columns is None else [column(table, name) for name in table.columns]
    names = ", ".join([column(table, table.id), column(table, table.due), ok, *extra])
    return f"SELECT {names} FROM {quoted(table.table)}"  # noqa: S608 - quoted names, and the developer's condition


def column(table: Table, name: str) -> str:
    """A column by its full name: SQLite takes a lone quoted name that it does not know for a text."""
    return f"{quoted(table.table)}.{quoted(name)}"


def _row(table: Table, names: Sequence[str], seen: tuple[Any, ...]) -> Row:
    return read_row(table, seen, dict(zip(names, seen[3:], strict=True)))


def _names(cursor: sqlite3.Cursor) -> list[str]:
    return [entry[0] for entry in cursor.description[3:]]


def _is_key(key: object) -> bool:
    return isinstance(key, int) or (isinstance(key, str) and key.encode("utf-8", "replace").decode() == key)


def find(conn: sqlite3.Connection, table: Table, horizon: int) -> Found:
    """Look for rows that may need something done; the user's index on the due column serves."""
    found = Found([])
    rows: dict[RowKey, Row] = {}
    bad: dict[object, str] = {}
    with users_table(conn, table):
        for condition, values in near(column(table, table.due), table.format, horizon):
            for row in _unhandled(conn, table, condition, values):
                if row.unreadable or not _is_key(row.key):
                    bad[row.key] = row.reason or "its id is no whole number or text"
                elif row.due is not None and row.due <= horizon:
                    rows[row.key] = row
                if len(rows) >= _MOST:
                    found.more = True
                    break
    found.unreadable = len(bad)
    found.examples = [f"row {key!r}: {why}" for key, why in list(bad.items())[:_EXAMPLES]]
    values = {"origin": f"source:{table.source}", "before": 1 << 62}
    waiting = dict(decode(conn.execute(SQL["source_live"], values).fetchone()[0]))
    for row in read_rows(conn, table, [key for key in waiting if key not in rows]):
        if row.due != waiting[row.key]:
            rows[row.key] = row
    found.rows = list(rows.values())
    return found


def _unhandled(conn: sqlite3.Connection, table: Table, condition: str, values: dict[str, Any]) -> Iterator[Row]:
    where = f"(\n{table.where}\n) AND " if table.where else ""
    unhandled = _UNHANDLED.format(id=column(table, table.id), due=column(table, table.due))
    statement = f"{_select(table)} WHERE {where}{condition} AND {unhandled}"
    cursor = conn.execute(statement, {**values, "oncue_source": table.source})
    names = _names(cursor)
    for seen in cursor:
        yield _row(table, names, seen)


def read_rows(conn: sqlite3.Connection, table: Table, keys: Sequence[RowKey]) -> list[Row]:
    """Return these rows as they are now, one for each key."""
    found: dict[RowKey, Row] = {key: Row(key, None, None, "it is gone") for key in keys}
    if not keys:
        return []
    with users_table(conn, table):
        among = f"{column(table, table.id)} IN (SELECT value FROM json_each(:oncue_keys))"  # noqa: S608 - a quoted name
        cursor = conn.execute(f"{_select(table)} WHERE {among}", {"oncue_keys": as_json(keys)})
        names = _names(cursor)
        for seen in cursor:
            if seen[0] in found:
                found[seen[0]] = _row(table, names, seen)
    return list(found.values())


def forget_gone(
    conn: sqlite3.Connection, source: str, before: int, table: Table | None, listed: Sequence[RowKey]
) -> None:
    """Forget up to 500 rows that were handled before that time and have gone on since."""
    values = {"source": source, "before": before, "listed": as_json(listed), "most": _FORGET}
    if table is None:
        gone = "r.row_key NOT IN (SELECT value FROM json_each(:listed))"
        conn.execute(SQL["source_forget_gone"].replace("{gone}", gone), values)
        return
    same = f"{column(table, table.id)} = r.row_key AND {column(table, table.due)} IS r.raw"
    gone = f"NOT EXISTS (SELECT 1 FROM {quoted(table.table)} WHERE {same})"  # noqa: S608 - quoted names
    with users_table(conn, table):
        conn.execute(SQL["source_forget_gone"].replace("{gone}", gone), values)
