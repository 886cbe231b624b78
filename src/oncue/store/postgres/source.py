"""Sources in PostgreSQL: what is asked of the user's tables there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from oncue.errors import StoreError
from oncue.job import Claimed
from oncue.store.base import SharedSources
from oncue.store.postgres import triggers
from oncue.store.postgres.near import DueKind, due_kind
from oncue.store.postgres.rows import is_key, quoted, relation, row_from, select, unhandled
from oncue.store.postgres.run import qualified
from oncue.store.sources import Applied, Found, Offer, Row, RowKey, SourceBroken, SourceStatus, Table
from oncue.store.steps import fetch

if TYPE_CHECKING:
    from oncue.store.postgres import PostgresStore
    from oncue.store.postgres.connection import Connection

log = logging.getLogger("oncue.source")
_MOST = 20_000
_SLICE = 1_000
_EXAMPLES = 5
_NO_TRIGGERS = {"v": "a view", "m": "a materialized view"}
# A wait for the table's lock holds up whoever comes after it, so it is a short one, and is tried again later.
_LOCK_WAIT = "1s"
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('oncue_note:' || $1, 0))"
_DENIED, _WAITED = "42501", ("55P03", "57014")
_DESCRIBE = """SELECT json_build_object(
  'kind', c.relkind,
  'columns', (
    SELECT coalesce(json_agg(json_build_array(
             a.attname, format_type(coalesce(b.oid, t.oid), NULL), t.typcategory) ORDER BY a.attnum), '[]')
    FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_type AS b ON b.oid = nullif(t.typbasetype, 0)
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  'unique', (
    SELECT coalesce(json_agg(a.attname), '[]') FROM pg_index AS i
    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1))::text
FROM pg_class AS c WHERE c.oid = to_regclass($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"""
_TABLES = """SELECT string_agg(name, ', ' ORDER BY name), current_setting('search_path') FROM (
  SELECT CASE WHEN pg_table_is_visible(c.oid) THEN '' ELSE n.nspname || '.' END || c.relname AS name
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND n.nspname NOT IN ('information_schema', $1)
    AND n.nspname NOT LIKE 'pg\\_%' AND c.relname NOT LIKE 'oncue\\_%') AS t"""


class Described(msgspec.Struct):
    """A table as it is: its ``relkind``, its columns as (name, type, type category), and those that are unique."""

    kind: str
    columns: list[tuple[str, str, str]]
    unique: list[str]

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [name for name, _, _ in self.columns]


class PostgresSources(SharedSources):
    """What the PostgreSQL store does for sources. It remembers which of them can have no triggers now, and why."""

    def __init__(self, store: PostgresStore) -> None:
        super().__init__(store)
        self._postgres = store
        self._schema = store.schema_name
        self._untriggered: dict[str, str] = {}

    async def check(self, table: Table) -> list[str]:
        """Return the table's columns. Raises SourceBroken where it, a column or the condition can't be used."""
        described, _ = await self._usable(table)
        wanted = dict.fromkeys(table.columns or ())
        for name in wanted:
            if name not in described.names:
                raise _broken(table, f"no such column: {name}", described)
        async with self._told(table, reading=True):
            await self._postgres.fetch(f"EXPLAIN {select(table)} LIMIT 0")
        if described.kind in ("r", "p") and table.id not in described.unique:
            raise SourceBroken(
                f"source {table.source}: {table.id!r} is neither the primary key of {table.table!r} nor unique, so it "
                "can't tell rows apart. Give id= the name of a unique column, or add a unique index."
            )
        return described.names

    async def exists(self, table: str) -> bool:
        """Tell whether there is such a table or view."""
        return await self._describe(table) is not None

    async def install(self, app: str, names: Sequence[str], wanted: Sequence[Table]) -> list[str]:
        """Make the triggers those of ``wanted``, and drop this app's others; return what was changed, in words.

        Where the table stays locked, or the role may make none, that is logged, and rows are seen by sweeps alone; the
        next call tries again. Raises SourceBroken for what can't have triggers.
        """
        found = await self._state(app, names, wanted)
        for table in wanted:
            _, kind = found.tables[relation(table.table)]
            if kind is None or kind in _NO_TRIGGERS:
                what = "there is no such table" if kind is None else f"{table.table!r} is {_NO_TRIGGERS[kind]}"
                raise SourceBroken(
                    f"source {table.source}: no trigger can be made: {what}. Views take none: declare the table "
                    "itself, or leave trigger= out."
                )
        make, drop = triggers.differences(found, names, wanted, self._schema)
        done: list[str] = []
        failed: dict[str, str] = {}
        for one in make:
            texts = [*one.function, *one.triggers.values()]
            if (trouble := await self._ddl(texts, one.name, app, names, wanted)) is None:
                done += [f"trigger {name} made for source {one.table.source}" for name in one.triggers]
            else:
                failed[one.table.source] = _untriggered(one.table.table, trouble, self._schema)
        # What notes for an older declaration is better than what notes nothing.
        for name, source in drop.items():
            if source not in failed:
                text = triggers.drop_text(name, self._schema)
                if (trouble := await self._ddl([text], name, app, names, wanted)) is None:
                    done.append(f"triggers {name} dropped, which were of source {source}")
                else:
                    failed[source] = f"its old triggers can't be dropped ({trouble}). The owner of them can: {text};"
        self._tell(failed)
        if found.gone:
            await self._forget(found.gone)
        return done + [f"source {name} is no longer in the code: it is not swept any more" for name in found.gone]

    async def find(self, table: Table, horizon: int) -> Found:
        """Return rows due by ``horizon`` whose due value is not handled, and rows that left a waiting job behind."""
        _, kind = await self._usable(table)
        async with self._told(table, reading=True):
            found, rows = await self._postgres.transaction(lambda conn: self._due(conn, table, kind, horizon))
        origin = f"source:{table.source}"
        waiting = dict(await self._store.look(lambda: fetch("source_live", origin=origin, before=1 << 62)))
        others = [key for key in waiting if key not in rows]
        for start in range(0, len(others), _SLICE):
            for row in await self.rows(table, others[start : start + _SLICE]):
                if row.due != waiting[row.key]:
                    rows[row.key] = row
        found.rows = list(rows.values())
        return found

    async def rows(self, table: Table, keys: Sequence[RowKey]) -> list[Row]:
        """Return these rows as they are now."""
        async with self._told(table, reading=True):
            return await super().rows(table, keys)

    async def apply(
        self, name: str, table: Table | None, offers: Sequence[Offer], now: int, expires_at: int | None, listed: int
    ) -> Applied:
        """Do what follows from these offers, in one transaction. An offer whose row has changed since is left out."""
        async with self._told(table):
            return await super().apply(name, table, offers, now, expires_at, listed)

    async def guard(self, table: Table, job: Claimed) -> tuple[str | None, bool]:
        """Return why a claimed job need not run (None: it must), and whether its row is due at another time now."""
        async with self._told(table):
            return await super().guard(table, job)

    async def save(
        self, status: SourceStatus, forget_before: int | None, table: Table | None, listed: Sequence[RowKey]
    ) -> None:
        """Record a sweep, and forget what was handled before that time of rows that have gone on since."""
        if (trouble := self._untriggered.get(status.name)) is not None:
            status = msgspec.structs.replace(status, drift={**(status.drift or {}), "trigger": trouble})
        async with self._told(table):
            await super().save(status, forget_before, table, listed)

    async def _describe(self, table: str) -> Described | None:
        records = await self._postgres.fetch(_DESCRIBE, (relation(table),))
        return msgspec.json.decode(records[0][0], type=Described) if records else None

    async def _usable(self, table: Table) -> tuple[Described, DueKind]:
        """Return the table as it is, and what its due column holds. Raises SourceBroken."""
        try:
            described = await self._describe(table.table)
        except StoreError as error:
            if _state(error) != _DENIED:
                raise
            raise SourceBroken(f"source {table.source}: {error.__cause__}. Grant USAGE on that schema.") from error
        if described is None:
            there, path = (await self._postgres.fetch(_TABLES, (self._schema,)))[0]
            where = "" if "." in table.table else f" on the search path ({path})"
            raise SourceBroken(
                f"source {table.source}: no table {table.table!r} in this database{where}. There are: "
                f"{there or 'none but those of OnCue'}. A table of another schema is named as 'schema.table'."
            )
        types = {name: (type, category) for name, type, category in described.columns}
        for name in (table.id, table.due):
            if name not in types:
                raise _broken(table, f"no such column: {name}", described)
        type, category = types[table.id]
        if type not in ("smallint", "integer", "bigint", "uuid") and category != "S":
            raise SourceBroken(
                f"source {table.source}: {table.id!r} is of type {type}, which can't tell rows apart here: a whole "
                "number, a text or a uuid can. Give id= the name of such a column."
            )
        try:
            return described, due_kind(*types[table.due], table.format)
        except ValueError as error:
            raise SourceBroken(f"source {table.source}: {table.due!r} {error}.") from error

    async def _due(
        self, conn: Connection, table: Table, kind: DueKind, horizon: int
    ) -> tuple[Found, dict[RowKey, Row]]:
        found = Found([])
        rows: dict[RowKey, Row] = {}
        bad: dict[Any, str] = {}
        for statement in unhandled(table, kind, horizon, self._schema):
            async for record in conn.cursor(statement.sql, *statement.args, prefetch=500):
                row = row_from(table, record)
                if row.unreadable or not is_key(row.key):
                    bad[row.key] = row.reason or "its id is no whole number or text"
                elif row.due is not None and row.due <= horizon:
                    rows[row.key] = row
                if len(rows) >= _MOST:
                    found.more = True
                    break
        found.unreadable = len(bad)
        found.examples = [f"row {key!r}: {why}" for key, why in list(bad.items())[:_EXAMPLES]]
        return found, rows

    @asynccontextmanager
    async def _told(self, table: Table | None, *, reading: bool = False) -> AsyncIterator[None]:
        """Report what is wrong with the user's table as that, never as the store's failure, which others would share.

        ``reading``: nothing but that table was read, so a wait that took too long is its trouble too.
        """
        try:
            yield
        except StoreError as error:
            state = _state(error)
            if table is None or not (_is_theirs(state) or (reading and state in _WAITED)):
                raise
            described, _ = await self._usable(table)
            if state[:2] == "42" and not reading:
                # This may be about a table of ours. Reading theirs alone tells.
                await self.check(table)
                raise
            hint = f" Grant it: GRANT SELECT ON {relation(table.table)} TO ...;" if state == _DENIED else ""
            raise _broken(table, f"{error.__cause__}", described, hint) from error

    async def _state(self, app: str, names: Sequence[str], wanted: Sequence[Table]) -> triggers.State:
        sql, args = triggers.state(app, names, wanted, self._schema)
        return msgspec.json.decode((await self._postgres.fetch(sql, args))[0][0], type=triggers.State)

    async def _ddl(
        self, texts: Sequence[str], function: str, app: str, names: Sequence[str], wanted: Sequence[Table]
    ) -> str | None:
        """Make or drop a source's triggers, unless another process just did; return what stood in the way."""

        async def work(conn: Connection) -> None:
            await conn.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
            await conn.fetch(_ONE_AT_A_TIME, self._schema)
            sql, args = triggers.state(app, names, wanted, self._schema)
            found = msgspec.json.decode(await conn.fetchval(sql, *args), type=triggers.State)
            make, drop = triggers.differences(found, names, wanted, self._schema)
            if function in drop or function in [one.name for one in make]:
                for text in texts:
                    await conn.execute(text)

        try:
            await self._postgres.transaction(work)
        except StoreError as error:
            if _state(error) not in (_DENIED, *_WAITED):
                raise
            return "locked" if _state(error) in _WAITED else str(error.__cause__)
        return None

    def _tell(self, failed: dict[str, str]) -> None:
        """Log what is new, not the same at every sweep."""
        for source, trouble in failed.items():
            if self._untriggered.get(source) != trouble:
                log.warning("source %s: %s", source, trouble)
        for source in self._untriggered.keys() - failed.keys():
            log.info("source %s has its triggers now", source)
        self._untriggered = failed

    async def _forget(self, gone: Sequence[str]) -> None:
        async def work(conn: Connection) -> None:
            for text in ("DELETE FROM oncue_source WHERE name = ANY ($1)",
                         "DELETE FROM oncue_source_change WHERE source = ANY ($1)"):  # fmt: skip
                await conn.execute(qualified(text, self._schema), list(gone))

        await self._postgres.transaction(work)


def _state(error: StoreError) -> str:
    return str(getattr(error.__cause__, "sqlstate", None) or "")


def _is_theirs(state: str) -> bool:
    """Tell whether an error of this SQLSTATE may be of the user's table or condition: syntax, names and rights; data,
    a function of theirs that failed, a subquery that is none."""
    return state[:2] in ("42", "22", "21", "2F", "38", "39", "P0", "0A")


def _broken(table: Table, problem: str, described: Described, hint: str = "") -> SourceBroken:
    where = f" (where={table.where!r})" if table.where else ""
    names = ", ".join(described.names)
    return SourceBroken(f"source {table.source}: {problem}{where}.{hint} The columns of {table.table!r} are: {names}.")


def _untriggered(table: str, trouble: str, schema: str) -> str:
    seen = "Until then its changes are seen by sweeps alone."
    if trouble == "locked":
        return (
            f"table {table!r} stayed locked for {_LOCK_WAIT}, so its triggers could not be made: look for long "
            f"transactions in pg_stat_activity. The next sweep tries again. {seen}"
        )
    return (
        f"no trigger can be made on {table!r} ({trouble}). As the table's owner: GRANT TRIGGER ON {relation(table)} "
        f"TO the worker's role, which also needs CREATE on schema {quoted(schema)}; or leave trigger= out. {seen}"
    )
