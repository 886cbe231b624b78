"""Why a job does not run now, in words: for the command line, the dashboard and a person at 3 a.m."""

from __future__ import annotations

from collections.abc import Sequence

from oncue.clock import SECOND, from_us
from oncue.job import FINAL, GROUP, KEY
from oncue.limits import Policy
from oncue.store import Store
from oncue.store.choose import LIMIT
from oncue.store.steps import operate, watch
from oncue.store.views import JobView, WorkerView

_CAP = "cap:"
_UNTAKEN = 10 * SECOND
_TENTH = SECOND // 10
_UNKNOWN = Policy()


async def why(job: JobView, store: Store, now: int, workers: Sequence[WorkerView], policy: Policy = _UNKNOWN) -> str:
    """Return why ``job`` does not run at ``now`` (microseconds since the epoch), or what became of it.

    ``policy``: the limits that are known here; the store holds no rates.
    """
    if job.state in FINAL:
        return job.reason or f"it is {job.state}"
    if job.state == "running":
        return _running(job, now, workers)
    if job.eligible_at is None:
        return await _blocked(job, store, now)
    reasons = []
    if job.eligible_at > now:
        reasons.append(_later(job, job.eligible_at, now, policy))
    if any(one.what == "queue" and one.name == job.queue for one in await store.look(watch.paused)):
        reasons.append(f"its queue {job.queue!r} is paused (`oncue queues resume {job.queue}`)")
    reasons += await _pauses(job, store)
    if (missing := lacking(job, workers)) is not None:
        reasons.append(missing)
    if not reasons:
        reasons.append("it is due: the next free worker takes it")
        if job.eligible_at < now - _UNTAKEN:
            reasons.append(
                f"nobody has taken it for {seconds(now - job.eligible_at)}: are all places of the workers taken, or "
                "does an open transaction hold its row (`oncue doctor`)?"
            )
    if job.attempt and (last := (await store.attempts(job.id))[-1:]):
        reasons.append(f"attempt {last[0].attempt} was {last[0].outcome}" + _because(last[0].reason or last[0].error))
    return "; ".join(reasons)


def lacking(job: JobView, workers: Sequence[WorkerView]) -> str | None:
    """Return what keeps every worker from running this job; None where one that is alive can."""
    alive = [worker for worker in workers if worker.state == "alive"]
    able = [worker for worker in alive if worker.serves(job.queue)]
    if not able:
        return f"no worker for queue {job.queue!r} is alive"
    if any(worker.knows(job.task) for worker in able):
        return None
    where = f" for queue {job.queue!r}" if any(worker.knows(job.task) for worker in alive) else ""
    return f"no worker{where} knows task {job.task!r}: start one with the code that declares it"


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _running(job: JobView, now: int, workers: Sequence[WorkerView]) -> str:
    holder = next((worker for worker in workers if worker.id == job.worker), None)
    since = f"for {seconds(now - (job.started_at or now))}, attempt {job.attempt}"
    if holder is None:
        return (
            f"it runs {since}, on worker {job.worker}, which is not registered any more: the next sweep takes it back"
        )
    text = f"it runs {since}, on worker {holder.name}"
    if holder.given_up:
        text += ", which was given up: it is taken back once the transaction ends that holds its row"
    elif holder.state != "alive" and holder.lease_until < now and not any(one.state == "alive" for one in workers):
        text += f", which is {holder.state}, and no other is alive: it is taken back by the next worker that starts"
    elif holder.state != "alive":
        text += f", which is {holder.state}: it is taken back when that worker's lease ends, or by the next sweep"
    if job.cancel:
        text += "; it was asked to stop"
    return text


async def _pauses(job: JobView, store: Store) -> list[str]:
    return [
        f"its task {job.task!r} is paused by {pause.who} (`oncue tasks resume {job.task}`)"
        for pause in await store.look(operate.paused_tasks)
        if pause.name == job.task
    ]


async def _blocked(job: JobView, store: Store, now: int) -> str:
    name = job.blocked_by or ""
    if name == "restore":
        return "it came due before a backup was restored and is held for review (`oncue restored --list`)"
    if name.startswith(operate.PAUSE):
        return "; ".join(await _pauses(job, store)) or "its task was paused, and goes on by now"
    found = next((blocker for blocker in await store.blockers() if blocker.name == name), None)
    holder = await store.job(found.job) if found is not None and found.job is not None else None
    if name.startswith(_CAP):
        return f"as many jobs of {_owner(name.removeprefix(_CAP))} run as its concurrency allows"
    what = f"group {name.removeprefix(GROUP)!r}" if name.startswith(GROUP) else f"key {name.removeprefix(KEY)!r}"
    if holder is None:
        return f"it was parked behind another job of its {what}, which is gone: the next sweep frees it"
    since = "runs" if holder.started_at is None else f"has run for {seconds(now - holder.started_at)}"
    state = since if holder.state == "running" else f"is between attempts {holder.attempt} and {holder.attempt + 1}"
    if holder.state == "scheduled" and not holder.attempt:
        state = "comes first"
    return f"it waits behind job {holder.id} of the same {what}, which {state}"


def _later(job: JobView, eligible_at: int, now: int, policy: Policy) -> str:
    # To a tenth of a second, rounded up: at that time it may start indeed.
    moment = f"{from_us(-(-eligible_at // _TENTH) * _TENTH):%Y-%m-%d %H:%M:%S.%f}"[:-5]
    when = f"{moment} UTC, in {seconds(eligible_at - now)}"
    if job.blocked_by is not None and job.blocked_by.startswith(LIMIT):
        name = job.blocked_by.removeprefix(LIMIT)
        rate = dict(policy.rates(job.task, job.queue, job.group)).get(name)
        return f"the rate limit of {_owner(name)}{'' if rate is None else f' ({rate})'} lets it start at {when}"
    if job.scheduled_at >= eligible_at:
        return f"it is due at {when}"
    return f"it was due before, and may be claimed at {when}"


def _owner(name: str) -> str:
    """Put a limit's name in the store (``task:x``, ``queue:y``, ``task:x:group:g``) into words."""
    kind, _, rest = name.partition(":")
    owner, _, group = rest.partition(":group:")
    return f"{kind} {owner!r}" + (f", group {group!r}," if group else "")


def near(us: int, now: int) -> str:
    """Return a time as seen from ``now``, both in microseconds since the epoch: ``in 5 min``, ``3 h ago``."""
    return f"in {seconds(us - now)}" if us >= now else f"{seconds(now - us)} ago"


def seconds(us: int) -> str:
    """Return a span of microseconds as a person would say it: ``1.2 s``, ``5 min``, ``3 h``, ``2 d``."""
    value = abs(us) / SECOND
    for unit, size, most in (("ms", 0.001, 1), ("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if value < most:
            return f"{value / size:.1f} {unit}" if unit == "s" and value < 10 else f"{value / size:.0f} {unit}"
    return f"{value / 86_400:.0f} d"
