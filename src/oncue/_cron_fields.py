"""Cron text -> sets of numbers: names, wrapping ranges, ``@daily`` and kin, and errors that say what to do.

Kept apart from ``cron.py``, which knows about time. Users import from ``oncue.cron``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from .errors import ConfigError
from .words import counted


class InvalidCron(ConfigError):
    """A cron expression, interval or time zone that cannot be used; the message says which part and what to write."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one field of a cron expression may hold."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Values:
    """What one field of an expression does hold.

    ``numbers`` are sorted plain values (Sunday is 0); ``special`` are the rest (``L``, ``LW``, ``15W``, ``5L``,
    ``5#2``); ``star`` says that the field was written ``*`` or ``*/n``, which decides how the two day fields combine.
    """

    numbers: tuple[int, ...]
    special: tuple[str, ...]
    star: bool
    text: str


@dataclass(frozen=True, slots=True)
class Spec:
    """A parsed expression. ``text`` is its normalised form: always six fields, numbers only."""

    text: str
    second: Values
    minute: Values
    hour: Values
    day: Values
    month: Values
    weekday: Values


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_DAY, _WEEKDAY = "day of the month", "weekday"
_RULES = (
    Rule("second", 0, 59),
    Rule("minute", 0, 59),
    Rule("hour", 0, 23),
    Rule(_DAY, 1, 31),
    Rule("month", 1, 12, _MONTHS),
    Rule(_WEEKDAY, 0, 6, _DAYS),
)
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_TERM = re.compile(r"(?P<first>\*|[A-Z]+|[0-9]+)(?:-(?P<last>[A-Z]+|[0-9]+))?(?:/(?P<step>[0-9]+))?")
_DAY_SPECIAL = re.compile(r"L|LW|(?P<day>[0-9]{1,2})W")
_WEEKDAY_SPECIAL = re.compile(r"(?P<day>[A-Z]{3}|[0-9])(?:L|#(?P<nth>[0-9]+))")


def parse(expression: str) -> Spec:
    """Parse 5 fields (minute first), 6 fields (second first) or a macro; raise ``InvalidCron``."""
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in _MACROS:
            raise InvalidCron(
                f"cron {expression!r}: no such shorthand. Use {', '.join(sorted(_MACROS))}, or write the fields out"
            )
        text = _MACROS[text.lower()]
    parts = text.upper().split()
    if len(parts) == 5:
        parts.insert(0, "0")
    if len(parts) != 6:
        raise InvalidCron(
            f"cron {expression!r} has {counted(len(parts), 'field')}. Write 5 (minute hour day month weekday) "
            "or 6 with the second first (second minute hour day month weekday); there is no year field"
        )
    fields = [_Parser(expression, rule, part).values() for rule, part in zip(_RULES, parts, strict=True)]
    return Spec(" ".join(values.text for values in fields), *fields)


@dataclass(frozen=True, slots=True)
class _Parser:
    expression: str
    rule: Rule
    field: str

    def fail(self, term: str, problem: str) -> NoReturn:
        raise InvalidCron(f"cron {self.expression!r}: {self.rule.name} {term!r} {problem}")

    def values(self) -> Values:
        days = self.rule.name in (_DAY, _WEEKDAY)
        terms = ["*"] if days and self.field == "?" else self.field.split(",")
        numbers: set[int] = set()
        special: list[str] = []
        for term in terms:
            if days and len(terms) > 1 and term.startswith("*"):
                self.fail(self.field, "mixes * with other days. Write the days out")
            found = self._special(term)
            if found is None:
                numbers.update(self._numbers(term))
            elif found not in special:
                special.append(found)
        star = len(terms) == 1 and terms[0].startswith("*")
        written = terms[0].removesuffix("/1") if star else ""
        full = not days and len(numbers) == self.rule.high - self.rule.low + 1
        ordered = tuple(sorted(numbers))
        text = "*" if full else written or ",".join([*_compact(ordered), *special])
        return Values(ordered, tuple(special), star, text)

    def _special(self, term: str) -> str | None:
        """The normalised form of ``L``, ``LW``, ``15W``, ``5L`` and ``5#2``; None for a plain term."""
        if self.rule.name == _DAY and (match := _DAY_SPECIAL.fullmatch(term)):
            return f"{self._number(match['day'], term)}W" if match["day"] else term
        if self.rule.name == _WEEKDAY and (match := _WEEKDAY_SPECIAL.fullmatch(term)):
            day = self._number(match["day"], term) % 7
            if match["nth"] is None:
                return f"{day}L"
            if not 1 <= int(match["nth"]) <= 5:
                self.fail(term, "asks for a week that no month has. Write #1 to #5, or L for the last one")
            return f"{day}#{int(match['nth'])}"
        return None

    def _numbers(self, term: str) -> list[int]:
        match = _TERM.fullmatch(term)
        if match is None or (match["first"] == "*" and match["last"]):
            self.fail(term, f"is not understood. Write {self._allowed()}, a list (1,2), a range (1-5) or a step (*/5)")
        rule, low, high = self.rule, self.rule.low, self.rule.high
        step = int(match["step"] or 1)
        if not 1 <= step <= high - low + 1:
            self.fail(term, f"has a step outside 1-{high - low + 1}. Steps start again at each full turn of the field")
        if match["first"] == "*":
            return list(range(low, high + 1, step))
        first = self._number(match["first"], term)
        if match["last"] is None:
            first = first % 7 if rule.name == _WEEKDAY else first
            return list(range(first, high + 1, step)) if match["step"] else [first]
        last = self._number(match["last"], term)
        if rule.name == _WEEKDAY and last < first == 7:
            first = 0
        values = range(first, last + 1) or [*range(first, high + 1), *range(low, last + 1)]
        return [value % 7 if rule.name == _WEEKDAY else value for value in values[::step]]

    def _number(self, text: str, term: str) -> int:
        rule = self.rule
        if text in rule.names:
            return rule.names.index(text) + rule.low
        if text == "L" and rule.name == _WEEKDAY:
            self.fail(term, "needs the day it speaks of: 5L is the last Friday of the month")
        # 7 is Sunday too, by the custom of cron.
        high = 7 if rule.name == _WEEKDAY else rule.high
        if not text.isdecimal() or not rule.low <= int(text) <= high:
            self.fail(term, f"is not in the range. Write {self._allowed()}")
        return int(text)

    def _allowed(self) -> str:
        rule = self.rule
        if rule.name == _WEEKDAY:
            return "0-7 (0 and 7 are Sunday) or SUN-SAT"
        if rule.names:
            return f"{rule.low}-{rule.high} or {rule.names[0]}-{rule.names[-1]}"
        return f"{rule.low}-{rule.high}"


def _compact(numbers: tuple[int, ...]) -> list[str]:
    """Sorted numbers as the shortest list of numbers and ranges."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [str(first) if first == last else f"{first}-{last}" for first, last in runs]
