"""The SQL of every store, as files: one schema and one set of named queries a dialect."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

FILES = ("queries.sql", "inbox.sql", "outbox.sql", "chats.sql", "files.sql", "operate.sql", "watch.sql")


@cache
def queries(dialect: str) -> dict[str, str]:
    """Return a dialect's queries by name, in the order of the files."""
    found: dict[str, str] = {}
    for file in FILES:
        parts = [part.partition("\n") for part in text(dialect, file).split("\n-- name: ")[1:]]
        for name, _, query in parts:
            if not query.strip().endswith(";"):
                raise ValueError(f"{dialect}/{file}: after {name} stands a comment; put it below the next name line")
            if name in found:
                raise ValueError(f"{dialect}/{file}: another query is named {name}")
            found[name] = query.strip().removesuffix(";")
    return found


def text(dialect: str, name: str) -> str:
    """Return the text of one SQL file."""
    return files(__name__).joinpath(dialect, name).read_text("utf-8")
