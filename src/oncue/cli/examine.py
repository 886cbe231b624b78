"""Checks that ``oncue doctor`` adds to those of the page: jobs that run for very long, tokens that end soon."""

from __future__ import annotations

from oncue.app import OnCue
from oncue.clock import SECOND
from oncue.store.steps import operate
from oncue.store.views import Check
from oncue.why import near, seconds

_LONG = 3_600 * SECOND
_SOON = 7 * 86_400 * SECOND
_MOST, _SHOWN = 1_000, 3


async def long_running(app: OnCue) -> Check:
    """Name jobs that run for more than an hour: a handler that hangs holds its group, its key and its place."""
    now = app.clock.now()
    running = await app.jobs.list(state=["running"], limit=_MOST)
    long = sorted(
        (job for job in running if job.started_at is not None and job.started_at < now - _LONG),
        key=lambda job: job.started_at or 0,
    )
    if not long:
        return Check("running long", "ok", "no job runs for more than an hour")
    names = {one.id: one.name for one in await app.jobs.workers()}
    texts = [
        f"job {job.id} ({job.task}) runs for {seconds(now - (job.started_at or now))}, on worker "
        f"{names.get(job.worker or 0, job.worker)}"
        for job in long[:_SHOWN]
    ]
    more = f", and {len(long) - _SHOWN} more" if len(long) > _SHOWN else ""
    remedy = "Does it hang? `oncue jobs cancel ID` asks it to stop. Give its task a timeout."
    return Check("running long", "warn", "; ".join(texts) + more, remedy)


async def tokens(app: OnCue) -> Check:
    """Name tokens that have ended, or will within a week: who uses them is refused from then on."""
    now = app.clock.now()
    rows = [row for row in await app.store.look(operate.tokens) if row.revoked_at is None]
    ends = [(row.expires_at, row.name) for row in rows if row.expires_at is not None]
    if soon := sorted((at, name) for at, name in ends if now - _SOON < at < now + _SOON):
        found = "; ".join(f"{name} {'ended' if at <= now else 'ends'} {near(at, now)}" for at, name in soon)
        remedy = "Make another where it is still needed: oncue tokens create NAME --role ROLE"
        return Check("tokens", "warn", found, remedy)
    good = sum(row.good(now) for row in rows)
    return Check("tokens", "ok", f"{good} of the HTTP API {'is' if good == 1 else 'are'} good")
