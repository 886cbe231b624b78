"""The SQL of every store, as files: one schema and one set of named queries a dialect."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def queries(dialect: str) -> dict[str, str]:
    """Return a dialect's queries by name, in the order of the file."""
    parts = [part.partition("\n") for part in text(dialect, "queries.sql").split("\n-- name: ")[1:]]
    found = {name: query.strip().removesuffix(";") for name, _, query in parts}
    for name, _, query in parts:
        if not query.strip().endswith(";"):
            raise ValueError(f"{dialect}/queries.sql: after {name} stands a comment; put it below the next name line")
    return found


def text(dialect: str, name: str) -> str:
    """Return the text of one SQL file."""
    return files(__name__).joinpath(dialect, name).read_text("utf-8")
