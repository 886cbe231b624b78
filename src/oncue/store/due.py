"""Due times as they stand in a user's table: how to read one, and how to ask for those that are near. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from oncue.clock import SECOND, from_us, in_range, to_us
from oncue.errors import InvalidTime

DueFormat = Literal["auto", "iso", "seconds", "milliseconds", "microseconds"]
UNITS = {"seconds": SECOND, "milliseconds": 1_000, "microseconds": 1}
# Below 1e11 a number counts seconds (until the year 5138), below 1e14 milliseconds, from there on microseconds.
MILLISECONDS_FROM, MICROSECONDS_FROM = 10**11, 10**14
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_LEAST = 10**8
_MINUTES_ONLY = re.compile(r".*[T ]\d\d:?\d\d(Z|[+-]\d\d:?\d\d)?")


class UnreadableDue(ValueError):
    """A value in a due column that names no instant."""


def parse_due(value: object, format: DueFormat = "auto") -> int:
    """Return the instant that a column's value names, in microseconds since the epoch, UTC.

    Text is ISO 8601; without a zone it is UTC, as SQLite's ``datetime('now')`` writes it. Numbers are seconds,
    milliseconds or microseconds since the epoch; ``auto`` tells them apart by their size, and takes none below 1e8
    (the year 1973), which is rather a flag or a date without its dashes.
    Raises UnreadableDue.
    """
    try:
        if isinstance(value, str) and format in ("auto", "iso") and not _NUMBER.fullmatch(value.strip()):
            return _from_text(value.strip())
        if isinstance(value, str) and format != "iso":
            text = value.strip()
            value = float(text) if "." in text else int(text)
        if isinstance(value, (int, float, Decimal)) and format != "iso":
            unit = UNITS[_unit(value) if format == "auto" else format]
            if format == "auto" and -_LEAST < value < _LEAST:
                raise ValueError("too small a number to be a time; say due_format='seconds' if it is one")
            return in_range(round(value * unit), value)
    except (ValueError, OverflowError, InvalidTime) as error:
        raise UnreadableDue(f"{value!r} is no time ({error})") from error
    wanted = "ISO 8601 text" if format == "iso" else "ISO 8601 text or a number" if format == "auto" else "a number"
    raise UnreadableDue(f"{value!r} is no time: a due column of format {format!r} holds {wanted}")


def _from_text(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return to_us(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))


def _unit(value: float | Decimal) -> str:
    if -MILLISECONDS_FROM < value < MILLISECONDS_FROM:
        return "seconds"
    return "milliseconds" if -MICROSECONDS_FROM < value < MICROSECONDS_FROM else "microseconds"


def resolution(value: object, format: DueFormat = "auto") -> int:
    """Return how coarse a value is written, in microseconds: a text without a fraction stands for a whole second."""
    if isinstance(value, str):
        if "." in value or "," in value:
            return 0
        return 60 * SECOND if _MINUTES_ONLY.fullmatch(value.strip()) else SECOND
    if isinstance(value, int):
        return UNITS[_unit(value) if format not in UNITS else format]
    return 0


def near(column: str, format: DueFormat, horizon: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield conditions on a column which together hold for every value due by ``horizon`` (microseconds), and for
    every unreadable one that sorts among them; for some later values too.

    Each compares the column itself with constants, so that an index on it serves; no function is called on the
    whole of it.
    """
    if format in UNITS:
        yield f"{column} <= :oncue_n", {"oncue_n": horizon // UNITS[format] + 1}
        yield f"{column} >= ''", {}
        return
    if format == "iso":
        yield f"{column} < ''", {}
    else:
        yield f"{column} <= :oncue_n", {"oncue_n": horizon // SECOND + 1}
        size = {"oncue_low": MILLISECONDS_FROM, "oncue_n": horizon // 1_000 + 1}
        yield f"{column} >= :oncue_low AND {column} <= :oncue_n", size
        yield f"{column} >= :oncue_low AND {column} <= :oncue_n", {"oncue_low": MICROSECONDS_FROM, "oncue_n": horizon}
    # Text sorts by its local time: two days more than asked for cover every zone, then the instant itself decides.
    day = min(from_us(horizon), datetime(9999, 12, 1, tzinfo=UTC)) + timedelta(days=2)
    julian = horizon / (86_400 * SECOND) + 2_440_587.5 + 1 / 86_400
    text = {"oncue_until": day.date().isoformat(), "oncue_julian": julian}
    yield (
        f"{column} >= '' AND {column} < :oncue_until AND coalesce(julianday({column}) <= :oncue_julian, 1)",
        text,
    )
    # Written otherwise than 2026-01-31 (20260131T..., 2026W056), times of this year sort behind those of any month.
    # The first days of 2026's weeks are of 2025.
    for year in sorted({day.year, day.isocalendar().year}):
        yield f"{column} >= :oncue_low AND {column} < :oncue_n", {"oncue_low": f"{year}-:", "oncue_n": f"{year}X"}
    yield f"{column} >= '2:'", {}
