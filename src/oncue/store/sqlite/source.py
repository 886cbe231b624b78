"""Sources in SQLite: reading the user's table, and doing what follows in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from oncue.job import GROUP, KEY, Ack, Claimed
from oncue.store.due import UnreadableDue, near, parse_due
from oncue.store.sources import (
    WITHDRAWN,
    Applied,
    Facts,
    Found,
    Live,
    Memory,
    Offer,
    Plan,
    Row,
    RowKey,
    SourceBroken,
    SourceStatus,
    Table,
    row_of,
    settle,
)
from oncue.store.sqlite import triggers
from oncue.store.sqlite.claim import finish
from oncue.store.sqlite.insert import SQL, as_json, fetch, insert_jobs, release

if TYPE_CHECKING:
    from oncue.store.sqlite import SqliteStore

_memory = msgspec.json.Decoder(list[Memory])
_live = msgspec.json.Decoder(list[Live])
_status = msgspec.json.Decoder(list[SourceStatus])
_MOST = 20_000
_EXAMPLES = 5
_FORGET = 500
_UNHANDLED = """NOT EXISTS (SELECT 1 FROM oncue_source_row AS oncue_r WHERE oncue_r.source = :oncue_source
  AND oncue_r.row_key = +{id} AND oncue_r.raw IS +{due} AND oncue_r.unsettled = 0)"""


class SqliteSources:
    """What the SQLite store does for sources."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def check(self, table: Table) -> list[str]:
        """Return the table's columns. Raises SourceBroken where it, a column or the condition can't be used."""
        return await self._store.read(lambda conn: check(conn, table))

    async def exists(self, table: str) -> bool:
        """Tell whether there is such a table or view."""
        return await self._store.read(lambda conn: bool(triggers.kind_of(conn, table)))

    async def install(self, app: str, names: Sequence[str], wanted: Sequence[Table]) -> list[str]:
        """Make the triggers those of ``wanted``, and drop this app's others; return what was changed, in words."""
        if await self._store.read(lambda conn: triggers.is_in_step(conn, app, names, wanted)):
            return []
        return await self._store.write(lambda conn: triggers.install(conn, app, names, wanted))

    async def find(self, table: Table, horizon: int) -> Found:
        """Return rows due by ``horizon`` whose due value is not handled, and rows that left a waiting job behind."""
        return await self._store.read(lambda conn: find(conn, table, horizon))

    async def rows(self, table: Table, keys: Sequence[RowKey]) -> list[Row]:
        """Return these rows as they are now."""
        return await self._store.read(lambda conn: read_rows(conn, table, keys))

    async def live_keys(self, source: str, before: int) -> list[RowKey]:
        """Return the rows which have a waiting job of this source that was made before that time."""
        values = {"origin": f"source:{source}", "before": before}
        return await self._store.read(lambda conn: [key for key, _ in fetch(conn, "source_live", **values)])

    async def apply(
        self, source: str, table: Table | None, offers: Sequence[Offer], now: int, expires_at: int | None, listed: int
    ) -> Applied:
        """Do what follows from these offers, in one transaction. An offer whose row has changed since is left out."""
        return await self._store.write(lambda conn: apply(conn, source, table, offers, now, expires_at, listed))

    async def changes(self) -> dict[str, list[RowKey]]:
        """Return, by source, the rows that triggers saw change."""
        found: dict[str, list[RowKey]] = {}
        for source, key in await self._store.read(lambda conn: fetch(conn, "source_changes")):
            found.setdefault(source, []).append(key)
        return found

    async def drop_changes(self, source: str) -> None:
        """Forget what triggers saw of this source: a full look follows, or there is nothing to look at."""
        values = {"source": source}
        if await self._store.read(lambda conn: conn.execute(SQL["source_changed"], values).fetchone()[0]):
            await self._store.write(lambda conn: conn.execute(SQL["drop_changes"], values))

    async def guard(self, table: Table, job: Claimed) -> tuple[str | None, bool]:
        """Return why a claimed job need not run (None: it must), and whether its row is due at another time now."""
        reason, moved, settled = await self._store.read(lambda conn: _look(conn, table, job))
        if reason is None and settled:
            return None, False

        def decide(conn: sqlite3.Connection) -> tuple[str | None, bool]:
            reason, moved, _ = _look(conn, table, job)
            # Whether it will be skipped is certain only once that is recorded: until then the row is not settled.
            key, due = row_of(job)
            values = {"source": table.source, "row_key": key, "due": due, "job": job.id}
            conn.execute(SQL["source_unsettle"], {**values, "unsettled": int(reason is not None)})
            return reason, moved

        return await self._store.write(decide)

    async def save(
        self, status: SourceStatus, forget_before: int | None, table: Table | None, listed: Sequence[RowKey]
    ) -> None:
        """Record a sweep, and forget what was handled before that time of rows that have gone on since."""
        await self._store.write(lambda conn: _save(conn, status, forget_before, table, listed))

    async def status(self) -> list[SourceStatus]:
        """Return all sources as their last sweep left them."""
        return await self._store.read(lambda conn: _status.decode(conn.execute(SQL["sources"]).fetchone()[0]))


@contextmanager
def _users_table(conn: sqlite3.Connection, table: Table) -> Iterator[None]:
    """Report what is wrong with the user's table as that, never as the store's failure, which others would share."""
    factory = conn.text_factory
    conn.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.ProgrammingError, sqlite3.IntegrityError) as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) != sqlite3.SQLITE_ERROR:
            raise
        raise SourceBroken(f"source {table.source}: {explain(conn, table, str(error))}") from error
    finally:
        conn.text_factory = factory


def check(conn: sqlite3.Connection, table: Table) -> list[str]:
    """Return the table's columns. Raises SourceBroken where something in the declaration does not exist."""
    names = columns(conn, table.table)
    for wanted in dict.fromkeys((table.id, table.due, *(table.columns or ()))):
        if not names or wanted.lower() not in [name.lower() for name in names]:
            raise SourceBroken(f"source {table.source}: {explain(conn, table, f'no such column: {wanted}')}")
    with _users_table(conn, table):
        conn.execute(f"EXPLAIN {_select(table)} LIMIT 0", {}).fetchall()
    if triggers.kind_of(conn, table.table) == "table" and not _unique(conn, table):
        raise SourceBroken(
            f"source {table.source}: {table.id!r} is neither the primary key of {table.table!r} nor unique, so it "
            "can't tell rows apart. Give id= the name of a unique column, or add a unique index."
        )
    return names


def columns(conn: sqlite3.Connection, table: str) -> list[str]:
    """Return the names of a table's columns, generated ones included."""
    return [row[0] for row in conn.execute("SELECT name FROM pragma_table_xinfo(?)", (table,))]


def _unique(conn: sqlite3.Connection, table: Table) -> bool:
    keys = [row[0] for row in conn.execute("SELECT name FROM pragma_table_info(?) WHERE pk > 0", (table.table,))]
    single = conn.execute(
        "SELECT min(c.name) FROM pragma_index_list(?) AS i, pragma_index_info(i.name) AS c "
        'WHERE i."unique" AND NOT i.partial GROUP BY i.name HAVING count(*) = 1',
        (table.table,),
    ).fetchall()
    unique = [name for (name,) in single if name is not None] + (keys if len(keys) == 1 else [])
    return table.id.lower() in [name.lower() for name in unique]


def explain(conn: sqlite3.Connection, table: Table, problem: str) -> str:
    """Say what is wrong in the declaration, with what there is instead."""
    names = columns(conn, table.table)
    if not names:
        there = conn.execute(
            "SELECT group_concat(name, ', ') FROM (SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
            "AND name NOT LIKE 'oncue\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name)"
        ).fetchone()[0]
        return f"no table {table.table!r} in this database. There are: {there or 'none but OnCue its own'}."
    where = f" (where={table.where!r})" if table.where else ""
    return f"{problem}{where}. The columns of {table.table!r} are: {', '.join(names)}."


def quoted(name: str) -> str:
    """Quote an identifier, so that it is a name whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def _select(table: Table) -> str:
    """The statement that reads rows: id, due, whether the condition holds, and the columns that templates need."""
    # On lines of its own, a comment in the condition can't swallow what follows.
    ok = f"CASE WHEN (\n{table.where}\n) THEN 1 ELSE 0 END" if table.where else "1"
    extra = ["*"] if table.columns is None else [_column(table, name) for name in table.columns]
    names = ", ".join([_column(table, table.id), _column(table, table.due), ok, *extra])
    return f"SELECT {names} FROM {quoted(table.table)}"


def _column(table: Table, name: str) -> str:
    """A column by its full name: SQLite takes a lone quoted name that it does not know for a text."""
    return f"{quoted(table.table)}.{quoted(name)}"


def _row(table: Table, names: Sequence[str], seen: tuple[Any, ...]) -> Row:
    key, raw, ok = seen[:3]
    due: int | None = None
    unreadable = False
    if not ok:
        reason = f"it no longer matches ({table.where})"
    elif raw is None:
        reason = f"its {table.due} is empty"
    else:
        reason = ""
        try:
            due = parse_due(raw, table.format)
        except UnreadableDue as error:
            reason, unreadable = f"its {table.due} can't be read: {error}", True
    return Row(key, seen, due, reason or None, dict(zip(names, seen[3:], strict=True)), unreadable)


def _names(cursor: sqlite3.Cursor) -> list[str]:
    return [column[0] for column in cursor.description[3:]]


def _is_key(key: object) -> bool:
    return isinstance(key, int) or (isinstance(key, str) and key.encode("utf-8", "replace").decode() == key)


def find(conn: sqlite3.Connection, table: Table, horizon: int) -> Found:
    """Look for rows that may need something done; the user's index on the due column serves."""
    found = Found([])
    rows: dict[RowKey, Row] = {}
    bad: dict[object, str] = {}
    with _users_table(conn, table):
        for condition, values in near(_column(table, table.due), table.format, horizon):
            for row in _unhandled(conn, table, condition, values):
                if row.unreadable or not _is_key(row.key):
                    bad[row.key] = row.reason or "its id is no whole number or text"
                elif row.due is not None and row.due <= horizon:
                    rows[row.key] = row
                if len(rows) >= _MOST:
                    found.more = True
                    break
    found.unreadable = len(bad)
    found.examples = [f"row {key!r}: {why}" for key, why in list(bad.items())[:_EXAMPLES]]
    waiting = dict(fetch(conn, "source_live", origin=f"source:{table.source}", before=1 << 62))
    for row in read_rows(conn, table, [key for key in waiting if key not in rows]):
        if row.due != waiting[row.key]:
            rows[row.key] = row
    found.rows = list(rows.values())
    return found


def _unhandled(conn: sqlite3.Connection, table: Table, condition: str, values: dict[str, Any]) -> Iterator[Row]:
    where = f"(\n{table.where}\n) AND " if table.where else ""
    unhandled = _UNHANDLED.format(id=_column(table, table.id), due=_column(table, table.due))
    statement = f"{_select(table)} WHERE {where}{condition} AND {unhandled}"
    cursor = conn.execute(statement, {**values, "oncue_source": table.source})
    names = _names(cursor)
    for seen in cursor:
        yield _row(table, names, seen)


def read_rows(conn: sqlite3.Connection, table: Table, keys: Sequence[RowKey]) -> list[Row]:
    """Return these rows as they are now, one for each key."""
    found: dict[RowKey, Row] = {key: Row(key, None, None, "it is gone") for key in keys}
    if not keys:
        return []
    with _users_table(conn, table):
        statement = f"{_select(table)} WHERE {_column(table, table.id)} IN (SELECT value FROM json_each(:oncue_keys))"
        cursor = conn.execute(statement, {"oncue_keys": as_json(keys)})
        names = _names(cursor)
        for seen in cursor:
            if seen[0] in found:
                found[seen[0]] = _row(table, names, seen)
    return list(found.values())


def apply(
    conn: sqlite3.Connection,
    source: str,
    table: Table | None,
    offers: Sequence[Offer],
    now: int,
    expires_at: int | None,
    listed: int,
) -> Applied:
    """Do what follows from these offers, inside the caller's transaction."""
    if table is None:
        # A listing that began before one that was applied since knows less than that.
        if conn.execute(SQL["source_listed"], {"name": source, "listed": listed}).rowcount != 1:
            return Applied()
    else:
        current = {row.key: row.seen for row in read_rows(conn, table, [offer.key for offer in offers])}
        offers = [offer for offer in offers if current[offer.key] == offer.seen]
    if not offers:
        return Applied()
    plan = settle(offers, _facts(conn, source, offers))
    done = _carry_out(conn, source, plan, now, expires_at)
    if table is not None:
        keys = as_json([offer.key for offer in offers])
        conn.execute(SQL["drop_some_changes"], {"source": source, "keys": keys})
    return done


def _facts(conn: sqlite3.Connection, source: str, offers: Sequence[Offer]) -> Facts:
    facts = Facts(f"source:{source}")
    keys = as_json(sorted({offer.job.key for offer in offers if offer.job is not None and offer.job.key is not None}))
    rows = as_json([offer.key for offer in offers])
    memory = _memory.decode(conn.execute(SQL["source_memory"], {"source": source, "keys": rows}).fetchone()[0])
    facts.memory = {one.row_key: one for one in memory}
    prefixes = as_json(["[" + as_json(offer.key) for offer in offers])
    values = {"origin": facts.origin, "keys": keys, "prefixes": prefixes}
    for job in _live.decode(conn.execute(SQL["source_jobs"], values).fetchone()[0]):
        if job.origin == facts.origin:
            key, _ = msgspec.json.decode(job.origin_ref or "")
            facts.own.setdefault(key, []).append(job)
        if job.key is not None:
            (facts.started if job.attempt else facts.waiting)[job.key] = job
    unsettled = [one.job for one in memory if one.unsettled]
    if unsettled:
        facts.outcomes = dict(fetch(conn, "outcomes_of", ids=as_json(unsettled)))
    refs = as_json([offer.ref for offer in offers if offer.job is not None])
    facts.done_refs = dict(fetch(conn, "source_done_refs", origin=facts.origin, refs=refs))
    for name, id, due in fetch(conn, "source_done_keys", keys=keys):
        facts.done_keys.setdefault(name, []).append((id, due))
    return facts


def _carry_out(conn: sqlite3.Connection, source: str, plan: Plan, now: int, expires_at: int | None) -> Applied:
    freed: list[str] = []
    if plan.cancel:
        acks = [
            Ack(job.id, job.attempt, "cancelled", WITHDRAWN, now, now, reason=f"source {source}: {reason}")
            for job, reason in plan.cancel
        ]
        for ack in acks:
            ack.expires_at = expires_at
        finish(conn, None, acks)
        freed += [KEY + job.key for job, _ in plan.cancel if job.key is not None]
        freed += [GROUP + job.group for job, _ in plan.cancel if job.group is not None]
    if plan.forget:
        conn.execute(SQL["source_forget"], {"source": source, "keys": as_json(plan.forget)})
    if plan.move:
        conn.execute(SQL["source_move"], {"moves": as_json(plan.move)})
        freed += [GROUP + group for *_, group in plan.move if group is not None]
    made = []
    remember = [(source, *entry) for entry in plan.remember]
    if plan.make:
        inserted = insert_jobs(conn, [offer.job for offer in plan.make if offer.job is not None])
        for offer, row in zip(plan.make, inserted, strict=True):
            if row.status != "created" or offer.job is None:
                plan.deferred.append(offer.key)
                continue
            made.append(row.scheduled_at)
            remember.append((source, offer.key, offer.job.scheduled_at, offer.raw, row.id, 0))
    if remember:
        conn.executemany(SQL["source_remember"], remember)
    if freed:
        release(conn, freed)
    times = made + [due for _, due, _, _ in plan.move]
    return Applied(len(made), len(plan.move), len(plan.cancel), min(times, default=None), plan.deferred)


def _look(conn: sqlite3.Connection, table: Table, job: Claimed) -> tuple[str | None, bool, bool]:
    """Return why the job need not run, whether its row is due at another time, and whether its memory is settled."""
    key, due = row_of(job)
    row = read_rows(conn, table, [key])[0]
    values = {"source": table.source, "row_key": key, "due": due, "job": job.id}
    found = conn.execute(SQL["source_unsettled"], values).fetchone()
    settled = found is None or found[0] == 0
    if row.due == due:
        return None, False, settled
    if row.due is None:
        return f"source {table.source}: {row.reason} (row {key!r})", False, settled
    return f"source {table.source}: its due time was moved to {row.raw!r} (row {key!r})", True, settled


def _save(
    conn: sqlite3.Connection,
    status: SourceStatus,
    forget_before: int | None,
    table: Table | None,
    listed: Sequence[RowKey],
) -> None:
    values = {name: getattr(status, name) for name in ("name", "app", "swept_at", "made", "moved", "cancelled")}
    drift = None if status.drift is None else as_json(status.drift)
    conn.execute(SQL["save_source"], {**values, "unreadable": status.unreadable, "drift": drift})
    if forget_before is None:
        return
    gone = "r.row_key NOT IN (SELECT value FROM json_each(:listed))"
    if table is not None:
        gone = (
            f"NOT EXISTS (SELECT 1 FROM {quoted(table.table)} WHERE {_column(table, table.id)} = r.row_key "
            f"AND {_column(table, table.due)} IS r.raw)"
        )
    forget = (
        "DELETE FROM oncue_source_row WHERE source = :source AND row_key IN (SELECT row_key FROM oncue_source_row AS r "
        f"WHERE source = :source AND due < :before AND {gone} "
        "AND NOT EXISTS (SELECT 1 FROM oncue_job AS j WHERE j.id = r.job) LIMIT :most)"
    )
    values = {"source": status.name, "before": forget_before, "listed": as_json(listed), "most": _FORGET}
    if table is None:
        conn.execute(forget, values)
        return
    with _users_table(conn, table):
        conn.execute(forget, values)
