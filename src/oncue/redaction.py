"""What is hidden: dots in place of redacted fields, and of their values wherever a text quotes them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec

from oncue.job import Claimed

HIDDEN = "•••"
_SHORTEST = 3


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

    def of_job(self, text: str, job: Claimed) -> str:
        """Return a text about an attempt without the hidden values of its job."""
        if not self._fields:
            return text
        sources = [msgspec.json.decode(one) for one in (job.args, job.metadata) if one is not None]
        return self.text(text, *sources) or ""

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
