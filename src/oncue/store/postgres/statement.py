"""A statement for PostgreSQL as a value, so that any driver can run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL text with ``$1``, ``$2``, ..., its arguments (int, str, None and flat lists of them), and what to make of
    its answer.

    ``wanted`` names the raw answer: the first column of the first row (``value``; None without a row), the number of
    rows that it changed (``count``), or a list of tuples (``rows``). ``read`` turns that into the step's answer; None
    leaves it as it is.
    """

    sql: str
    args: tuple[Any, ...] = ()
    wanted: Literal["value", "count", "rows"] = "value"
    read: Callable[[Any], Any] | None = None
