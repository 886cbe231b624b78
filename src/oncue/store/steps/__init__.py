"""What stores do, as steps: each operation is a generator that asks for named queries and is sent their answers.

So there is one logic for every database and every driver, waiting or not: a store (or a caller's own connection)
runs the steps, one after the other, inside a transaction. Nothing here does any input or output.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from msgspec.json import decode, encode

from oncue.job import Ack, NewJob
from oncue.store.sources import RowKey, Table

T = TypeVar("T")


class Query(NamedTuple):
    """A named query. Its answer is the first column of the first row (``value``; None without a row), or the number of
    rows that it changed (``count``). ``filters``: the conditions ``where_...`` that stand for its ``{where}``."""

    name: str
    values: Mapping[str, Any]
    wanted: Literal["value", "count"] = "value"
    filters: Sequence[str] = ()


class Ids(NamedTuple):
    """Reserve ids. The answer is the ids, rising."""

    number: int
    name: Literal["job", "worker"] = "job"


class InsertJobs(NamedTuple):
    """Store these rows. The answer is the ids of those whose key or origin someone else took at this very moment."""

    jobs: Sequence[NewJob]


class Finish(NamedTuple):
    """Move jobs to the history, as far as ``worker`` (None: nobody) still holds that attempt. The answer is the ids of
    the others."""

    worker: int | None
    acks: Sequence[Ack]


class Release(NamedTuple):
    """Let those go on who wait behind these names, later and elsewhere. The answer is whether that was arranged: if
    not, it is to be done here and now."""

    names: Sequence[str]


class ReadRows(NamedTuple):
    """Read these rows of a user's table. The answer is one ``Row`` for each key."""

    table: Table
    keys: Sequence[RowKey]


class Remember(NamedTuple):
    """Store what was handled of a source's rows: (row key, due, raw due value, job, unsettled). There is no answer."""

    source: str
    entries: Sequence[tuple[RowKey, int, Any, int, int]]


class ForgetGone(NamedTuple):
    """Forget what was handled before that time of rows that have gone on since; of those not ``listed`` where there is
    no table. There is no answer."""

    source: str
    before: int
    table: Table | None
    listed: Sequence[RowKey]


Step = Query | Ids | InsertJobs | Finish | Release | ReadRows | Remember | ForgetGone
Steps = Generator[Step, Any, T]


def ask(name: str, /, **values: Any) -> Query:
    """Ask for a query's one value."""
    return Query(name, values)


def run(name: str, /, **values: Any) -> Query:
    """Ask for a query that changes rows, and for their number."""
    return Query(name, values, "count")


def as_json(value: object) -> str:
    """Return the JSON text of a batch, as the queries take it."""
    return encode(value).decode()


def fetch(name: str, /, **values: Any) -> Steps[Any]:
    """Run a query that answers one JSON text, and decode it."""
    return decode((yield Query(name, values)))
