"""Callers' connections to PostgreSQL, of every driver that is taken: how a statement runs on each."""

from __future__ import annotations

import re
import sys
from collections.abc import MutableMapping, Sequence
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from oncue.errors import InvalidJob
from oncue.store.postgres.statement import Statement

TAKEN = (
    "an asyncpg, psycopg or psycopg2 connection, a SQLAlchemy Session or Connection (also an asynchronous one), or "
    "Django's connection"
)
_PLACE = re.compile(r"\$(\d+)|%")
_JSON = re.compile(r"(\$\d+)::(jsonb?)\b")
_IDLE = 0
_memories: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


class Link:
    """A caller's connection as something that runs statements.

    ``memory`` is for what is known of the connection, and lives as long as that.
    """

    def __init__(self, connection: Any, memory: MutableMapping[Any, Any]) -> None:
        self.connection, self.memory = connection, memory

    def commits_alone(self) -> bool:
        """Tell whether a statement would be a transaction of its own now."""
        raise NotImplementedError

    def run(self, statement: Statement) -> Any:
        """Run a statement and return its answer; an awaitable of that where the driver is asynchronous."""
        raise NotImplementedError


class DbapiLink(Link):
    """psycopg, psycopg2, and Django's connection over one of them. ``raw`` is the driver's own connection."""

    def __init__(self, connection: Any, raw: Any) -> None:
        super().__init__(connection, memory_of(raw))
        self._raw = raw

    def commits_alone(self) -> bool:
        """Tell whether a statement would be a transaction of its own now."""
        return bool(self._raw.autocommit) and int(self._raw.info.transaction_status) == _IDLE

    def run(self, statement: Statement) -> Any:
        """Run a statement and return its answer."""
        sql, args = percent(statement)
        with self._cursor() as cursor:
            cursor.execute(sql, args)
            return _answer(statement, cursor)

    def _cursor(self) -> Any:
        return self.connection.cursor()


class Psycopg2Link(DbapiLink):
    """psycopg2, with rows as tuples whatever cursors the caller prefers."""

    def _cursor(self) -> Any:
        return self.connection.cursor(cursor_factory=sys.modules["psycopg2.extensions"].cursor)


class PsycopgLink(DbapiLink):
    """psycopg 3, with rows as tuples and ``%s`` whatever cursors the caller prefers."""

    def commits_alone(self) -> bool:
        """Tell whether a statement would be a transaction of its own now."""
        if self._piped:
            # What was sent before is answered first: only then the state is known.
            with self.connection.pipeline():
                pass
        return super().commits_alone()

    def run(self, statement: Statement) -> Any:
        """Run a statement and return its answer; in a pipeline it has an end of its own, so that an error has one."""
        if not self._piped:
            return super().run(statement)
        sql, args = percent(statement)
        with self._cursor() as cursor:
            with self.connection.pipeline():
                cursor.execute(sql, args)
            return _answer(statement, cursor)

    @property
    def _piped(self) -> bool:
        return bool(self.connection.info.pipeline_status)

    def _cursor(self) -> Any:
        psycopg = sys.modules["psycopg"]
        return psycopg.Cursor(self.connection, row_factory=psycopg.rows.tuple_row)


class AsyncPsycopgLink(Link):
    """psycopg 3's asynchronous connection."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection, memory_of(connection))

    async def settle(self) -> None:
        """Have what was sent before answered, so that the transaction's state is known."""
        if self.connection.info.pipeline_status:
            async with self.connection.pipeline():
                pass

    def commits_alone(self) -> bool:
        """Tell whether a statement would be a transaction of its own now."""
        return self.connection.autocommit and int(self.connection.info.transaction_status) == _IDLE

    async def run(self, statement: Statement) -> Any:
        """Run a statement and return its answer; in a pipeline it has an end of its own, so that an error has one."""
        sql, args = percent(statement)
        psycopg = sys.modules["psycopg"]
        async with psycopg.AsyncCursor(self.connection, row_factory=psycopg.rows.tuple_row) as cursor:
            if self.connection.info.pipeline_status:
                async with self.connection.pipeline():
                    await cursor.execute(sql, args)
            else:
                await cursor.execute(sql, args)
            rows = [] if statement.wanted == "count" else await cursor.fetchall()
            return _read(statement, rows, cursor.rowcount)


class AsyncpgLink(Link):
    """asyncpg, with its own records whatever class the caller prefers."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection, memory_of(getattr(connection, "_con", connection)))

    def commits_alone(self) -> bool:
        """Tell whether a statement would be a transaction of its own now."""
        return not self.connection.is_in_transaction()

    async def run(self, statement: Statement) -> Any:
        """Run a statement and return its answer."""
        sql = numbered(statement.sql)
        if statement.wanted == "count":
            status = await self.connection.execute(sql, *statement.args)
            number = status.rpartition(" ")[2]
            return _read(statement, [], int(number) if number.isdigit() else 0)
        record = sys.modules["asyncpg"].Record
        return _read(statement, await self.connection.fetch(sql, *statement.args, record_class=record), 0)


class AlchemyLink(Link):
    """A SQLAlchemy Connection: through it, since it begins the transaction when it is first used."""

    def __init__(self, connection: Any) -> None:
        driver = connection.dialect.driver
        if connection.dialect.name != "postgresql" or driver not in _STYLES:
            raise InvalidJob(
                f"connection= is of SQLAlchemy's {connection.dialect.name}+{driver}; on PostgreSQL OnCue takes part "
                "with postgresql+psycopg, +psycopg2 and +asyncpg. Use one of those, or leave connection= out."
            )
        super().__init__(connection, connection.info)
        self._numbered = _STYLES[driver]

    def commits_alone(self) -> bool:
        """Tell whether a statement would be a transaction of its own now."""
        return bool(self.connection.connection.dbapi_connection.autocommit)

    def run(self, statement: Statement) -> Any:
        """Run a statement and return its answer."""
        sql, args = (numbered(statement.sql), statement.args) if self._numbered else percent(statement)
        result = self.connection.exec_driver_sql(sql, tuple(args) if args else None)
        return _read(statement, [] if statement.wanted == "count" else result.all(), result.rowcount)


_STYLES = {"psycopg": False, "psycopg_async": False, "psycopg2": False, "asyncpg": True}


@cache
def numbered(sql: str) -> str:
    """Return a text whose JSON arguments are texts to asyncpg, which may encode JSON in the caller's own way."""
    return _JSON.sub(r"\1::text::\2", sql)


def percent(statement: Statement) -> tuple[str, Sequence[Any] | None]:
    """Return a statement with ``%s`` in place of ``$1``, ``$2``, ..., and an argument for each; None for none."""
    if not statement.args:
        return statement.sql, None
    text, order = _percent(statement.sql)
    return text, [statement.args[number] for number in order]


@cache
def _percent(sql: str) -> tuple[str, tuple[int, ...]]:
    order = tuple(int(found) - 1 for found in _PLACE.findall(sql) if found)
    return _PLACE.sub(lambda found: "%s" if found[1] else "%%", sql), order


def _answer(statement: Statement, cursor: Any) -> Any:
    return _read(statement, [] if statement.wanted == "count" else cursor.fetchall(), cursor.rowcount)


def _read(statement: Statement, rows: Sequence[Any], count: int) -> Any:
    answer: Any = count
    if statement.wanted == "value":
        answer = rows[0][0] if rows else None
    elif statement.wanted == "rows":
        answer = [tuple(row) for row in rows]
    return answer if statement.read is None else statement.read(answer)


def memory_of(connection: Any) -> MutableMapping[Any, Any]:
    """Return what is remembered of a driver's connection."""
    return _memories.setdefault(connection, {})


def of_class(connection: object, module: str, *names: str) -> bool:
    """Tell whether this is one of a module's classes. Nothing is imported: who has one has imported it."""
    found = sys.modules.get(module)
    classes = [getattr(found, name, None) for name in names]
    return isinstance(connection, tuple(one for one in classes if isinstance(one, type)))


def sqlstate(error: BaseException) -> str:
    """Return PostgreSQL's code in an error of any driver, also where SQLAlchemy or Django wrapped it; else ''."""
    for one in (error, getattr(error, "orig", None), error.__cause__):
        state = getattr(one, "sqlstate", None) or getattr(one, "pgcode", None)
        if state:
            return str(state)
    return ""
