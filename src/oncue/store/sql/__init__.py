"""The SQL of every store, as files: one schema and one set of named queries a dialect."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def queries(dialect: str) -> dict[str, str]:
    """Return a dialect's queries by name, in the order of the file."""
    parts = text(dialect, "queries.sql").split("\n-- name: ")[1:]
    named = [part.partition("\n") for part in parts]
    found = {name: query[: query.rindex(";")] for name, _, query in named}
    if len(found) != len(parts) or any(query.strip().startswith("--") for query in found.values()):
        raise ValueError(f"{dialect}/queries.sql: two queries share a name, or a comment stands before one")
    return found


def text(dialect: str, name: str) -> str:
    """Return the text of one SQL file."""
    return files(__name__).joinpath(dialect, name).read_text("utf-8")
