"""Jobs of BullMQ queues that are taken over: stored once, however often they are offered."""

from __future__ import annotations

from collections.abc import Sequence

from oncue.clock import SECOND
from oncue.job import GROUP, KEY, Ack
from oncue.store import Adopted, Adoption
from oncue.store.steps import Finish, Steps, as_json, fetch, run
from oncue.store.steps.insert import insert_jobs, release

_MEMORY = 7 * 86_400 * SECOND


def adopt(queue: str, offers: Sequence[Adoption], now: int) -> Steps[list[Adopted | None]]:
    """Store those of the offers that were never stored before, with the memory of it; see ``Store.adopt``."""
    jobs = {(one.id, one.timestamp): one.job for one in offers if one.job is not None}
    if jobs:
        rows = [(id, at, max(job.scheduled_at, now) + _MEMORY) for (id, at), job in jobs.items()]
        yield run("adopt", queue=queue, jobs=as_json(rows))
    # Those without a job yet were remembered by this very transaction: others' come with theirs.
    names = as_json([one[:2] for one in offers])
    known = {(id, at): job for id, at, job in (yield from fetch("adopted", queue=queue, jobs=names))}
    fresh = {name: job for name, job in jobs.items() if known.get(name) == 0}
    for (id, at), job in fresh.items():
        job.origin, job.origin_ref = _origin(queue), _reference(id, at)
    if fresh:
        inserted = yield from insert_jobs(list(fresh.values()))
        made = {name: row.id for name, row in zip(fresh, inserted, strict=True)}
        yield run("adopted_as", queue=queue, jobs=as_json([(id, at, job) for (id, at), job in made.items()]))
        known |= made
    found = [(known.get((one.id, one.timestamp)), (one.id, one.timestamp) in fresh) for one in offers]
    return [None if job is None else Adopted(job, new) for job, new in found]


def disown(queue: str, id: str, timestamp: int, now: int, expires_at: int | None) -> Steps[bool]:
    """Cancel what was stored for a job that stays with Node after all; see ``Store.disown``."""
    values = {"origin": _origin(queue), "ref": _reference(id, timestamp)}
    for job, key, group in (yield from fetch("adopted_waiting", **values)):
        reason = f"a Node worker had begun job {id!r} of the BullMQ queue {queue!r} before it could be taken out"
        ack = Ack(job, 0, "cancelled", "cancelled", now, now, reason=reason)
        ack.expires_at = expires_at
        yield Finish(None, [ack])
        freed = [*([KEY + key] if key is not None else []), *([GROUP + group] if group is not None else [])]
        if freed:
            yield from release(freed)
        yield run("disown", queue=queue, id=id, timestamp=timestamp)
        return True
    return False


def forget(queue: str, now: int, count: int) -> Steps[int]:
    """Forget up to ``count`` jobs of a queue that were taken over long ago; see ``Store.forget_adopted``."""
    gone: int = yield run("forget_adopted", queue=queue, now=now, count=count)
    return gone


def _origin(queue: str) -> str:
    return f"bullmq:{queue}"


def _reference(id: str, timestamp: int) -> str:
    return as_json([id, timestamp])
