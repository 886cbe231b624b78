"""Which of some answers a person means who types one."""

from __future__ import annotations

import pytest

from oncue.conversation.options import as_options, chosen
from oncue.transport import Option


@pytest.mark.parametrize(
    ("titles", "typed"),
    [
        (("A+", "A", "A-"), {"A+": "A+", "A": "A", "A-": "A-", "b": None}),
        (("C", "C++", "C#"), {"C#": "C#", " C++ ": "C++", "C": "C", "c": None, "c#": None}),
        (("Yes!", "No"), {"yes": "Yes!", "NO.": "No", "1": "Yes!", "2": "No", "3": None, "0": None}),
        # Where the answers are numbers, a number is no place in the list.
        (("5", "10", "2"), {"5": "5", "2": "2", "10": "10", "3": None, "1": None}),
        (("👍", "👎"), {"👍": "👍", "👎": "👎", "1": "👍", "!": None}),
        (("1 hour", "2 hours"), {"2": "2 hours", "2 Hours": "2 hours"}),
    ],
)
def test_a_typed_answer_is_the_one_that_it_says(titles: tuple[str, ...], typed: dict[str, str | None]) -> None:
    options = as_options(titles)
    assert {text: chosen(options, text, None) for text in typed} == typed


def test_a_title_goes_before_an_id_and_an_id_before_a_place() -> None:
    options = (Option("2", "one"), Option("one", "two"), Option("x", "three"))
    assert [chosen(options, text, None) for text in ("one", "2", "3", "X")] == ["2", "2", "x", "x"]
