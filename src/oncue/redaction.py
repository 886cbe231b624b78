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
        forms = {form for source in sources for secret in self._secrets(source) for form in _forms(secret)}
        # The longest first, of all of them: a short one may be a part of a long one.
        for secret in sorted(forms, key=len, reverse=True):
            text = _without(text, secret)
        return text

    def quoted(self, value: Any, *sources: Any) -> Any:
        """Return a JSON value, such as a result, with the fields' values replaced, and in its texts what is hidden in
        these JSON values."""
        if not self._fields:
            return value
        top = [self.value(value)]
        todo: list[Any] = [top]
        while todo:
            made = todo.pop()
            for place, inner in list(made.items() if isinstance(made, dict) else enumerate(made)):
                if isinstance(inner, str):
                    made[place] = self.text(inner, *sources)
                elif isinstance(inner, dict | list):
                    todo.append(inner)
        return top[0]

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
                todo += [(name, True) for name in one if hidden]
            elif isinstance(one, list):
                todo += [(inner, hidden) for inner in one]
            elif hidden and one is not None and len(str(one)) >= _SHORTEST:
                yield str(one)


def _without(text: str, secret: str) -> str:
    """Return a text without a secret, also where the text was cut in the middle of it, at its end or its beginning."""
    text = text.replace(secret, HIDDEN)
    head, tail = secret[: _SHORTEST + 1], secret[-_SHORTEST - 1 :]
    at = text.find(head)
    while at >= 0 and not secret.startswith(text[at:]):
        at = text.find(head, at + 1)
    text = text if at < 0 else text[:at] + HIDDEN
    at = text.rfind(tail)
    while at >= 0 and not secret.endswith(text[: at + len(tail)]):
        at = text.rfind(tail, 0, at + len(tail) - 1)
    return text if at < 0 else HIDDEN + text[at + len(tail) :]


def _forms(text: str) -> Iterator[str]:
    """Yield a text as errors quote it: plain, line by line, as Python and JSON write it, and in a URL."""
    yield text
    # A traceback of a group of exceptions indents each.
    yield from (line for line in text.splitlines() if len(line.strip()) >= _SHORTEST)
    for written in (repr(text), ascii(text), json.dumps(text), json.dumps(text, ensure_ascii=False)):
        yield written[1:-1]
    yield from (quote(text), quote(text, safe=""), quote_plus(text))


NOTHING = Redaction(())
