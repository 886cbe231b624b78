"""How every face shows times and what is hidden: RFC 3339 in UTC, and dots in place of redacted fields."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote, quote_plus

from oncue.clock import from_us, to_us
from oncue.errors import InvalidTime

HIDDEN = "•••"
_SHORTEST = 3
_FIRST = 1971


def iso(us: int) -> str:
    """Return a time in RFC 3339, UTC, with microseconds: ``2026-11-30T17:20:01.123456Z``."""
    return f"{from_us(us):%Y-%m-%dT%H:%M:%S.%f}Z"


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
    if clamp and moment.tzinfo is not None and moment.year < _FIRST:
        return 0
    return to_us(moment)


class Redaction:
    """Hides fields by name, wherever they stand in a job's arguments, metadata, progress and result."""

    def __init__(self, fields: Collection[str]) -> None:
        self._fields = frozenset(fields)

    def __bool__(self) -> bool:
        return bool(self._fields)

    def value(self, value: Any) -> Any:
        """Return a JSON value with the fields' values replaced."""
        if not self._fields:
            return value
        # Bit by bit: what is nested as deep as JSON may be is deeper than calls may be.
        top: list[Any] = [value]
        todo: list[Any] = [top]
        while todo:
            made = todo.pop()
            fields = self._fields if isinstance(made, dict) else ()
            for place, inner in list(made.items() if isinstance(made, dict) else enumerate(made)):
                if place in fields:
                    made[place] = HIDDEN
                elif isinstance(inner, dict | list):
                    made[place] = inner.copy()
                    todo.append(made[place])
        return top[0]

    def text(self, text: str | None, *sources: Any) -> str | None:
        """Return a text, such as an error, without the hidden values of these JSON values."""
        if text is None or not self._fields:
            return text
        for source in sources:
            forms = {form for secret in self._secrets(source) for form in _forms(secret)}
            for secret in sorted(forms, key=len, reverse=True):
                text = text.replace(secret, HIDDEN)
        return text

    def _secrets(self, value: Any) -> Iterator[str]:
        todo = [(value, False)]
        while todo:
            one, hidden = todo.pop()
            if isinstance(one, dict):
                todo += [(inner, hidden or name in self._fields) for name, inner in one.items()]
            elif isinstance(one, list):
                todo += [(inner, hidden) for inner in one]
            elif hidden and one is not None and len(str(one)) >= _SHORTEST:
                yield str(one)


def _forms(text: str) -> Iterator[str]:
    """Yield a text as errors quote it: plain, as Python and JSON write it, and in a URL."""
    yield text
    for written in (repr(text), ascii(text), json.dumps(text), json.dumps(text, ensure_ascii=False)):
        yield written[1:-1]
    yield from (quote(text), quote(text, safe=""), quote_plus(text))


NOTHING = Redaction(())
