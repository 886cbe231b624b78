"""The SQL of every store, as files: one schema and one set of named queries a dialect."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAMED = re.compile(r"^-- name: (\w+)\n(.*?);\s*(?=^-- name:|\Z)", re.S | re.M)


@cache
def queries(dialect: str) -> dict[str, str]:
    """Return a dialect's queries by name, in the order of the file."""
    return dict(_NAMED.findall(text(dialect, "queries.sql")))


def text(dialect: str, name: str) -> str:
    """Return the text of one SQL file."""
    return files(__name__).joinpath(dialect, name).read_text("utf-8")
