"""How answers look: tables on a terminal, tab-separated lines in a pipe, JSON where asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec

from oncue.clock import from_us, to_us
from oncue.clock import iso as iso_of
from oncue.why import seconds

if TYPE_CHECKING:
    from oncue.operate.views import JobRow

Record = Mapping[str, Any]
_MOMENTS = ("at", "next", "last", "since")
_MOMENTS_END = ("_at", "_due", "_since", "_until")
_MAY_WRAP = {"args", "task", "runs", "note", "blocked_by", "name", "why", "found", "text", "detail", "target", "error"}
_COLOURS = {
    "running": "cyan",
    "completed": "green",
    "discarded": "red",
    "cancelled": "yellow",
    "alive": "green",
    "silent": "yellow",
    "dead": "red",
    "paused": "yellow",
}


class Moment:
    """A time to show, in microseconds since the epoch. No dataclass: JSON would hold its fields, and not the time."""

    __slots__ = ("us",)

    def __init__(self, us: int) -> None:
        self.us = us

    @property
    def iso(self) -> str:
        """The time in ISO 8601, UTC, to the microsecond."""
        return iso_of(self.us)

    @property
    def near(self) -> str:
        """The time as seen from now: ``in 5 min``, ``3 h ago``."""
        away = self.us - time.time_ns() // 1000
        return f"in {seconds(away)}" if away >= 0 else f"{seconds(away)} ago"

    def __str__(self) -> str:
        return f"{from_us(self.us):%Y-%m-%d %H:%M:%S} UTC ({self.near})"


def moment(us: int | None) -> Moment | None:
    """Return a Moment, or None for None."""
    return None if us is None else Moment(us)


def record_of(struct: msgspec.Struct) -> dict[str, Any]:
    """Return what the read model answered as a record: its times as Moments, which JSON writes as they were."""
    record: dict[str, Any] = msgspec.to_builtins(struct)
    for name, value in record.items():
        if isinstance(value, str) and (name in _MOMENTS or name.endswith(_MOMENTS_END)):
            record[name] = Moment(to_us(datetime.fromisoformat(value)))
    return record


def on_terminal() -> bool:
    """Tell whether standard output is looked at by a person."""
    return sys.stdout.isatty()


def to_json(value: object, indent: int = 2) -> str:
    """Return a value as indented JSON, or with ``indent=0`` on one line; moments as ISO 8601."""
    text = msgspec.json.encode(value, enc_hook=lambda kept: kept.iso if isinstance(kept, Moment) else str(kept))
    return (msgspec.json.format(text, indent=indent) if indent else text).decode()


def tell(answer: object, text: str, as_json: bool) -> None:
    """Print what was done: the answer as JSON where that was asked for, else the text."""
    click.echo(to_json(answer) if as_json else text)


def show(records: Sequence[Record], columns: Sequence[str], as_json: bool, *, empty: str = "nothing there") -> None:
    """Print records: all that they hold as JSON, else these columns of them."""
    if as_json:
        click.echo(to_json(records))
    elif not on_terminal():
        for record in records:
            click.echo("\t".join(plain(record[column]) for column in columns))
    elif not records:
        click.echo(f"({empty})")
    else:
        _table(records, columns)


def _table(records: Sequence[Record], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # What is empty everywhere would only take room from the rest.
    columns = [column for column in columns if any(plain(record[column]) for record in records)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: Literal["right", "left"] = (
            "right" if all(type(record[column]) is int for record in records) else "left"
        )
        heading = column.removesuffix("_at").replace("_", " ")
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=column not in _MAY_WRAP)
    for record in records:
        texts = ((record[column], _pretty(record[column])) for column in columns)
        table.add_row(
            *(Text(text, style=_COLOURS.get(text, "") if isinstance(raw, str) else "") for raw, text in texts)
        )
    Console().print(table)


def _pretty(value: object) -> str:
    return value.near if isinstance(value, Moment) else plain(value)


def plain(value: object) -> str:
    """Return a value as one line of text without control characters, so that data can't steer a terminal."""
    if value is None or value is False:
        return ""
    if value is True:
        return "yes"
    if isinstance(value, Moment):
        return value.iso
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return clean(text.replace("\t", " ").replace("\n", " "))


def clean(text: str) -> str:
    """Return text whose control characters, other than line ends, are written as escapes."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def call_text(job: JobRow) -> str:
    """Return a job's call as it would be written."""
    if not isinstance(job.args, dict):
        return f"{job.task}({msgspec.json.encode(job.args).decode()})"
    given = ", ".join(f"{name}={msgspec.json.encode(value).decode()}" for name, value in job.args.items())
    return clean(f"{job.task}({given})")
