"""Due values in PostgreSQL: columns of every type are asked for what is near, by the user's index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oncue.clock import SECOND, from_us, to_us
from oncue.store.due import DueFormat, UnreadableDue, parse_due
from oncue.store.postgres import rows
from oncue.store.postgres.connection import SETTINGS
from oncue.store.postgres.near import DueKind, due_kind, near
from oncue.store.postgres.statement import Statement
from oncue.store.sources import Table
from oncue.store.steps import as_json
from tests.databases import POSTGRES, database
from tests.source.test_due import MOMENT, NEAR, _written

# Columns by name: their type, what they hold, and what stands for an instant in them.
COLUMNS: dict[str, tuple[str, DueKind]] = {
    "instant": ("timestamptz", "instant"),
    "plain": ("timestamp", "timestamp"),
    "day": ("date", "date"),
    "number": ("bigint", "number"),
    "exact": ("numeric", "number"),
    "double": ("double precision", "number"),
    "text": ("text", "text"),
    "plain_text": ('text COLLATE "C"', "text"),
    "worded": ("varchar(60) COLLATE {words}", "text"),
}


def of_words(conn: Any) -> str:
    """A collation that sorts as people do, where the server was built with ICU; Debian's is."""
    found = conn.execute("SELECT quote_ident(collname) FROM pg_collation WHERE collname = 'und-x-icu'").fetchone()
    return found[0] if found else '"C"'


@pytest.fixture(scope="module", params=POSTGRES)
def conn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with (
        database(request.param, tmp_path_factory.mktemp("pg")) as made,
        psycopg.connect(made.url, cursor_factory=psycopg.RawCursor) as conn,
    ):
        columns = ", ".join(f"{name} {type}" for name, (type, _) in COLUMNS.items()).format(words=of_words(conn))
        conn.execute(f"CREATE TABLE t (id integer GENERATED ALWAYS AS IDENTITY, {columns})")
        conn.commit()
        yield conn


@contextmanager
def holding(conn: Any, column: str, values: list[Any]) -> Iterator[None]:
    """These values in a column, for the length of a with block."""
    for value in values:
        conn.execute(f"INSERT INTO t ({column}) VALUES ($1)", (value,))
    try:
        yield
    finally:
        conn.rollback()


def found(conn: Any, column: str, kind: DueKind, format: DueFormat, horizon: int) -> set[str]:
    """The JSON of what is found near."""
    texts: set[str] = set()
    for condition, args in near(f"t.{column}", kind, format, horizon, 1):
        texts |= {text for (text,) in conn.execute(f"SELECT to_json({column})::text FROM t WHERE {condition}", args)}
    return texts


def values_for(kind: DueKind, moment: int) -> list[Any]:
    there = from_us(moment)
    if kind == "instant":
        return [there, "infinity", "-infinity"]
    if kind in ("timestamp", "date"):
        plain = there.replace(tzinfo=None)
        return [plain if kind == "timestamp" else plain.date(), "infinity"]
    written = _written(moment)
    if kind == "text":
        return [str(value) for value in written]
    return [value for value in written if isinstance(value, int)]


NEW_YEAR = to_us(datetime.fromisoformat("2025-12-29T12:00:00Z"))


@given(NEAR, st.integers(0, 366 * 86_400 * SECOND), st.sampled_from(sorted(COLUMNS)))
@example(-SECOND, NEW_YEAR - MOMENT, "text")
@example(-SECOND, NEW_YEAR - MOMENT, "worded")
def test_near_misses_no_due_value_whatever_the_columns_type(conn: Any, distance: int, offset: int, column: str) -> None:
    horizon, kind = MOMENT + offset, COLUMNS[column][1]
    with holding(conn, column, values_for(kind, horizon + distance)):
        near_ones = found(conn, column, kind, "auto", horizon)
        for (text,) in conn.execute(f"SELECT to_json({column})::text FROM t").fetchall():
            try:
                due = parse_due(rows._read_value.decode(text))
            except UnreadableDue:
                continue
            assert due > horizon or text in near_ones, (text, from_us(horizon))


@pytest.mark.parametrize("value", ["tomorrow", "", "soon", "2nd of May", "31/12/2026", "Ärger", "2026-02-30 10:00"])
@pytest.mark.parametrize("column", ["text", "plain_text", "worded"])
@pytest.mark.parametrize("format", ["auto", "iso", "seconds"])
def test_near_finds_what_cannot_be_read(conn: Any, format: DueFormat, column: str, value: str) -> None:
    with holding(conn, column, [value]):
        assert found(conn, column, "text", format, MOMENT) == {json.dumps(value, ensure_ascii=False)}


@pytest.mark.parametrize("column", sorted(COLUMNS))
def test_near_leaves_far_times_alone(conn: Any, column: str) -> None:
    kind = COLUMNS[column][1]
    far: list[Any] = []
    for days in (2, 3, 30, 300):
        there = from_us(MOMENT + days * 86_400 * SECOND)
        if kind == "text":
            far += [there.isoformat(), there.replace(tzinfo=None).isoformat(" "), f"{there:%Y-%m-%dT%H:%MZ}"]
        elif kind == "number":
            far += [to_us(there) // SECOND, to_us(there) // 1000, to_us(there)]
        else:
            far += [there if kind == "instant" else there.replace(tzinfo=None)]
    if kind == "text":
        # An hour away, and written in UTC, so that it need not be read to know it.
        far += [
            f"{from_us(MOMENT + 3600 * SECOND):{form}}" for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S+00:00")
        ]
    with holding(conn, column, far):
        assert found(conn, column, kind, "auto", MOMENT) == set()


@pytest.mark.parametrize(
    ("type", "category", "format", "told"),
    [
        ("interval", "T", "auto", "names no instant"),
        ("boolean", "B", "auto", "names no instant"),
        ("jsonb", "U", "auto", "names no instant"),
        ("bigint", "N", "iso", "wants text"),
        ("timestamp with time zone", "D", "seconds", "wants a number"),
    ],
)
def test_a_type_that_holds_no_time_is_refused(type: str, category: str, format: DueFormat, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        due_kind(type, category, format)


ROWS = 100_000
FIRST = datetime(2026, 9, 21, tzinfo=UTC)
# One row in a hundred is near; the text's hour is in its zone.
_AT = "'2026-09-21'::timestamp + i * interval '1 hour'"
BIG: dict[str, tuple[str, str]] = {
    "timestamptz": ("timestamptz", "'2026-09-21'::timestamptz + i * interval '1 hour'"),
    "timestamp": ("timestamp", "'2026-09-21'::timestamp + i * interval '1 hour'"),
    "date": ("date", "'2026-09-21'::date + i / 24"),
    "bigint": ("bigint", "1790000000 + i * 3600::bigint"),
    "numeric": ("numeric", "1790000000.5 + i * 3600"),
    "text": ("text", f"to_char({_AT}, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"),
    "worded": ('text COLLATE {words}', f"to_char({_AT}, 'YYYY-MM-DD HH24:MI:SS')"),
}  # fmt: skip


@pytest.fixture(scope="module", params=POSTGRES)
def big(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A connection to a database with a large table of each type, which no row of is handled."""
    with (
        database(request.param, tmp_path_factory.mktemp("big")) as made,
        psycopg.connect(made.url, cursor_factory=psycopg.RawCursor) as conn,
    ):
        for name, (type, value) in BIG.items():
            due = type.format(words=of_words(conn))
            conn.execute(f"CREATE TABLE {name}_due (id bigint PRIMARY KEY, status text, due {due})")
            conn.execute(f"INSERT INTO {name}_due SELECT i, 'active', {value} FROM generate_series(1, {ROWS}) AS i")
            conn.execute(f"CREATE INDEX {name}_by_due ON {name}_due (due)")
            conn.execute(f"ANALYZE {name}_due")
        conn.execute(
            "INSERT INTO oncue.oncue_source_row (source, row_key, due, job, raw) "
            f"SELECT 's', i::text, 0, i, '\"\"' FROM generate_series(1, {ROWS}) AS i"
        )
        conn.execute("ANALYZE oncue.oncue_source_row")
        conn.commit()
        yield conn


def plan(conn: Any, statement: Statement) -> str:
    return "\n".join(line for (line,) in conn.execute(f"EXPLAIN {statement.sql}", statement.args).fetchall())


def generic_plan(conn: Any, statement: Statement) -> str:
    """The plan for any arguments, as OnCue's own connections are set; PostgreSQL turns to it after five runs."""
    for name, value in SETTINGS.items():
        conn.execute(f"SET LOCAL {name} = '{value}'")
    conn.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    args = ", ".join("'" + str(arg).replace("'", "''") + "'" for arg in statement.args)
    conn.execute(f"PREPARE p AS {statement.sql}")
    try:
        return "\n".join(line for (line,) in conn.execute(f"EXPLAIN EXECUTE p ({args})").fetchall())
    finally:
        conn.execute("DEALLOCATE p")
        conn.rollback()


@pytest.mark.parametrize("name", sorted(BIG))
@pytest.mark.parametrize("planned", [plan, generic_plan])
def test_the_users_index_serves_a_table_of_100_000_rows(big: Any, name: str, planned: Any) -> None:
    kind = {"bigint": "number", "numeric": "number", "timestamptz": "instant", "worded": "text"}.get(name, name)
    table = Table("s", f"{name}_due", "id", "due", "status = 'active'", "auto", ("id",))
    horizon = to_us(FIRST + timedelta(days=9))
    statements = list(rows.unhandled(table, kind, horizon, "oncue"))  # type: ignore[arg-type]
    for statement in statements:
        told = planned(big, statement)
        assert f"Seq Scan on {name}_due" not in told
        assert f"{name}_by_due" in told
    for statement in (
        rows.read_rows(table, [1, 2, 3]),
        rows.forget_gone("s", 10, table, [], "oncue"),
    ):
        told = planned(big, statement)
        assert f"{name}_due_pkey" in told, told


def test_postgresql_and_oncue_write_the_same_key_in_the_same_way(tmp_path: Path) -> None:
    """What PostgreSQL writes of a row key as JSON is what OnCue writes of it, so that one is found by the other."""
    keys = [chr(n) for n in range(1, 0x250)] + ["\u2028", "\ufeff", "😀", '"\\/', "'; --", "{}$1%s", " a ", "\x7f"]
    for kind in POSTGRES:
        with database(kind, tmp_path) as made, psycopg.connect(made.url) as conn:
            for key in keys:
                assert conn.execute("SELECT to_json(%s::text)::text", (key,)).fetchone() == (as_json(key),)
            for number in (0, -5, 2**63 - 1, -(2**63)):
                assert conn.execute("SELECT to_json(%s::bigint)::text", (number,)).fetchone() == (str(number),)
