"""The SQL of every store: for each dialect the same named queries by rooms, their common parts, and ``schema/``.

Queries stand in the same order in every dialect. Sets travel as one JSON text, so that a batch is one statement; on
PostgreSQL as arrays where they are large.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

_PARTS = "parts.sql"


@cache
def queries(dialect: str) -> dict[str, str]:
    """Return a dialect's queries by name, in the order of the files' names, with the parts that they name in braces."""
    parts = _named(dialect, _PARTS)
    found: dict[str, str] = {}
    here = files(__name__).joinpath(dialect).iterdir()
    for file in sorted(each.name for each in here if each.name.endswith(".sql") and each.name != _PARTS):
        for name, query in _named(dialect, file).items():
            if name in found:
                raise ValueError(f"{dialect}/{file}: another query is named {name}")
            found[name] = query
            for part, body in parts.items():
                found[name] = found[name].replace(f"{{{part}}}", body)
    return found


def _named(dialect: str, file: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text(dialect, file).split("\n-- name: ")[1:]:
        name, _, body = part.partition("\n")
        if not body.strip().endswith(";"):
            raise ValueError(f"{dialect}/{file}: after {name} stands a comment; put it below the next name line")
        if name in found:
            raise ValueError(f"{dialect}/{file}: another query is named {name}")
        found[name] = body.strip().removesuffix(";")
    return found


def text(dialect: str, name: str) -> str:
    """Return the text of one SQL file."""
    return files(__name__).joinpath(dialect, name).read_text("utf-8")
