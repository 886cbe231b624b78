"""The SQL of every store, as files: one schema, one set of named queries and their common parts a dialect."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

FILES = ("queries.sql", "inbox.sql", "outbox.sql", "chats.sql", "files.sql", "operate.sql", "watch.sql")


@cache
def queries(dialect: str) -> dict[str, str]:
    """Return a dialect's queries by name, in the order of the files, with the parts that they name in braces."""
    parts = _named(dialect, "parts.sql")
    found: dict[str, str] = {}
    for file in FILES:
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
