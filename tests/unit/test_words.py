"""Numbers in texts: one job, two jobs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import oncue
from oncue.words import counted

_NOUNS = "attempts|calls|checks|conversations|jobs|messages|rows|tasks|tokens|workers"
_PLURAL = re.compile(rf" (?:more |other )?(?:{_NOUNS})\b")


def test_a_number_fits_its_noun() -> None:
    said = [counted(number, "job") for number in (0, 1, 2, 1000)]
    assert said == ["0 jobs", "1 job", "2 jobs", "1,000 jobs"]
    assert [counted(number, "status", "statuses") for number in (1, 2)] == ["1 status", "2 statuses"]


def test_no_text_has_a_number_before_a_noun_that_is_always_many() -> None:
    found = [
        f"{file.name}: {ast.unparse(number)}{after}"
        for file in Path(oncue.__file__).parent.rglob("*.py")
        for text in ast.walk(ast.parse(file.read_text()))
        if isinstance(text, ast.JoinedStr)
        for number, after in _numbers(text)
        if _PLURAL.match(after)
    ]
    # That one has a sentence of its own for a single attempt.
    assert [one for one in found if one != "job.py: {job.max_attempts} attempts failed"] == []


def _numbers(text: ast.JoinedStr) -> Iterator[tuple[ast.FormattedValue, str]]:
    """What is put into a text, but for constants, each with what follows."""
    for one, after in pairwise(text.values):
        constant = isinstance(one, ast.FormattedValue) and isinstance(one.value, ast.Name) and one.value.id.isupper()
        if isinstance(one, ast.FormattedValue) and not constant and isinstance(after, ast.Constant):
            yield one, str(after.value)
