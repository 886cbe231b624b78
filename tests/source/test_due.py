"""Reading due values, and asking for those that are near."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncue.clock import SECOND, from_us, to_us
from oncue.store.due import DueFormat, UnreadableDue, near, parse_due, resolution

MOMENT = to_us(datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC))


@pytest.mark.parametrize(
    ("value", "format"),
    [
        ("2026-09-21 14:13:20", "auto"),
        ("2026-09-21T14:13:20Z", "iso"),
        ("2026-09-21T16:13:20+02:00", "iso"),
        (" 2026-09-21 14:13:20.000 ", "auto"),
        ("20260921T141320", "iso"),
        ("2026-W39-1T14:13:20", "auto"),
        (MOMENT // SECOND, "auto"),
        (MOMENT // SECOND, "seconds"),
        (MOMENT / SECOND, "auto"),
        (MOMENT // 1000, "auto"),
        (MOMENT // 1000, "milliseconds"),
        (MOMENT, "auto"),
        (MOMENT, "microseconds"),
        (str(MOMENT // SECOND), "auto"),
        (str(MOMENT // SECOND), "seconds"),
    ],
)
def test_every_way_to_write_an_instant_is_read(value: Any, format: DueFormat) -> None:
    assert parse_due(value, format) == MOMENT


@pytest.mark.parametrize(
    ("value", "format"),
    [
        ("tomorrow", "auto"),
        ("", "auto"),
        ("31/12/2026", "iso"),
        ("2026-02-30", "auto"),
        ("20260131", "auto"),
        (0, "auto"),
        (-5, "seconds"),
        (float("inf"), "auto"),
        (10**30, "microseconds"),
        (b"2026-01-01", "auto"),
        (MOMENT, "iso"),
        ("2026-01-01", "seconds"),
        ("1500-01-01", "iso"),
    ],
)
def test_what_names_no_instant_is_unreadable(value: Any, format: DueFormat) -> None:
    with pytest.raises(UnreadableDue, match="no time"):
        parse_due(value, format)


def test_small_numbers_are_times_where_the_format_is_given() -> None:
    assert parse_due(5, "seconds") == 5 * SECOND


def test_the_resolution_is_how_coarse_a_value_is_written() -> None:
    assert resolution("2026-01-01 10:00:00") == resolution(1_790_000_000) == SECOND
    assert resolution("2026-01-01 10:00") == resolution("2026-01-01T10:00Z") == 60 * SECOND
    assert resolution("2026-01-01 10:00:00.5") == resolution(1_790_000_000.5) == 0
    assert resolution(1_790_000_000_000) == 1000


def _written(moment: int) -> list[Any]:
    there = from_us(moment)
    east, west = (there.astimezone(timezone(timedelta(hours=hours))) for hours in (14, -12))
    texts = [there.isoformat(), there.replace(tzinfo=None).isoformat(" "), east.isoformat(), west.isoformat()]
    compact = there.strftime("%Y%m%dT%H%M%S.%fZ")
    weeks = there.strftime("%G-W%V-%uT%H:%M:%S.%fZ")
    return [*texts, compact, weeks, weeks.replace("-", ""), moment / SECOND, moment // 1000, moment]


NEAR = st.integers(-400 * 86_400 * SECOND, 400 * 86_400 * SECOND)


@given(NEAR, st.integers(0, 366 * 86_400 * SECOND), st.sampled_from(["TEXT", "DATETIME", "INTEGER", "", "REAL"]))
def test_near_misses_no_due_value_however_it_is_written(distance: int, offset: int, kind: str) -> None:
    horizon = MOMENT + offset
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, due {kind})")
        conn.executemany("INSERT INTO t (due) VALUES (?)", [(value,) for value in _written(horizon + distance)])
        found: dict[int, Any] = {}
        for condition, values in near('"t"."due"', "auto", horizon):
            found |= dict(conn.execute(f"SELECT id, due FROM t WHERE {condition}", values).fetchall())
        for id, due in conn.execute("SELECT id, due FROM t").fetchall():
            if parse_due(due) <= horizon:
                assert id in found, (due, from_us(horizon))


@pytest.mark.parametrize("format", ["seconds", "milliseconds", "microseconds", "iso", "auto"])
@pytest.mark.parametrize("value", ["tomorrow", b"\x01", "", "soon"])
def test_near_finds_what_cannot_be_read(format: DueFormat, value: Any) -> None:
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("CREATE TABLE t (due)")
        conn.execute("INSERT INTO t VALUES (?)", (value,))
        hits = [
            conn.execute(f"SELECT count(*) FROM t WHERE {condition}", values).fetchone()[0]
            for condition, values in near('"t"."due"', format, MOMENT)
        ]
        assert sum(hits) == 1


@pytest.mark.parametrize("format", ["seconds", "microseconds", "iso", "auto"])
def test_near_leaves_far_times_alone(format: DueFormat) -> None:
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("CREATE TABLE t (due)")
        units = {"seconds": SECOND, "microseconds": 1}
        far = [from_us(MOMENT + days * 86_400 * SECOND).isoformat() for days in (1, 3, 300)]
        numbers = [(MOMENT + 2 * SECOND) // units.get(format, SECOND)]
        values = far if format == "iso" else numbers if format in units else [*far, *numbers]
        conn.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
        for condition, given_values in near('"t"."due"', format, MOMENT):
            assert conn.execute(f"SELECT due FROM t WHERE {condition}", given_values).fetchall() == []


@pytest.mark.parametrize(
    "index", ["(due)", "(status, due)", "(due) WHERE status = 'active'", "(due, status) WHERE due IS NOT NULL"]
)
@pytest.mark.parametrize("format", ["auto", "iso", "seconds"])
def test_an_index_on_the_due_column_serves(index: str, format: DueFormat) -> None:
    from oncue.store.sources import Table
    from oncue.store.sqlite import rows

    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, due DATETIME, status TEXT)")
        conn.execute(f"CREATE INDEX by_due ON t {index}")
        conn.execute(
            "CREATE TABLE oncue_source_row (source TEXT NOT NULL, row_key ANY NOT NULL, raw ANY, unsettled INTEGER, "
            "PRIMARY KEY (source, row_key)) STRICT, WITHOUT ROWID"
        )
        table = Table("t", "t", "id", "due", "status = 'active'", format, ())
        seen: list[str] = []
        conn.set_trace_callback(seen.append)
        for condition, values in near('"t"."due"', format, MOMENT):
            list(rows._unhandled(conn, table, condition, values))
        conn.set_trace_callback(None)
        assert len(seen) >= 2
        for statement in seen:
            plan = [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {statement}")]
            assert plan[0].startswith("SEARCH t USING"), plan
            assert "by_due" in plan[0]
            assert "(source=? AND row_key=?)" in plan[-1]
