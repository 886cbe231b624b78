"""What operators do to many jobs at once: the same as to each by itself, with a few statements for all."""

from __future__ import annotations

from collections.abc import Sequence

from oncue.errors import OnCueError
from oncue.job import GROUP, KEY, Ack
from oncue.store.steps import Finish, Steps, as_json, fetch, manage, run
from oncue.store.steps.insert import release

Refusals = list[tuple[int, str]]


def cancel(now: int, expires_at: int | None, ids: Sequence[int]) -> Steps[Refusals]:
    """Cancel these jobs, and ask those that run to stop; return the others, each with why."""
    acks, running, freed = [], [], []
    for id, state, attempt, key, group in (yield from fetch("find_by_ids", ids=as_json(ids))):
        if state == "running":
            running.append(id)
            continue
        ack = Ack(id, attempt, "cancelled", "cancelled", now, now, reason="cancelled before it ran")
        ack.expires_at = expires_at
        acks.append(ack)
        freed += [name for name in (group and GROUP + group, key and KEY + key) if name]
    lost = set((yield Finish(None, acks))) if acks else set()
    if running:
        yield run("request_cancels", ids=as_json(running))
    if freed:
        yield from release(list(dict.fromkeys(freed)))
    done = {ack.id for ack in acks if ack.id not in lost} | set(running)
    return (yield from _refused([id for id in ids if id not in done], "cancel"))


def move(due: int, ids: Sequence[int], action: str) -> Steps[Refusals]:
    """Have these jobs due at ``due``; return those that don't wait, each with why."""
    rows = yield from fetch("find_by_ids", ids=as_json(ids))
    waiting = [row for row in rows if row[1] == "scheduled"]
    if waiting:
        yield run("move_jobs", due=due, ids=as_json([row[0] for row in waiting]))
        groups = dict.fromkeys(GROUP + row[4] for row in waiting if row[4] is not None)
        if groups:
            yield from release(list(groups))
    done = {row[0] for row in waiting}
    return (yield from _refused([id for id in ids if id not in done], action))


def restart(now: int, ids: Sequence[int]) -> Steps[Refusals]:
    """Put these discarded or cancelled jobs back, due now; return the others, each with why."""
    refused: Refusals = []
    for id in ids:
        try:
            yield from manage.restart(now, id)
        except OnCueError as error:
            refused.append((id, str(error)))
    return refused


def _refused(ids: Sequence[int], action: str) -> Steps[Refusals]:
    refused: Refusals = []
    for id in ids:
        try:
            yield from manage.refuse(id, action)
        except OnCueError as error:
            refused.append((id, str(error)))
    return refused
