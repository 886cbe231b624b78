"""What makes jobs and what runs them: queues, tasks, schedules, sources, workers, and what jobs wait behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from oncue.clock import from_us
from oncue.cron import Cron, Every, parse_schedule
from oncue.errors import UnknownSchedule
from oncue.job import GROUP, KEY
from oncue.operate.shape import iso, maybe_iso
from oncue.operate.views import Blocker, Fire, Lane, Running, Schedule, ScheduleDetail, Source, Worker
from oncue.store import ScheduleRow
from oncue.store.sources import SourceStatus
from oncue.store.steps import overview
from oncue.store.steps.operate import PAUSE
from oncue.store.steps.watch import paused
from oncue.store.views import JobView, WorkerView
from oncue.why import seconds
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.app import OnCue

FIRES = 10
_MOST_BLOCKERS = 500
_MOST_RUNNING = 100


class Flows:
    """Reads what makes and what runs jobs."""

    def __init__(self, app: OnCue) -> None:
        self._app = app

    async def lanes(
        self, groups: Sequence[overview.Group], discarded: Sequence[tuple[str, str, int]]
    ) -> tuple[list[Lane], list[Lane]]:
        """Return the queues and the tasks by name, each with the number of its jobs, and whether it is paused now."""
        pauses = await self._app.store.look(paused)
        stopped = {what: {row.name: row.since for row in pauses if row.what == what} for what in ("queue", "task")}
        tasks = _tasks(self._app)
        queues = _lanes(0, {task.options.queue for task in tasks}, stopped["queue"], groups, discarded)
        return queues, _lanes(1, {task.name for task in tasks}, stopped["task"], groups, discarded)

    async def schedules(self) -> list[Schedule]:
        """Return the stored schedules by name."""
        return [Schedule(**_schedule(row)) for row in await self._app.store.schedules()]

    async def schedule(self, name: str, n: int = FIRES) -> ScheduleDetail:
        """Return a schedule with its next ``n`` fires, paused or not, and its last ten. Raises UnknownSchedule."""
        row = await self._row(name)
        made = await self._app.store.look(lambda: overview.fires(name, FIRES))
        try:
            when = parse_schedule(row.expression, row.timezone)
        except ValueError:
            # A newer version may write what this one can't read; the rest can be shown.
            next_fires, zone = [], ZoneInfo("UTC")
        else:
            next_fires, zone = self._coming(row, when, n), _zone(when)
        last = [_fire(_nominal(ref, due), zone, None, id) for id, ref, due in made]
        return ScheduleDetail(**_schedule(row), next_fires=next_fires, last_fires=last)

    async def preview(self, name: str, n: int = FIRES) -> list[Fire]:
        """Return the next ``n`` fires of a schedule, paused or not. Raises UnknownSchedule, or InvalidSchedule for a
        rule that this version can't read."""
        row = await self._row(name)
        return self._coming(row, parse_schedule(row.expression, row.timezone), n)

    async def _row(self, name: str) -> ScheduleRow:
        rows = {row.name: row for row in await self._app.store.schedules()}
        if name not in rows:
            raise UnknownSchedule(f"There is no schedule {name[:100]!r}. A worker stores those of its application.")
        return rows[name]

    def _coming(self, row: ScheduleRow, when: Cron | Every, n: int) -> list[Fire]:
        now = self._app.clock.now()
        first = now if row.next_at is None or row.paused else min(now, row.next_at - 1)
        return preview(when, n, now, first)

    async def workers(self) -> list[Worker]:
        """Return the registered workers, and what each runs."""
        found = await self._app.store.look(lambda: overview.running_longest(_MOST_RUNNING))
        runs = {worker: [Running(id, task, iso(began)) for id, task, began in jobs] for worker, jobs in found.items()}
        return [
            Worker(
                one.id, one.name, one.state, one.host, one.pid, one.version, one.running, runs.get(one.id, []),
                one.queues, one.weights, one.tasks, iso(one.started_at), iso(one.seen_at), iso(one.lease_until),
                *_wake(one), one.given_up,
            )
            for one in await self._app.jobs.workers()
        ]  # fmt: skip

    async def sources(self) -> list[Source]:
        """Return the sources as their last sweep left them."""
        return [_source(one, self._app.clock.now()) for one in await self._app.sources.status()]

    async def blockers(self) -> list[Blocker]:
        """Return what jobs wait behind: groups, keys, caps, a restore. Of more than 500 those with the most jobs."""
        now, found = self._app.clock.now(), []
        all_of_them = await self._app.store.blockers()
        most = sorted(all_of_them, key=lambda one: one.waiting, reverse=True)[:_MOST_BLOCKERS]
        kept = {one.name for one in most}
        ids = [one.job for one in most if one.job is not None]
        views = await self._app.store.list_jobs(limit=len(ids), ids=ids) if ids else []
        holders = {view.id: view for view in views}
        for one in [one for one in all_of_them if one.name in kept]:
            holder = None if one.job is None else holders.get(one.job)
            since = None if holder is None else holder.started_at or holder.scheduled_at
            state = None if holder is None else holder.state
            why = _behind(one.name, holder, now)
            found.append(Blocker(one.name, one.waiting, one.job, state, maybe_iso(since), why))
        return found


def _wake(one: WorkerView) -> tuple[str | None, str | None]:
    """Return why a worker hears late, and since when; one that is not alive hears nothing at all."""
    return (one.wake, maybe_iso(one.wake_since)) if one.state == "alive" else (None, None)


def _tasks(app: OnCue) -> Sequence[Any]:
    return [task for name, task in app.tasks.items() if name == task.name]


def _lanes(
    which: int,
    known: set[str],
    paused: dict[str, int | None],
    groups: Sequence[overview.Group],
    discarded: Sequence[tuple[str, str, int]],
) -> list[Lane]:
    sums: dict[str, list[int]] = {name: [0] * 6 for name in (*known, *paused)}
    for group in groups:
        counts = sums.setdefault((group.queue, group.task)[which], [0] * 6)
        for place, count in enumerate((group.due, group.late, group.later, group.blocked, group.running)):
            counts[place] += count
    for row in discarded:
        sums.setdefault((row[0], row[1])[which], [0] * 6)[5] += row[2]
    return [Lane(name, name in paused, maybe_iso(paused.get(name)), *sums[name]) for name in sorted(sums)]


def _schedule(row: ScheduleRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "task": row.task,
        "rule": row.expression,
        "timezone": row.timezone,
        "next": None if row.paused else maybe_iso(row.next_at),
        "last": maybe_iso(row.last_at),
        "paused": bool(row.paused),
        "missed": row.missed,
        "options": row.options,
    }


def preview(when: Cron | Every, n: int, now: int, first: int | None = None) -> list[Fire]:
    """Return the next ``n`` fires after ``first``, else after ``now``: in their zone, with its clock's changes in
    words."""
    zone = _zone(when)
    before, shown = from_us(now).astimezone(zone), []
    for fire in when.upcoming(now if first is None else first, n):
        local = from_us(fire).astimezone(zone)
        shown.append(_fire(fire, zone, _edge(local, before) or None))
        before = local
    return shown


def _zone(when: Cron | Every) -> ZoneInfo:
    return ZoneInfo(when.timezone if isinstance(when, Cron) else "UTC")


def _fire(at: int, zone: ZoneInfo, shift: str | None = None, job: int | None = None) -> Fire:
    local = from_us(at).astimezone(zone)
    return Fire(iso(at), f"{local:%a %Y-%m-%d %H:%M:%S}", local.isoformat()[-6:], shift, job)


def _nominal(ref: str | None, due: int) -> int:
    return int(ref) if ref is not None and ref.isdigit() else due


def _edge(local: datetime, before: datetime) -> str:
    """Say in words where a clock change touches this fire."""
    just_before = (local.astimezone(ZoneInfo("UTC")) - timedelta(seconds=1)).astimezone(local.tzinfo)
    if (just_before.utcoffset() or timedelta()) < (local.utcoffset() or timedelta()):
        return "right after the hour that the clock leaves out"
    if local.fold:
        return "the repeated hour, second time"
    if local.replace(fold=1).utcoffset() != local.utcoffset():
        return "the repeated hour, first time"
    change = (local.utcoffset() or timedelta()) - (before.utcoffset() or timedelta())
    if not change:
        return ""
    return f"the clock went {'forward' if change > timedelta() else 'back'} by {abs(change)} since the fire before"


def _source(one: SourceStatus, now: int) -> Source:
    drift = one.drift or {}
    troubles = [str(problem) for problem in drift.get("problems", ())]
    waiting = drift.get("waiting_for_key") or ()
    if waiting:
        troubles.append(f"rows {', '.join(map(str, waiting))} wait for a key that another row's job has")
    if one.unreadable and not troubles:
        troubles.append(f"{counted(one.unreadable, 'row')} can't be read")
    swept = "never" if one.swept_at is None else f"{seconds(now - one.swept_at)} ago"
    found = f"swept {swept}; made {one.made}, moved {one.moved}, cancelled {one.cancelled} so far"
    if "trigger" in drift:
        found += f"; {drift['trigger']}"
    count = len(waiting) + one.unreadable
    error = "; ".join(troubles) or None
    since = maybe_iso(one.drift_since)
    return Source(one.name, maybe_iso(one.swept_at), one.made, one.moved, one.cancelled, count, since, error, found)


def _behind(name: str, holder: JobView | None, now: int) -> str:
    if name == "restore":
        return "a backup was restored: look at what is held, cancel what has happened, release the rest"
    if name.startswith(PAUSE):
        return "the task is paused: resume it, and they start"
    if holder is not None and holder.state == "running":
        return f"job {holder.id} has run for {seconds(now - (holder.started_at or now))}, on worker {holder.worker}"
    if holder is not None:
        after = f"after attempt {holder.attempt}" if holder.attempt else "not begun yet"
        return f"job {holder.id} comes first: {after}, due {seconds(now - holder.scheduled_at)} " + (
            "ago" if holder.scheduled_at <= now else "from now"
        )
    if name.startswith((GROUP, KEY)):
        return "nothing holds them: the next sweep frees them"
    return "as many run as may at once"
