"""Asking PostgreSQL for due times that are near, by the type of the column that holds them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

from oncue.clock import SECOND, from_us
from oncue.store.due import MICROSECONDS_FROM, MILLISECONDS_FROM, UNITS, DueFormat

DueKind = Literal["instant", "timestamp", "date", "number", "text"]
_KINDS: dict[str, DueKind] = {
    "timestamp with time zone": "instant",
    "timestamp without time zone": "timestamp",
    "date": "date",
    **dict.fromkeys(("smallint", "integer", "bigint", "numeric", "real", "double precision"), "number"),
}  # fmt: skip
_CASTS: dict[DueKind, str] = {"instant": "timestamptz", "timestamp": "timestamp", "date": "date"}
# What sorts by its instant: local time without a zone, or with one that is UTC.
_UTC_TEXT = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]00(:?00)?)?$"
_LAST = datetime(9999, 12, 1, tzinfo=UTC)


def due_kind(type: str, category: str, format: DueFormat) -> DueKind:
    """Return what a column of this type (as ``format_type`` names it) holds. Raises ValueError where ``format`` can't
    be read from it, with the reason."""
    kind = _KINDS.get(type, "text" if category == "S" else None)
    if kind is None:
        raise ValueError(f"is of type {type}, which names no instant: a timestamp, a date, a number or text does")
    if kind == "number" and format == "iso":
        raise ValueError(f"is of type {type}, but due_format='iso' wants text: leave due_format out")
    if kind in _CASTS and format in UNITS:
        raise ValueError(f"is of type {type}, but due_format={format!r} wants a number: leave due_format out")
    return kind


def near(
    column: str, kind: DueKind, format: DueFormat, horizon: int, first: int
) -> Iterator[tuple[str, tuple[int | str, ...]]]:
    """Yield conditions on a column, and their arguments from ``$first`` on, which together hold for every value due by
    ``horizon`` (microseconds), and for every unreadable one that sorts among them; for some later values too.

    Each bounds the column itself by constants, so that an index on it serves. Text is compared in the column's own
    collation, as its index is: this asks only that digits sort by value and before letters, as they do in all.
    """
    until = from_us(horizon)
    one, two = f"${first}", f"${first + 1}"
    if kind in _CASTS:
        text = until.isoformat() if kind == "instant" else until.replace(tzinfo=None).isoformat()
        yield f"{column} <= {one}::text::{_CASTS[kind]}", (text,)
    elif kind == "number" and format in UNITS:
        yield f"{column} <= {one}::bigint", (horizon // UNITS[format] + 1,)
    elif kind == "number":
        yield f"{column} <= {one}::bigint", (horizon // SECOND + 1,)
        between = f"{column} >= {one}::bigint AND {column} <= {two}::bigint"
        yield between, (MILLISECONDS_FROM, horizon // 1_000 + 1)
        yield between, (MICROSECONDS_FROM, horizon)
    elif format in UNITS:
        yield f"{column} IS NOT NULL", ()
    else:
        yield from _near_text(column, min(until, _LAST), first)


def _near_text(column: str, until: datetime, first: int) -> Iterator[tuple[str, tuple[int | str, ...]]]:
    """Text sorts by its local time: two days more than asked for cover every zone."""
    one, two, three = (f"${first + n}" for n in range(3))
    day = until + timedelta(days=2)
    later = f"{column} ~ {two} AND replace({column}, ' ', 'T') COLLATE \"C\" > {three}"
    yield (
        f"{column} < {one} AND NOT ({later})",
        (day.date().isoformat(), _UTC_TEXT, (until + timedelta(seconds=1)).replace(tzinfo=None).isoformat()),
    )
    # Written otherwise than 2026-01-31, times of this year may sort behind those of any month: 20260131, 2026-W05-6.
    # The first days of 2026's weeks are of 2025.
    year, weeks = f"{day.year:04}", f"{day.isocalendar().year:04}"
    for low, high in ((f"{year}0", f"{year}2"), (f"{weeks}-W", f"{weeks}-X"), (f"{weeks}W", f"{weeks}X")):
        yield f"{column} >= {one} AND {column} < {two}", (low, high)
    yield f"{column} >= {one}", ("2A",)
