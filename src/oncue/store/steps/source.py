"""Sources: what follows from the rows of a user's table, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from oncue.job import GROUP, KEY, Ack, Claimed
from oncue.store.sources import (
    WITHDRAWN,
    Applied,
    Facts,
    Live,
    Memory,
    Offer,
    Plan,
    RowKey,
    SourceStatus,
    Table,
    row_of,
    settle,
)
from oncue.store.steps import Finish, ForgetGone, ReadRows, Remember, Steps, as_json, ask, fetch, run
from oncue.store.steps.insert import insert_jobs, release

_memory = msgspec.json.Decoder(list[Memory])
_live = msgspec.json.Decoder(list[Live])
_status = msgspec.json.Decoder(list[SourceStatus])


def apply(
    source: str, table: Table | None, offers: Sequence[Offer], now: int, expires_at: int | None, listed: int
) -> Steps[Applied]:
    """Do what follows from these offers, inside the caller's transaction."""
    yield ask("source_lock", source=source)
    if table is None:
        # A listing that began before one that was applied since knows less than that.
        if (yield run("source_listed", name=source, listed=listed)) != 1:
            return Applied()
    else:
        # First: the rows are read after whatever is forgotten here was committed, so no later change goes with it.
        yield run("drop_some_changes", source=source, keys=as_json([offer.key for offer in offers]))
        current = {row.key: row.seen for row in (yield ReadRows(table, [offer.key for offer in offers]))}
        changed = [offer.key for offer in offers if current[offer.key] != offer.seen]
        if changed:
            yield run("note_rows", source=source, keys=as_json(changed))
        offers = [offer for offer in offers if current[offer.key] == offer.seen]
    if not offers:
        return Applied()
    plan = settle(offers, (yield from _facts(source, offers)))
    return (yield from _carry_out(source, plan, now, expires_at))


def _facts(source: str, offers: Sequence[Offer]) -> Steps[Facts]:
    facts = Facts(f"source:{source}")
    keys = as_json(sorted({offer.job.key for offer in offers if offer.job is not None and offer.job.key is not None}))
    rows = as_json([offer.key for offer in offers])
    prefixes = as_json(["[" + as_json(offer.key) for offer in offers])
    values = {"origin": facts.origin, "keys": keys, "prefixes": prefixes}
    for job in _live.decode((yield ask("source_jobs", **values))):
        if job.origin == facts.origin:
            key, _ = msgspec.json.decode(job.origin_ref or "")
            facts.own.setdefault(key, []).append(job)
        if job.key is not None:
            (facts.started if job.attempt else facts.waiting)[job.key] = job
    # After the jobs, which are locked from then on: whoever replaces one forgets its row in the same transaction.
    memory = _memory.decode((yield ask("source_memory", source=source, keys=rows)))
    facts.memory = {one.row_key: one for one in memory}
    unsettled = [one.job for one in memory if one.unsettled]
    if unsettled:
        facts.outcomes = dict((yield from fetch("outcomes_of", ids=as_json(unsettled))))
    refs = as_json([offer.ref for offer in offers if offer.job is not None])
    facts.done_refs = dict((yield from fetch("source_done_refs", origin=facts.origin, refs=refs)))
    for name, id, due in (yield from fetch("source_done_keys", keys=keys)):
        facts.done_keys.setdefault(name, []).append((id, due))
    return facts


def _carry_out(source: str, plan: Plan, now: int, expires_at: int | None) -> Steps[Applied]:
    freed: list[str] = []
    if plan.cancel:
        acks = [
            Ack(job.id, job.attempt, "cancelled", WITHDRAWN, now, now, reason=f"source {source}: {reason}")
            for job, reason in plan.cancel
        ]
        for ack in acks:
            ack.expires_at = expires_at
        yield Finish(None, acks)
        freed += [KEY + job.key for job, _ in plan.cancel if job.key is not None]
        freed += [GROUP + job.group for job, _ in plan.cancel if job.group is not None]
    if plan.forget:
        yield run("source_forget", source=source, keys=as_json(plan.forget))
    if plan.move:
        yield run("source_move", moves=as_json(plan.move))
        freed += [GROUP + group for *_, group in plan.move if group is not None]
    made = []
    remember = list(plan.remember)
    if plan.make:
        inserted = yield from insert_jobs([offer.job for offer in plan.make if offer.job is not None])
        for offer, row in zip(plan.make, inserted, strict=True):
            if row.status != "created" or offer.job is None:
                plan.deferred.append(offer.key)
                continue
            made.append(row.scheduled_at)
            remember.append((offer.key, offer.job.scheduled_at, offer.raw, row.id, 0))
    if remember:
        yield Remember(source, remember)
    if freed:
        yield from release(freed)
    times = made + [due for _, due, _, _ in plan.move]
    return Applied(len(made), len(plan.move), len(plan.cancel), min(times, default=None), plan.deferred)


def guard(table: Table, job: Claimed) -> Steps[tuple[str | None, bool]]:
    """Return why a claimed job need not run (None: it must), and whether its row is due at another time now."""
    yield ask("source_lock", source=table.source)
    reason, moved, _ = yield from look(table, job)
    # Whether it will be skipped is certain only once that is recorded: until then the row is not settled.
    yield run("source_unsettle", **_memory_of(table, job), unsettled=int(reason is not None))
    return reason, moved


def look(table: Table, job: Claimed) -> Steps[tuple[str | None, bool, bool]]:
    """Return why the job need not run, whether its row is due at another time, and whether its memory is settled."""
    key, due = row_of(job)
    (row,) = yield ReadRows(table, [key])
    settled = not (yield ask("source_unsettled", **_memory_of(table, job)))
    if row.due == due:
        return None, False, settled
    if row.due is None:
        return f"source {table.source}: {row.reason} (row {key!r})", False, settled
    return f"source {table.source}: its due time was moved to {row.raw!r} (row {key!r})", True, settled


def _memory_of(table: Table, job: Claimed) -> dict[str, Any]:
    key, due = row_of(job)
    return {"source": table.source, "row": as_json([key]), "due": due, "job": job.id}


def save(status: SourceStatus, forget_before: int | None, table: Table | None, listed: Sequence[RowKey]) -> Steps[None]:
    """Record a sweep, and forget what was handled before that time of rows that have gone on since."""
    values = {name: getattr(status, name) for name in ("name", "app", "swept_at", "made", "moved", "cancelled")}
    drift = None if status.drift is None else as_json(status.drift)
    yield run("save_source", **values, unreadable=status.unreadable, drift=drift)
    if forget_before is not None:
        yield ForgetGone(status.name, forget_before, table, listed)


def live_keys(source: str, before: int) -> Steps[list[RowKey]]:
    """Return the rows which have a waiting job of this source that was made before that time."""
    return [key for key, _ in (yield from fetch("source_live", origin=f"source:{source}", before=before))]


def changes() -> Steps[dict[str, list[RowKey]]]:
    """Return, by source, the rows that triggers saw change."""
    found: dict[str, list[RowKey]] = {}
    for source, key in (yield from fetch("source_changes")):
        found.setdefault(source, []).append(key)
    return found


def status() -> Steps[list[SourceStatus]]:
    """Return all sources as their last sweep left them."""
    return _status.decode((yield ask("sources")))
