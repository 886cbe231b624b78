"""How every face shows times: RFC 3339 in UTC."""

from __future__ import annotations

from datetime import datetime

from oncue.clock import FIRST, LAST, iso, to_us
from oncue.errors import InvalidTime, NaiveDatetime

__all__ = ["from_iso", "iso", "maybe_iso"]


def maybe_iso(us: int | None) -> str | None:
    """Return a time as ``iso`` does; None for None."""
    return None if us is None else iso(us)


def from_iso(text: str, *, clamp: bool = False) -> int:
    """Return the microseconds of a time in RFC 3339. Raises InvalidTime for what is no time, or has no zone.

    What its zone alone moves beyond the years 1970 to 9999 is taken as their end. ``clamp``: so is any earlier time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidTime(f"{text!r} is no time: write it as 2026-11-30T17:20:01Z.") from error
    if moment.tzinfo is None:
        raise NaiveDatetime(f"{text!r} has no time zone: write it as 2026-11-30T17:20:01Z, or with +01:00 for Z.")
    if clamp or moment.year >= FIRST.year:
        return to_us(min(max(moment, FIRST), LAST))
    return to_us(moment)
