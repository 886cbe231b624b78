"""``oncue doctor``: looks at everything that a person would look at, and says how to mend what isn't well."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import click
import msgspec

from oncue.app import OnCue
from oncue.cli.common import as_json, database, load_app, postgres_schema, run, unset
from oncue.cli.output import Moment, clean, on_terminal, to_json
from oncue.clock import SECOND, from_us
from oncue.errors import ConfigError, StoreCorrupt, StoreError, StoreUnavailable
from oncue.settings import secrets_of
from oncue.store.views import Check, SchemaView
from oncue.why import seconds

_Look = Callable[[OnCue], Awaitable[Check | Sequence[Check]]]
_COLOURS = {"ok": "green", "warn": "yellow", "FAIL": "red"}
_OVERDUE = 10 * SECOND
_AHEAD = 5 * SECOND
_UNPLANNED = 90 * SECOND
_UNSWEPT = 600 * SECOND
_RECENT = 86_400 * SECOND
_PATIENCE = 2.0
_PROOF = 8.0
_MOST = 1000
_RELEASED = 1_735_689_600 * SECOND  # 2025: no clock that is right shows an earlier time


@click.command(short_help="Check everything, and say how to mend what isn't well.")
@click.argument("app", required=False)
@database
@as_json
def doctor(app: str | None, database: str | None, as_json: bool) -> None:
    """Check the database, the wake channel, workers, schedules and jobs; with APP (module:attribute) its code too.

    Each line is ok, warn or FAIL, and says how to mend it. Exit code 1 where something is FAIL.
    """
    if app is not None and database is not None:
        raise click.UsageError("An APP names its own database: leave --database out.")
    checks = run(_examine(load_app(app) if app is not None else OnCue(database), with_code=app is not None))
    failed = any(check.level == "FAIL" for check in checks)
    if as_json:
        click.echo(to_json({"ok": not failed, "checks": [msgspec.to_builtins(check) for check in checks]}))
    else:
        for check in checks:
            level = click.style(f"{check.level:<5}", fg=_COLOURS[check.level]) if on_terminal() else f"{check.level:<5}"
            click.echo(f"{level} {check.name}: {clean(check.found)}")
            if check.remedy:
                click.echo(f"      {check.remedy}")
    if failed:
        raise SystemExit(1)


async def _examine(app: OnCue, *, with_code: bool) -> list[Check]:
    checks = [_cron_secret(os.environ.get("CRON_SECRET"))]
    try:
        schema = await app.store.schema()
        await app.store.open(migrate=False)
    except StoreError as error:
        return [*checks, Check("database", "FAIL", f"{error}{unset(app)}")]
    try:
        checks.append(_database(schema, unset(app)))
        looks: dict[str, _Look] = {
            "store": lambda _: app.store.check(), "wake": _wake, "workers": _workers, "tasks": _tasks,
            "queues": _paused, "overdue jobs": _overdue, "discarded": _discarded, "clock": _clock,
            "blockers": _blockers, "schedules": _schedules, "sources": _sources,
        }  # fmt: skip
        if with_code:
            looks["code"] = _code
        for name, look in looks.items():
            checks += await _tried(name, look, app)
    except StoreError as error:
        checks.append(Check("database", "FAIL", str(error)))
    finally:
        await app.store.close()
    return checks


async def _tried(name: str, look: _Look, app: OnCue) -> Sequence[Check]:
    """Look; a check that can't be done, because this role may not read a table, fails by itself."""
    try:
        found = await look(app)
    except (StoreUnavailable, StoreCorrupt):
        raise
    except StoreError as error:
        return [Check(name, "FAIL", str(error))]
    return [found] if isinstance(found, Check) else found


def _database(schema: SchemaView, remark: str) -> Check:
    found = f"{schema.location}{remark}, schema version {schema.found}"
    if schema.found > schema.expected:
        remedy = "Good while a new release is rolled out. Upgrade OnCue here before the one after that."
        return Check("database", "warn", f"{found}; this OnCue knows {schema.expected} and goes on with it", remedy)
    return Check("database", "ok", found)


def _cron_secret(value: str | None) -> Check:
    try:
        count = len(secrets_of(value, "CRON_SECRET"))
    except ConfigError as error:
        return Check("cron secret", "FAIL", str(error))
    if count:
        return Check("cron secret", "ok", "set" if count == 1 else f"{count} set, all of them good")
    return Check("cron secret", "warn", "not set in this environment", "Set CRON_SECRET where an external cron calls.")


async def _wake(app: OnCue) -> list[Check]:
    await app.wake.start()
    heard = asyncio.Event()
    unlisten = app.wake.listen(lambda _: heard.set())
    try:
        return await (_written(app, heard) if postgres_schema(app.store) is None else _proved(app, heard))
    finally:
        unlisten()
        await app.wake.close()


async def _written(app: OnCue, heard: asyncio.Event) -> list[Check]:
    try:
        await asyncio.to_thread(app.store.ping_sync)
        async with asyncio.timeout(_PATIENCE):
            await heard.wait()
    except TimeoutError:
        remedy = (
            "Jobs of other processes start up to a sweep late. Is the database on a network share? Use a local disk."
        )
        return [Check("wake", "FAIL", f"another connection's write was not heard within {_PATIENCE:g} s", remedy)]
    written = Check("writing", "ok", "a change was committed")
    if app.wake.healthy is not None:
        return [written, Check("wake", "warn", app.wake.healthy)]
    return [written, Check("wake", "ok", "another connection's write was heard at once")]


async def _proved(app: OnCue, heard: asyncio.Event) -> list[Check]:
    """On PostgreSQL the channel proves itself, and listeners are told when it has."""
    try:
        async with asyncio.timeout(_PROOF):
            while app.wake.healthy is not None:
                heard.clear()
                await heard.wait()
    except TimeoutError:
        return [Check("wake", "warn", str(app.wake.healthy), "Jobs start up to half a second late meanwhile.")]
    return [Check("wake", "ok", "a notification to ourselves arrived on the LISTEN connection")]


async def _workers(app: OnCue) -> Check:
    workers, counts, now = await app.jobs.workers(), await app.jobs.counts(), app.clock.now()
    texts = [
        f"{one.name} {one.state} (up {seconds(now - one.started_at)}, seen {Moment(one.seen_at).near}, "
        f"running {one.running})"
        for one in workers
    ]
    found = "; ".join(texts) or "none is registered"
    if not any(one.state == "alive" for one in workers):
        remedy = "Start one: oncue worker module:app"
        if not counts.due:
            return Check("workers", "warn", found, remedy)
        return Check("workers", "FAIL", f"{found}; {_jobs(counts.due)} due", remedy)
    bad = [one.name for one in workers if one.state != "alive" and one.running]
    if bad:
        remedy = "Taken back when the lease ends, at the next sweep, or when a worker starts on that host: the jobs of"
        return Check("workers", "warn", found, f"{remedy} {', '.join(bad)}.")
    return Check("workers", "ok", found)


async def _tasks(app: OnCue) -> Check:
    """Name the tasks that jobs wait for and no worker knows: nobody will run these jobs, and nobody tries to."""
    alive = [one for one in await app.jobs.workers() if one.state == "alive"]
    due = await app.store.overdue(app.clock.now(), _MOST)
    waiting = {job.id: job for job in [*due, *await app.jobs.list(state=["scheduled"], limit=_MOST)]}
    missing = Counter(job.task for job in waiting.values() if not any(one.knows(job.task) for one in alive))
    if not alive or not missing:
        return Check("tasks", "ok", "no job waits for one that the workers lack")
    found = "; ".join(f"no worker knows task {task}, which {_jobs(count)} asked for" for task, count in missing.items())
    remedy = "Deploy the code that has them, keep old names in aliases=(...), or cancel the jobs."
    return Check("tasks", "FAIL" if any(job.task in missing for job in due) else "warn", found, remedy)


async def _paused(app: OnCue) -> Check:
    """Name paused queues: what a person stopped, a person has to start again, and may have forgotten."""
    paused = [queue for queue in await app.store.queues(app.clock.now()) if queue.paused]
    if not paused:
        return Check("queues", "ok", "none is paused")
    found = "; ".join(
        f"{queue.name} is paused{_since(queue.paused_at)}, {_jobs(queue.due)} of it due" for queue in paused
    )
    return Check("queues", "warn", found, "Where that was forgotten: oncue queues resume NAME")


async def _discarded(app: OnCue) -> Check:
    since = app.clock.now() - _RECENT
    given_up = await app.jobs.list(state=["discarded"], limit=_MOST)
    recent = [job for job in given_up if (job.finished_at or 0) >= since]
    if not recent:
        return Check("discarded", "ok", "no job in the last 24 hours")
    last = max(recent, key=lambda job: job.finished_at or 0)
    number = f"{_jobs(len(recent))}{' or more' if len(recent) == _MOST else ''}"
    error = f"; {last.error}" if last.error and last.error not in (last.reason or "") else ""
    found = (
        f"{number} in the last 24 hours; last job {last.id} ({last.task}), {Moment(last.finished_at or 0).near}: "
        f"{last.reason}{error}"
    )
    remedy = "oncue jobs list --state discarded; mend the cause, then oncue jobs retry ID..."
    return Check("discarded", "warn", found, remedy)


async def _overdue(app: OnCue) -> Check:
    now = app.clock.now()
    paused = {queue.name for queue in await app.store.queues(now) if queue.paused}
    late = [job for job in await app.store.overdue(now - _OVERDUE, _MOST) if job.blocked_by != "restore"]
    if not late:
        return Check("overdue jobs", "ok", f"none is due for more than {_OVERDUE // SECOND} s")
    free = [
        job
        for job in late
        if job.eligible_at is not None and job.eligible_at < now - _OVERDUE and job.queue not in paused
    ]
    shown = [
        f"job {job.id} ({job.task}), due {Moment(job.scheduled_at).near}: {await app.jobs.why(job)}"
        for job in (free or late)[:3]
    ]
    number = f"{_jobs(len(late))}{' or more' if len(late) == _MOST else ''}"
    found = f"{number} due and not running; {'; '.join(shown)}"
    if free:
        return Check("overdue jobs", "FAIL", found, "Is a worker for their queue alive, with enough --concurrency?")
    remedy = "Should that hold them? `oncue jobs show ID` has more, of them and of what holds them."
    return Check("overdue jobs", "warn", found, remedy)


async def _clock(app: OnCue) -> Check:
    now = app.clock.now()
    newest = [job.created_at for job in await app.jobs.list(limit=1)]
    latest = max([*newest, *(worker.seen_at for worker in await app.jobs.workers())], default=0)
    if now < _RELEASED:
        return Check("clock", "FAIL", f"it shows {from_us(now):%Y-%m-%d}", "Set the clock: due times depend on it.")
    if latest > now + _AHEAD:
        whose = "this machine's" if postgres_schema(app.store) is None else "the server's"
        found = f"the database holds a time {seconds(latest - now)} ahead of {whose} clock"
        return Check("clock", "FAIL", found, "The clock was set back, or another host's is ahead: run NTP on all.")
    return Check("clock", "ok", f"{from_us(now):%Y-%m-%d %H:%M:%S} UTC, not behind what the database holds")


async def _blockers(app: OnCue) -> list[Check]:
    checks = []
    blockers = await app.store.blockers()
    running = (await app.jobs.counts()).running
    held = sum(blocker.waiting for blocker in blockers if blocker.name == "restore")
    if held:
        remedy = "Look: oncue restored --list. Then oncue jobs cancel ID, and oncue restored --release."
        checks.append(Check("restored", "warn", f"{_jobs(held)} held after a restore", remedy))
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
        checks.append(Check("blockers", "ok", f"{_jobs(waiting)} behind others, none in vain"))
    return checks


async def _schedules(app: OnCue) -> Check:
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


async def _sources(app: OnCue) -> list[Check]:
    """Tell how the last sweep of each source went: rows and jobs that differ then stay apart until it is mended."""
    now, checks = app.clock.now(), []
    for one in await app.sources.status():
        name, drift = f"source {one.name}", one.drift or {}
        if drift.keys() - {"trigger"}:
            troubles = [*drift.get("problems", ())]
            if waiting := drift.get("waiting_for_key"):
                troubles.append(f"rows {', '.join(map(str, waiting))} wait for a key that another row's job has")
            found = "; ".join(troubles) or f"{one.unreadable} rows can't be read"
            remedy = "Mend the table, its rows, or the declaration in code. The next sweep looks again."
            checks.append(Check(name, "FAIL", found, remedy))
        elif one.swept_at is None or one.swept_at < now - _UNSWEPT:
            last = "never" if one.swept_at is None else Moment(one.swept_at).near
            remedy = "Start a worker, have a cron call the route, or drop the source's row if the code is gone."
            checks.append(Check(name, "warn", f"last swept: {last}", remedy))
        elif drift:
            checks.append(Check(name, "warn", drift["trigger"]))
        else:
            done = f"made {one.made}, moved {one.moved}, cancelled {one.cancelled} jobs so far"
            checks.append(Check(name, "ok", f"swept {Moment(one.swept_at).near}; rows and jobs agree; {done}"))
    return checks


async def _code(app: OnCue) -> Check:
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
    return Check(
        "code", "ok", f"it has the tasks of all {_jobs(len(waiting))} that wait" if waiting else "nothing waits"
    )


def _since(moment: int | None) -> str:
    return "" if moment is None else f" since {Moment(moment).near}"


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"
