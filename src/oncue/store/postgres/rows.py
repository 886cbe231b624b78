"""Rows of the user's own tables in PostgreSQL: the SQL that reads them, and what its answers mean. Pure.

Values travel as JSON, which every driver reads alike: no value of a type that a driver doesn't know, or out of its
range (``infinity``), can break the reading of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from oncue.store.postgres import run
from oncue.store.postgres.near import DueKind, near
from oncue.store.postgres.statement import Statement
from oncue.store.sources import Row, RowKey, Table, read_row
from oncue.store.steps import as_json

FORGET = 500
# Digits of a numeric column stay as they are: the text must be the one that PostgreSQL makes of the value again.
_read_value = msgspec.json.Decoder(float_hook=Decimal)
_write_value = msgspec.json.Encoder(decimal_format="number")
_UNHANDLED = """NOT EXISTS (SELECT 1 FROM oncue_source_row AS oncue_r WHERE oncue_r.source = $1
  AND oncue_r.row_key = to_json({id})::text AND oncue_r.raw = to_json({due})::text AND oncue_r.unsettled = 0)"""


def quoted(name: str) -> str:
    """Quote an identifier, so that it is a name whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text as a constant, whatever the server's ``standard_conforming_strings``."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def relation(name: str) -> str:
    """Return a table's quoted name, with its schema where ``name`` has one before a dot."""
    schema, dot, table = name.partition(".")
    return f"{quoted(schema)}.{quoted(table)}" if dot else quoted(name)


def _of(table: Table) -> str:
    """A table's quoted name, as its columns are called by."""
    return quoted(table.table.partition(".")[2] or table.table)


def column(table: Table, name: str) -> str:
    """A column by its table's and its own name, so that it can't be taken for another's."""
    return f"{_of(table)}.{quoted(name)}"


def select(table: Table, source: str | None = None) -> str:
    """The statement that reads rows: id, due, whether the condition holds, and the columns that templates need."""
    # On lines of its own, a comment in the condition can't swallow what follows.
    ok = f"CASE WHEN (\n{table.where}\n) THEN 1 ELSE 0 END" if table.where else "1"
    values = f"row_to_json({_of(table)}.*)"
    if table.columns is not None:
        names = ", ".join(column(table, name) for name in table.columns)
        values = f"(SELECT row_to_json(oncue_v) FROM (SELECT {names}) AS oncue_v)" if names else "'{}'"  # noqa: S608
    id, due = column(table, table.id), column(table, table.due)
    named = f"to_json({id})::text, to_json({due})::text, {ok}, {values}::text"
    return f"SELECT {named} FROM {source or relation(table.table)}"  # noqa: S608 - quoted names, and the developer's condition


def row_from(table: Table, record: Sequence[Any]) -> Row:
    """Return the row that a record of ``select`` stands for."""
    key_text, raw_text, ok, values_text = record
    key: Any
    key, raw = (None if text is None else _read_value.decode(text) for text in (key_text, raw_text))
    seen = (key, raw, ok, values_text)
    try:
        values = msgspec.json.decode(values_text)
    except msgspec.DecodeError as error:
        return Row(key, seen, None, f"its columns can't be read: {error}", unreadable=True)
    return read_row(table, seen, values, never="infinity")


def is_key(key: object) -> bool:
    """Tell whether a value can tell rows apart: a whole number or a text."""
    return type(key) in (int, str)


def _key(table: Table, value: str) -> str:
    """SQL that makes of a row key's JSON a value of the id column's own type, so that the index on it serves; NULL for
    a key that was stored when the column was of another type."""
    none = f"(SELECT oncue_t FROM {relation(table.table)} AS oncue_t LIMIT 0)"  # noqa: S608 - a quoted name
    id = quoted(table.id)
    kind = f"pg_typeof(({none}).{id})::text"
    typed = f"(json_populate_record({none}, json_build_object({literal(table.id)}, {value}))).{id}"
    return (
        f"CASE WHEN {kind} IN ('smallint', 'integer', 'bigint') AND json_typeof({value}) = 'string' THEN NULL "
        f"WHEN {kind} = 'uuid' AND {value}::text !~* '^\"[0-9a-f-]{{36}}\"$' THEN NULL ELSE {typed} END"
    )


def read_rows(table: Table, keys: Sequence[RowKey]) -> Statement:
    """Return the statement that reads these rows; its answer is one ``Row`` for each key."""
    source = (
        f"json_array_elements($1::json) AS oncue_k (oncue_key) "
        f"JOIN {relation(table.table)} ON {column(table, table.id)} = {_key(table, 'oncue_k.oncue_key')}"
    )

    def read(records: Sequence[Any]) -> list[Row]:
        found: dict[RowKey, Row] = {key: Row(key, None, None, "it is gone") for key in keys}
        for record in records:
            row = row_from(table, record)
            if row.key in found:
                found[row.key] = row
        return list(found.values())

    return Statement(select(table, source), (as_json(keys),), "rows", read)


def unhandled(table: Table, kind: DueKind, horizon: int, schema: str) -> Iterator[Statement]:
    """Yield statements which together read every row due by ``horizon`` (microseconds) that is not handled, every
    unreadable one among them, and some later ones; the user's index on the due column serves. Their answers are
    records for ``row_from``."""
    where = f"(\n{table.where}\n) AND " if table.where else ""
    id, due = column(table, table.id), column(table, table.due)
    rest = run.qualified(_UNHANDLED, schema).format(id=id, due=due)
    for condition, values in near(due, kind, table.format, horizon, 2):
        yield Statement(f"{select(table)} WHERE {where}{condition} AND {rest}", (table.source, *values), "rows")


def remember(source: str, entries: Sequence[tuple[RowKey, int, Any, int, int]], schema: str) -> Statement:
    """Return the statement that stores what was handled of a source's rows: (row key, due, raw due, job, unsettled)."""
    # Each key once, and in order, so that two who store the same rows wait for each other instead of for ever.
    texts = {as_json(key): (due, _write_value.encode(raw).decode(), *rest) for key, due, raw, *rest in entries}
    batch = as_json([(key, *texts[key]) for key in sorted(texts)])
    sql, args = run.named("source_remember", schema, {"source": source, "entries": batch})
    return Statement(sql, tuple(args), "count", lambda _: None)


def forget_gone(source: str, before: int, table: Table | None, listed: Sequence[RowKey], schema: str) -> Statement:
    """Return the statement that forgets up to 500 rows that were handled before that time and have gone on since."""
    sql, args = run.named("source_forget_gone", schema, {"source": source, "before": before, "most": FORGET})
    if table is None:
        args.append(as_json(listed))
        gone = f"oncue_r.row_key NOT IN (SELECT value::text FROM json_array_elements(${len(args)}::json))"  # noqa: S608
    else:
        same = f"{column(table, table.id)} = {_key(table, 'oncue_r.row_key::json')}"
        raw = f"to_json({column(table, table.due)})::text IS NOT DISTINCT FROM oncue_r.raw"
        gone = f"NOT EXISTS (SELECT 1 FROM {relation(table.table)} WHERE {same} AND {raw})"  # noqa: S608 - quoted names
    return Statement(sql.replace("{gone}", gone), tuple(args), "count", lambda _: None)
