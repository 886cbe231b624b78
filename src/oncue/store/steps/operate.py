"""What the operator's view keeps and asks for: audit, tokens, paused tasks, what workers counted, how they hear."""

from __future__ import annotations

from collections.abc import Sequence

from oncue.store.chats import many, one
from oncue.store.operating import AuditRow, MinuteRow, PauseRow, TokenRow
from oncue.store.steps import Steps, as_json, ask, run

_EVER = 1 << 62
_PARKED = 5_000
PAUSE = "pause:"
"""What parked jobs of a paused task wait behind, with its name."""


def add_audit(row: AuditRow, request: str | None = None) -> Steps[bool]:
    """Record what somebody did; False, and nothing recorded, where this very request was recorded before."""
    values = {"at": row.at, "who": row.who, "action": row.action, "target": row.target, "count": row.count}
    return bool((yield run("add_audit", **values, detail=row.detail, request=request)))


def settle_audit(request: str, target: str, count: int, detail: str) -> Steps[None]:
    """Add to a request that was recorded what came of it."""
    yield run("settle_audit", request=request, target=target, count=count, detail=detail)


def audit_of_request(request: str) -> Steps[AuditRow | None]:
    """Return what was recorded of a request."""
    return (yield from one(AuditRow, "audit_of_request", request=request))


def audit(limit: int, before: int | None = None, target: str | None = None) -> Steps[list[AuditRow]]:
    """Return what was done, to ``target`` where it is given, the latest first, below an id."""
    values = {"limit": limit, "before": _EVER if before is None else before}
    if target is None:
        return (yield from many(AuditRow, "list_audit", **values))
    return (yield from many(AuditRow, "audit_of_target", target=target, **values))


def prune_audit(before: int, limit: int) -> Steps[int]:
    """Forget up to ``limit`` entries of before that time; return how many."""
    gone: int = yield run("prune_audit", before=before, limit=limit)
    return gone


def add_token(name: str, roles: Sequence[str], hash: str, now: int, expires_at: int | None) -> Steps[bool]:
    """Store a token's hash; False where there is one of that name."""
    values = {"name": name, "roles": as_json(sorted(roles)), "hash": hash}
    return bool((yield run("add_token", **values, now=now, expires_at=expires_at)))


def tokens() -> Steps[list[TokenRow]]:
    """Return all tokens by name, those that were revoked too."""
    return (yield from many(TokenRow, "tokens"))


def token_of(hash: str) -> Steps[TokenRow | None]:
    """Return the token with that hash."""
    return (yield from one(TokenRow, "token_of_hash", hash=hash))


def revoke_token(name: str, now: int) -> Steps[bool]:
    """Let nobody in with it any more; False where there is none that is good."""
    return bool((yield run("revoke_token", name=name, now=now)))


def pause_task(name: str, now: int, who: str) -> Steps[bool]:
    """Have nobody claim a task's jobs; False where it is paused already, and stays so since then."""
    return bool((yield run("pause_task", name=name, now=now, who=who)))


def resume_task(name: str) -> Steps[bool]:
    """Have a task's jobs claimed again; False where it is not paused."""
    resumed = bool((yield run("resume_task", name=name)))
    while (yield from unpark_paused(name)):
        pass
    return resumed


def unpark_paused(name: str) -> Steps[bool]:
    """Let a part of a task's parked jobs go on; tell whether there may be more. While it is paused nobody takes them:
    to be done before it is resumed where there are many, so that no transaction has to do all."""
    count: int = yield run("unpark_paused", name=name, limit=_PARKED)
    return count == _PARKED


def park_paused(name: str, until: int) -> Steps[bool]:
    """Take a paused task's jobs that are due by then out of the way of the others; tell whether there may be more."""
    count: int = yield run("park_paused", name=name, until=until, limit=_PARKED)
    return count == _PARKED


def paused_tasks() -> Steps[list[PauseRow]]:
    """Return the tasks that are paused, by name."""
    return (yield from many(PauseRow, "paused_tasks"))


def save_minutes(rows: Sequence[MinuteRow]) -> Steps[None]:
    """Store what a worker counted so far; each row takes the place of an earlier one of its minute, worker and task."""
    if rows:
        yield run("save_minutes", rows=as_json(rows))


def minutes(after: int, until: int) -> Steps[list[MinuteRow]]:
    """Return what was counted in the minutes that began from ``after`` on and before ``until``, by minute."""
    return (yield from many(MinuteRow, "minutes", after=after, until=until))


def prune_minutes(before: int) -> Steps[int]:
    """Forget the minutes that began before that time; return how many rows went."""
    gone: int = yield run("prune_minutes", before=before)
    return gone


def set_wake(worker: int, trouble: str | None, since: int | None) -> Steps[None]:
    """Record what is wrong with a worker's wake channel, and since when; None for both where it works."""
    yield run("set_wake", worker=worker, wake=trouble, since=since)


def reconnect_asked(worker: int) -> Steps[int | None]:
    """Return when this worker was last asked to connect its wake channel anew."""
    asked: int | None = yield ask("reconnect_asked", worker=worker)
    return asked


def ask_to_reconnect(now: int, workers: Sequence[int]) -> Steps[None]:
    """Ask these workers to connect their wake channels anew."""
    yield run("ask_to_reconnect", now=now, ids=as_json(workers))
