"""Sources in SQLite: reading the user's table, and doing what follows in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from oncue.job import GROUP, KEY, Ack, Claimed
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
    SourceStatus,
    Table,
    row_of,
    settle,
)
from oncue.store.sqlite import triggers
from oncue.store.sqlite.claim import finish
from oncue.store.sqlite.insert import SQL, as_json, fetch, insert_jobs, release
from oncue.store.sqlite.rows import check, column, find, quoted, read_rows, users_table

if TYPE_CHECKING:
    from oncue.store.sqlite import SqliteStore

_memory = msgspec.json.Decoder(list[Memory])
_live = msgspec.json.Decoder(list[Live])
_status = msgspec.json.Decoder(list[SourceStatus])
_FORGET = 500


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
        reason, _, settled = await self._store.read(lambda conn: _look(conn, table, job))
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
        same = f"{column(table, table.id)} = r.row_key AND {column(table, table.due)} IS r.raw"
        gone = f"NOT EXISTS (SELECT 1 FROM {quoted(table.table)} WHERE {same})"  # noqa: S608 - quoted names
    forget = SQL["source_forget_gone"].replace("{gone}", gone)
    values = {"source": status.name, "before": forget_before, "listed": as_json(listed), "most": _FORGET}
    if table is None:
        conn.execute(forget, values)
        return
    with users_table(conn, table):
        conn.execute(forget, values)
