"""What a person would look at first, with what was found and how to mend it: for ``oncue doctor`` and the API.

Each takes an application whose store is open, changes nothing, and raises a StoreError where the database fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from oncue.clock import SECOND, from_us
from oncue.redaction import Redaction
from oncue.settings import unset
from oncue.store.steps import operate, watch
from oncue.store.steps.chats import channels_now
from oncue.store.steps.overview import id_span, live_counts
from oncue.store.views import Check, JobView
from oncue.wake import UNPROVED
from oncue.why import near, seconds
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.app import OnCue

_OVERDUE = 10 * SECOND
_PATIENCE = 0.5
_AHEAD = 5 * SECOND
_UNPLANNED = 90 * SECOND
_UNSWEPT = 600 * SECOND
_RECENT = 86_400 * SECOND
_LONG = 3_600 * SECOND
_SOON = 7 * 86_400 * SECOND
_MOST, _SHOWN = 1000, 3
_RELEASED = 1_735_689_600 * SECOND  # 2025: no clock that is right shows an earlier time


async def workers(app: OnCue) -> Check:
    workers, now = await app.jobs.workers(), app.clock.now()
    counts = await app.store.look(lambda: live_counts(now, now))
    texts = [
        f"{one.name} {one.state} (up {seconds(now - one.started_at)}, seen {near(one.seen_at, now)}, "
        f"running {one.running})"
        for one in workers
    ]
    found = "; ".join(texts) or "none is registered"
    if not any(one.state == "alive" for one in workers):
        remedy = "Start one: oncue worker module:app"
        if not counts.due:
            return Check("workers", "warn", found, remedy)
        return Check("workers", "FAIL", f"{found}; {counted(counts.due, 'job')} due", remedy)
    if left := [one.name for one in workers if one.given_up]:
        remedy = "Other transactions hold the rows of the rest of their jobs, which run again once these end: those of"
        return Check("workers", "warn", found, f"{remedy} {', '.join(left)}. See the line transactions.")
    bad = [one.name for one in workers if one.state != "alive" and one.running]
    if bad:
        remedy = "Taken back when the lease ends, at the next sweep, or when a worker starts on that host: the jobs of"
        return Check("workers", "warn", found, f"{remedy} {', '.join(bad)}.")
    return Check("workers", "ok", found)


async def database(app: OnCue) -> Check:
    """Tell whether the database answers, and on SQLite whether it takes writes, which readers would not notice."""
    began = time.monotonic()
    await app.store.look(id_span)
    found = f"answered in {(time.monotonic() - began) * 1000:.0f} ms"
    path = getattr(app.store, "path", None)
    return Check("database", "ok", found) if path is None else await asyncio.to_thread(_file, path, found)


async def schema(app: OnCue) -> Check:
    """Tell which database this is, and whether its tables are those of this version."""
    seen = await app.store.schema()
    found = f"{seen.location}{unset(app.url)}, schema version {seen.found}"
    if seen.found > seen.expected and seen.good:
        remedy = "Good while a new release is rolled out. Upgrade OnCue here before the one after that."
        return Check("schema", "warn", f"{found}; this OnCue knows {seen.expected} and goes on with it", remedy)
    if not seen.good:
        remedy = "oncue migrate" if seen.found < seen.expected else "Upgrade OnCue here."
        return Check("schema", "FAIL", f"{found}; this OnCue works with {seen.expected}", remedy)
    return Check("schema", "ok", found)


def _file(path: Path, found: str) -> Check:
    from oncue.store.sqlite.state import room

    if _locked(path):
        text = f"{found}, but takes no writes: a transaction has locked it for longer than {_PATIENCE:g} s"
        remedy = f"Commit or end it: an open shell, a copy, a migration. `fuser {path}` tells who has the file open."
        return Check("database", "FAIL", text, remedy)
    if (disk := room(path)).level == "FAIL":
        return Check("database", "FAIL", f"{found}, but {disk.found}", disk.remedy)
    return Check("database", "ok", found)


def _locked(path: Path) -> bool:
    """Whether no write transaction can begin, and none ends; this leaves none behind, and writes nothing."""
    before = _written(path)
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as conn:
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        # Beside a worker that commits without a pause there may be no gap for us: that is no lock.
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY and _written(path) == before
    return False


def _written(path: Path) -> tuple[int, int] | None:
    """Return what changes with each commit."""
    try:
        found = path.with_name(f"{path.name}-wal").stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


async def tasks(app: OnCue) -> Check:
    """Name the tasks that jobs wait for and no worker knows: nobody will run these jobs, and nobody tries to."""
    alive = [one for one in await app.jobs.workers() if one.state == "alive"]
    due = await app.store.overdue(app.clock.now(), _MOST)
    waiting = {job.id: job for job in [*due, *await app.jobs.list(state=["scheduled"], limit=_MOST)]}
    missing = Counter(job.task for job in waiting.values() if not any(one.knows(job.task) for one in alive))
    if not alive or not missing:
        return Check("tasks", "ok", "no job waits for one that the workers lack")
    found = "; ".join(
        f"no worker knows task {task}, which {counted(n, 'job')} asked for" for task, n in missing.items()
    )
    remedy = "Deploy the code that has them, keep old names in aliases=(...), or cancel the jobs."
    return Check("tasks", "FAIL" if any(job.task in missing for job in due) else "warn", found, remedy)


async def paused(app: OnCue) -> Check:
    """Name paused queues: what a person stopped, a person has to start again, and may have forgotten."""
    if not any(row.what == "queue" for row in await app.store.look(watch.paused)):
        return Check("queues", "ok", "none is paused")
    now = app.clock.now()
    # Why the messenger stopped one stands in the channel's line: to resume it is the second thing to do, not the first.
    stopped = {f"{row.name}.send" for row in await app.store.look(channels_now) if row.stopped is not None}
    paused = [queue for queue in await app.store.queues(now) if queue.paused and queue.name not in stopped]
    if not paused:
        return Check("queues", "ok", "none is paused, but for channels that are stopped")
    found = "; ".join(
        f"{one.name} is paused{_since(one.paused_at, now)}, {counted(one.due, 'job')} of it due" for one in paused
    )
    which = paused[0].name if len(paused) == 1 else "NAME"
    return Check("queues", "warn", found, f"Where that was forgotten: oncue queues resume {which}")


async def discarded(app: OnCue) -> Check:
    now = app.clock.now()
    since = now - _RECENT
    given_up = await app.jobs.list(state=["discarded"], limit=_MOST)
    recent = [job for job in given_up if (job.finished_at or 0) >= since]
    if not recent:
        return Check("discarded", "ok", "no job in the last 24 hours")
    last = max(recent, key=lambda job: job.finished_at or 0)
    number = f"{counted(len(recent), 'job')}{' or more' if len(recent) == _MOST else ''}"
    error = f"; {last.error}" if last.error and last.error not in (last.reason or "") else ""
    said = _shown(app, last, f"{last.reason}{error}")
    found = (
        f"{number} in the last 24 hours; last job {last.id} ({last.task}), {near(last.finished_at or 0, now)}: {said}"
    )
    remedy = "oncue jobs list --state discarded; mend the cause, then oncue jobs retry ID..."
    return Check("discarded", "warn", found, remedy)


async def overdue(app: OnCue) -> Check:
    now = app.clock.now()
    paused = {one.name for one in await app.store.look(watch.paused) if one.what == "queue"}
    late = [job for job in await app.store.overdue(now - _OVERDUE, _MOST) if job.blocked_by != "restore"]
    if not late:
        return Check("overdue jobs", "ok", f"none is due for more than {_OVERDUE // SECOND} s")
    free = [
        job
        for job in late
        if job.eligible_at is not None and job.eligible_at < now - _OVERDUE and job.queue not in paused
    ]
    shown = [
        f"job {job.id} ({job.task}), due {near(job.scheduled_at, now)}: {_shown(app, job, await app.jobs.why(job))}"
        for job in (free or late)[:_SHOWN]
    ]
    number = f"{counted(len(late), 'job')}{' or more' if len(late) == _MOST else ''}"
    found = f"{number} due and not running; {'; '.join(shown)}"
    if free:
        return Check("overdue jobs", "FAIL", found, "Is a worker for their queue alive, with enough --concurrency?")
    remedy = "Should that hold them? `oncue jobs show ID` has more, of them and of what holds them."
    return Check("overdue jobs", "warn", found, remedy)


async def long_running(app: OnCue) -> Check:
    """Name jobs that run for more than an hour: a handler that hangs holds its group, its key and its place."""
    now = app.clock.now()
    running = await app.jobs.list(state=["running"], limit=_MOST)
    long = sorted(
        (job for job in running if job.started_at is not None and job.started_at < now - _LONG),
        key=lambda job: job.started_at or 0,
    )
    if not long:
        return Check("running long", "ok", "no job has run for more than an hour")
    names = {one.id: one.name for one in await app.jobs.workers()}
    texts = [
        f"job {job.id} ({job.task}) has run for {seconds(now - (job.started_at or now))}, on worker "
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
    return Check("tokens", "ok", "none is good" if not good else "1 is good" if good == 1 else f"{good} are good")


async def clock(app: OnCue) -> Check:
    now = app.clock.now()
    newest = [job.created_at for job in await app.jobs.list(limit=1)]
    latest = max([*newest, *(worker.seen_at for worker in await app.jobs.workers())], default=0)
    if now < _RELEASED:
        return Check("clock", "FAIL", f"it shows {from_us(now):%Y-%m-%d}", "Set the clock: due times depend on it.")
    if latest > now + _AHEAD:
        whose = "this machine's" if getattr(app.store, "schema_name", None) is None else "the server's"
        found = f"the database holds a time {seconds(latest - now)} ahead of {whose} clock"
        return Check("clock", "FAIL", found, "The clock was set back, or another host's is ahead: run NTP on all.")
    return Check("clock", "ok", f"{from_us(now):%Y-%m-%d %H:%M:%S} UTC, not behind what the database holds")


async def blockers(app: OnCue) -> list[Check]:
    checks = []
    blockers = await app.store.blockers()
    now = app.clock.now()
    running = (await app.store.look(lambda: live_counts(now, now))).running
    held = sum(blocker.waiting for blocker in blockers if blocker.name == "restore")
    if held:
        remedy = "Look: oncue restored --list. Then oncue jobs cancel ID, and oncue restored --release."
        checks.append(Check("restored", "warn", f"{counted(held, 'job')} held after a restore", remedy))
    stuck = [
        blocker.name
        for blocker in blockers
        if blocker.job is None
        and (blocker.name.startswith(("group:", "key:")) or (blocker.name.startswith("cap:") and not running))
    ]
    if stuck:
        found = f"jobs wait behind {', '.join(stuck[:5])}, which nothing holds"
        checks.append(Check("blockers", "warn", found, "The next sweep frees them: oncue sweep module:app does one."))
    else:
        waiting = sum(blocker.waiting for blocker in blockers) - held
        checks.append(Check("blockers", "ok", f"{counted(waiting, 'job')} behind others, none in vain"))
    return checks


async def schedules(app: OnCue) -> Check:
    now, rows = app.clock.now(), await app.store.schedules()
    active = [row for row in rows if not row.paused]
    late = [row.name for row in active if row.next_at is not None and row.next_at < now - _UNPLANNED]
    over = [row.name for row in active if row.next_at is None]
    if late:
        found = f"nobody planned the fires of {', '.join(late)}"
        return Check("schedules", "FAIL", found, "Start a worker of the application, or have a cron call the route.")
    if over:
        return Check("schedules", "warn", f"{', '.join(over)} will never fire again", "Mend the expression in code.")
    paused = len(rows) - len(active)
    return Check("schedules", "ok", f"{len(active)} with a next fire" + (f", {paused} paused" if paused else ""))


async def sources(app: OnCue) -> list[Check]:
    """Tell how the last sweep of each source went: rows and jobs that differ then stay apart until it is mended."""
    now, checks = app.clock.now(), []
    for one in await app.sources.status():
        name, drift = f"source {one.name}", one.drift or {}
        if drift.keys() - {"trigger"}:
            troubles = [*drift.get("problems", ())]
            if waiting := drift.get("waiting_for_key"):
                troubles.append(f"rows {', '.join(map(str, waiting))} wait for a key that another row's job has")
            found = "; ".join(troubles) or f"{counted(one.unreadable, 'row')} can't be read"
            found += "" if one.drift_since is None else f"; found first {near(one.drift_since, now)}"
            remedy = "Mend the table, its rows, or the declaration in code. The next sweep looks again."
            checks.append(Check(name, "FAIL", found, remedy))
        elif one.swept_at is None or one.swept_at < now - _UNSWEPT:
            last = "never" if one.swept_at is None else near(one.swept_at, now)
            remedy = "Start a worker, have a cron call the route, or drop the source's row if the code is gone."
            checks.append(Check(name, "warn", f"last swept: {last}", remedy))
        elif drift:
            checks.append(Check(name, "warn", drift["trigger"]))
        else:
            done = f"made {one.made}, moved {one.moved}, cancelled {one.cancelled} so far"
            checks.append(Check(name, "ok", f"swept {near(one.swept_at, now)}; rows and jobs agree; {done}"))
    return checks


async def code(app: OnCue) -> Check:
    """Compare what is stored with what the application declares."""
    waiting = await app.jobs.list(state=["scheduled"], limit=_MOST)
    unknown = sorted({job.task for job in waiting} - set(app.tasks))
    stored = {row.name for row in await app.store.schedules()}
    swept = {one.name for one in await app.sources.status()}
    missing = [f"schedule {name}" for name in sorted(set(app.schedules) - stored)]
    missing += [f"source {name}" for name in sorted(set(app.declared_sources) - swept)]
    if unknown:
        remedy = "Deploy the code that has them, keep old names in aliases=(...), or cancel the jobs."
        return Check("code", "FAIL", f"jobs wait for tasks that the code lacks: {', '.join(unknown)}", remedy)
    if missing:
        found, remedy = f"not stored: {', '.join(missing)}", "A worker stores them at start."
        if any(one.state == "alive" for one in await app.jobs.workers()):
            remedy = (
                "Restart the workers, with this code. If they have it, another application that uses this database "
                f"removed them: give each a name of its own, OnCue(name=...); this one is {app.name!r}."
            )
        return Check("code", "warn", found, remedy)
    found = f"it has the tasks of all that wait: {counted(len(waiting), 'job')}" if waiting else "nothing waits"
    return Check("code", "ok", found)


async def pauses(app: OnCue) -> Check:
    """Name paused tasks, as ``paused`` does queues."""
    found, now = await app.store.look(operate.paused_tasks), app.clock.now()
    if not found:
        return Check("paused tasks", "ok", "none is paused")
    text = "; ".join(f"{row.name} is paused{_since(row.paused_at, now)} by {row.who}" for row in found)
    which = found[0].name if len(found) == 1 else "NAME"
    return Check("paused tasks", "warn", text, f"Where that was forgotten: oncue tasks resume {which}")


async def sweeper(app: OnCue) -> Check:
    """Tell when the last sweep was, whichever process did it."""
    last, now = await app.store.look(watch.swept_at), app.clock.now()
    if last is None:
        return Check("sweeper", "warn", "no sweep yet", "A worker sweeps; or have a cron call the route.")
    said = f"last sweep {near(last, now)}"
    if last < now - 5 * app.sweep_us:
        remedy = "Start a worker: it sweeps. Without one nothing is rescued, planned, reconciled or pruned."
        return Check("sweeper", "FAIL", said, remedy)
    return Check("sweeper", "ok" if last >= now - 3 * app.sweep_us else "warn", said)


async def wake(app: OnCue) -> Check:
    """Tell whether hints of other processes arrive, as the open wake channel sees it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            # It may have begun to connect a moment ago, for whoever asks this.
            while UNPROVED in (app.wake.healthy or ""):  # noqa: ASYNC110 - who else is told of it says so once only
                await asyncio.sleep(0.02)
    if (trouble := app.wake.healthy) is None:
        return Check("wake", "ok", "hints of other processes arrive at once")
    remedy = "Jobs of other processes start late meanwhile. It tries again by itself, after up to a minute."
    return Check("wake", "warn", trouble, remedy)


async def hearing(app: OnCue) -> Check:
    """Tell which workers hear late of what other processes store, as each wrote it to its row."""
    name, now = "wake of workers", app.clock.now()
    alive = [one for one in await app.jobs.workers() if one.state == "alive"]
    late = [f"{one.name}{_since(one.wake_since, now)}: {one.wake.rstrip('.')}" for one in alive if one.wake is not None]
    if not late:
        return Check(name, "ok", "each hears at once what others store" if alive else "no worker is alive")
    shown = "; ".join(late[:_SHOWN]) + (f"; and {len(late) - _SHOWN} more" if len(late) > _SHOWN else "")
    remedy = "They try again by themselves, after pauses of up to a minute. At once: oncue reconnect"
    return Check(name, "warn", shown, remedy)


def _shown(app: OnCue, job: JobView, text: str) -> str:
    """Return what is said of a job without what is redacted of it."""
    return Redaction(app.redacted).text(text, job.args, job.metadata) or ""


def _since(moment: int | None, now: int) -> str:
    return "" if moment is None else f" since {near(moment, now)}"
