"""How every face shows times: RFC 3339 in UTC."""

from __future__ import annotations

from datetime import datetime

from oncue.clock import iso, to_us
from oncue.errors import InvalidTime, NaiveDatetime

__all__ = ["from_iso", "iso", "maybe_iso"]
_FIRST = 1971


def maybe_iso(us: int | None) -> str | None:
    """Return a time as ``iso`` does; None for None."""
    return None if us is None else iso(us)


def from_iso(text: str, *, clamp: bool = False) -> int:
    """Return the microseconds of a time in RFC 3339. Raises InvalidTime for what is no time, or has no zone.

    ``clamp``: a time before 1970, at which nothing can be, is taken as its beginning.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidTime(f"{text!r} is no time: write it as 2026-11-30T17:20:01Z.") from error
    if moment.tzinfo is None:
        raise NaiveDatetime(f"{text!r} has no time zone: write it as 2026-11-30T17:20:01Z, or with +01:00 for Z.")
    if clamp and moment.year < _FIRST:
        return 0
    return to_us(moment)
