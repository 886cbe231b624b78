"""Jobs as an operator sees them: pages of them, and one job's whole life."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from oncue.clock import SECOND, from_us
from oncue.errors import UnknownJob
from oncue.job import FINAL
from oncue.operate.find import BUDGET, LATE, Filter, Finder, Shows, cursor_of
from oncue.operate.shape import from_iso, iso, maybe_iso
from oncue.operate.views import Attempt, JobDetail, JobLife, JobPage, JobRow, JobSummary, LifeEvent, Scanned
from oncue.redaction import Redaction
from oncue.store.operating import AuditRow
from oncue.store.steps import Steps, operate, overview, read
from oncue.store.views import AttemptView, JobView
from oncue.task import MAX_ID
from oncue.why import seconds
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.app import OnCue

_LATE_ENOUGH = 1_000
_SHOWN = 400
# One that looks every few seconds whether something has come, and snoozes, has thousands a day.
_MOST_ATTEMPTS = 100
_MANY = 200
Said = tuple[str | None, str | None]
"""An attempt's error and reason."""
_FIRST_OF_KIND = {"retried": "failed", "discarded": "failed", "completed": "completed", "cancelled": "cancelled"}
_ACTS = {
    "run-now": "was asked to run now",
    "retry": "was put back",
    "cancel": "was asked to be cancelled",
    "reschedule": "was moved",
    "schedule": "was asked for",
}


def views(ids: Sequence[int]) -> Steps[list[tuple[JobView, Said | None]]]:
    """Return these jobs, the highest id first, each with what its last attempt said where it waits for the next."""
    found = yield from read.list_jobs(len(ids), ids=list(ids))
    again = [view.id for view in found if view.state not in FINAL and view.attempt]
    errors = (yield from overview.last_errors(again)) if again else {}
    return [(view, errors.get(view.id)) for view in found]


class JobReader:
    """Reads jobs of one application, with what is hidden hidden."""

    def __init__(self, app: OnCue, redaction: Redaction) -> None:
        self._app, self._redaction = app, redaction

    async def page(self, filter: Filter, cursor: str | None = None, limit: int = 50) -> JobPage:
        """Return jobs that match, the highest id first. Raises InvalidTime or InvalidJob for what can't be asked."""
        now, store = self._app.clock.now(), self._app.store
        found = await Finder(store, filter, now, self.shows(filter)).find(cursor_of(cursor), limit, BUDGET)
        items = [self.summary(view, error, now) for view, error in await self._views(found.ids)]
        full = len(found.ids) >= limit
        scanned = msgspec.UNSET if full and filter.text is None else Scanned(found.start, found.end)
        if filter.text is None and not found.more:
            scanned = msgspec.UNSET
        return JobPage(items, str(found.start) if found.more else None, scanned)

    async def _views(self, ids: Sequence[int]) -> list[tuple[JobView, Said | None]]:
        return await self._app.store.look(lambda: views(ids)) if ids else []

    def shows(self, filter: Filter) -> Shows | None:
        """Return what keeps a search for a text to what is shown, where something is hidden; else None."""
        text = filter.text
        if text is None or not self._redaction:
            return None

        async def shows(ids: Sequence[int]) -> set[int]:
            return {view.id for view, error in await self._views(ids) if self._shows(view, text, error)}

        return shows

    def _shows(self, view: JobView, wanted: str, error: Said | None) -> bool:
        shown = self._redaction.value([view.args, view.metadata])
        texts = [view.key, view.error, view.reason, *(error or ())]
        said = "\n".join(self._redaction.text(text, view.args, view.metadata) or "" for text in texts)
        in_json = msgspec.json.encode(wanted).decode()[1:-1].lower()
        return wanted.lower() in said.lower() or in_json in msgspec.json.encode(shown).decode().lower()

    async def rows(self, ids: Sequence[int]) -> list[JobRow]:
        """Return these jobs, the highest id first, with what each was given and left."""
        now = self._app.clock.now()
        found = await self._views(ids)
        return [JobRow(**self._summary(view, error, now), **self._given(view)) for view, error in found]

    def summary(self, view: JobView, error: Said | None, now: int) -> JobSummary:
        """Return a job as lists show it."""
        return JobSummary(**self._summary(view, error, now))

    def _summary(self, view: JobView, error: Said | None, now: int) -> dict[str, Any]:
        last = (view.error, view.reason) if error is None else error
        hide = self._redaction.text
        shown = hide(last[0], view.args, view.metadata)
        return {
            **{name: getattr(view, name) for name in _SAME},
            "scheduled_at": iso(view.scheduled_at),
            **{name: maybe_iso(getattr(view, name)) for name in ("eligible_at", "finished_at")},
            "started_at": maybe_iso(view.started_at if view.state not in FINAL or _ran(view) else None),
            "late": view.state == "scheduled" and view.scheduled_at <= now - LATE,
            "error": None if shown is None else shown[-_SHOWN:],
            "reason": hide(last[1], view.args, view.metadata),
        }

    async def life(self, id: int) -> JobLife:
        """Return a job and all that happened to it. Raises UnknownJob."""
        view = await self._app.jobs.get(id)
        if view is None:
            raise UnknownJob(f"There is no job {str(id)[:20]}, waiting, running or in the kept history.")
        since = view.attempt - _MOST_ATTEMPTS
        attempts = await self._app.store.look(lambda: read.attempts(id, since))
        done = await self._app.store.look(lambda: operate.audit(100, target=f"job:{id}"))
        done += _among_many(await self._app.store.look(lambda: operate.audit(_MANY, target="jobs")), view, attempts)
        why = self._redaction.text(await self._app.jobs.why(view), view.args, view.metadata)
        job = self._detail(view, attempts)
        known = {0, *(one.attempt for one in attempts)}
        last = [] if view.started_at is None else [one for one in _end(view) if one.attempt not in known]
        events = self._events(view, attempts, done)
        return JobLife(job, why or "", events, [self._attempt(one, view) for one in [*attempts, *last]])

    def _detail(self, view: JobView, attempts: Sequence[AttemptView]) -> JobDetail:
        hide, last = self._redaction, attempts[-1] if attempts and view.state not in FINAL else None
        base = self._summary(view, None if last is None else (last.error, last.reason), self._app.clock.now())
        trace = view.traceback if last is None else last.traceback
        base["error"] = hide.text(view.error if last is None else last.error, view.args, view.metadata)
        return JobDetail(**base, **self._given(view), traceback=hide.text(trace, view.args, view.metadata))

    def _given(self, view: JobView) -> dict[str, Any]:
        hide = self._redaction
        return {
            **{name: hide.value(getattr(view, name)) for name in ("args", "metadata")},
            **{name: hide.quoted(getattr(view, name), view.args, view.metadata) for name in ("progress", "result")},
            **{name: getattr(view, name) for name in ("origin", "origin_ref", "when_late", "folded", "snoozes")},
            **{name: maybe_iso(getattr(view, name)) for name in ("first_due", "claimed_at")},
            "created_at": iso(view.created_at),
            "max_late": None if view.max_late is None else view.max_late / SECOND,
            "cancel_requested": bool(view.cancel),
        }

    def _attempt(self, one: AttemptView, view: JobView) -> Attempt:
        texts = (
            self._redaction.text(text, view.args, view.metadata) for text in (one.error, one.traceback, one.reason)
        )
        return Attempt(
            one.attempt, one.outcome, iso(one.scheduled_at), maybe_iso(one.claimed_at), iso(one.started_at),
            iso(one.finished_at), one.worker, *texts,
        )  # fmt: skip

    def _events(self, view: JobView, attempts: Sequence[AttemptView], done: Sequence[AuditRow]) -> list[LifeEvent]:
        said: list[tuple[int, LifeEvent]] = []

        def add(at: int, event: str, text: str, traceback: str | None = None, worker: int | None = None) -> None:
            hide = self._redaction.text
            shown = hide(text, view.args, view.metadata) or ""
            trace = hide(traceback, view.args, view.metadata)
            said.append((at, LifeEvent(iso(at), event, shown, trace, worker)))

        first = attempts[0].scheduled_at if attempts else view.scheduled_at
        asked = first if view.first_due is None else view.first_due
        moved = "" if asked == first else f"; moved since to {_when(first)}"
        add(view.created_at, "scheduled", f"{_by(view)}, due {_when(asked)}{moved}{_folded(view)}")
        add(view.created_at, "hint", self._hint(view.created_at, asked))
        # Before what followed at the same instant.
        for row in sorted(done, key=lambda row: row.id):
            add(row.at, "asked", f"it {_ACTS.get(row.action, row.action)} by {row.who}{_to(row)}{_with(row)}")
        left_out = view.attempt - _MOST_ATTEMPTS - 2
        for one in [*attempts, *_end(view)]:
            if one.claimed_at is not None:
                add(one.claimed_at, "claimed", _claimed(one), None, one.worker)
            if _ran(one):
                add(one.started_at, "started", _started(one, one.started_at), None, one.worker)
            add(one.finished_at, _FIRST_OF_KIND.get(one.outcome, one.outcome), _ended(one), one.traceback, one.worker)
            if one.attempt == 1 and left_out > 0:
                add(one.finished_at, "more", f"{counted(left_out, 'more attempt')}, left out here")
        if view.state == "running" and view.started_at is not None:
            began = max(view.started_at, view.scheduled_at)
            add(view.started_at, "claimed", _claimed(view), None, view.worker)
            add(began, "started", _started(view, began), None, view.worker)
        if view.state == "scheduled" and attempts:
            add(attempts[-1].finished_at, "waits", f"the next attempt may start {_when(view.eligible_at)}")
        # Clocks of two processes may differ by milliseconds: nothing happened to a job before there was one.
        return [event for _, event in sorted(said, key=lambda pair: max(pair[0], view.created_at))]

    def _hint(self, created_at: int, due: int) -> str:
        """Return how workers heard of it."""
        if self._app.wake.hears_commits:
            return "workers hear each commit to this file"
        if due <= created_at + self._app.store.hint_within:
            return "sent to workers with its commit"
        return "none needed: it was due so much later that workers find it by themselves"


_SAME = (
    "id", "state", "outcome", "task", "queue", "key", "group", "priority", "attempt", "max_attempts", "blocked_by",
    "worker",
)  # fmt: skip


def _by(view: JobView) -> str:
    kind, _, name = (view.origin or "").partition(":")
    if kind == "cron":
        return f"by the schedule {name}"
    if kind == "source":
        return f"by the source {name}, row {_row(view.origin_ref)}"
    return f"by {view.origin}" if view.origin else "by the application"


def _row(ref: str | None) -> str:
    """Return the key of a source's row, which its reference holds beside the due time."""
    return "?" if ref is None else str(msgspec.json.decode(ref)[0])


def _to(row: AuditRow) -> str:
    """Return where a job was moved to, of the line of the audit that moved it."""
    at = msgspec.json.decode(row.detail).get("at")
    return "" if at is None else f", to {_when(from_iso(at))}"


def _with(row: AuditRow) -> str:
    return f", with {counted(row.count - 1, 'other')}" if row.count > 1 else ""


def _among_many(rows: Sequence[AuditRow], view: JobView, attempts: Sequence[AttemptView]) -> list[AuditRow]:
    """Return the actions on many that this job was among: what they did to it bears their very time."""
    due = {view.scheduled_at, *(one.scheduled_at for one in attempts)}
    ended = {one.finished_at for one in [*attempts, *_end(view)] if not _ran(one)}
    times = {"retry": due, "run-now": due, "cancel": ended}
    return [row for row in rows if row.count and row.at > view.created_at and row.at in times.get(row.action, ())]


def _folded(view: JobView) -> str:
    return f"; {counted(view.folded, 'more call')} of the same key went into it" if view.folded else ""


def _when(us: int | None) -> str:
    return "once what it waits behind is gone" if us is None else f"{from_us(us):%Y-%m-%d %H:%M:%S.%f} UTC"


def _ran(one: AttemptView | JobView) -> bool:
    """Whether its handler was called: it was not where it began too late, or nobody wanted it any more."""
    # Where a clock stands still, as in a test, the times don't tell.
    unrun = one.outcome in ("skipped", "cancelled") or (one.reason or "").startswith("failed: ")
    return one.started_at != one.finished_at or not unrun


def _claimed(one: AttemptView | JobView) -> str:
    return f"attempt {one.attempt}, by worker {one.worker}"


def _started(one: AttemptView | JobView, at: int) -> str:
    late = at - one.scheduled_at
    behind = f"{seconds(late)} after it was due" if late >= _LATE_ENOUGH else "on time"
    return f"attempt {one.attempt}, {behind}, on worker {one.worker}"


def _ended(one: AttemptView) -> str:
    took = seconds(one.finished_at - one.started_at)
    # What a dead worker held is settled by another one, whose name nobody keeps.
    stopped = one.outcome == "cancelled" and one.started_at < one.finished_at
    ended = stopped or one.outcome in ("completed", "snoozed") or one.traceback is not None
    acked = ended and one.worker is not None
    by = f", acked by worker {one.worker}" if acked else ""
    text = f"{one.outcome} after {took}{by}"
    said = [part for part in (one.reason, one.error) if part]
    return f"{text}: {'; '.join(dict.fromkeys(said))}" if said else text


def _end(view: JobView) -> list[AttemptView]:
    """Return what ended the job, of which its own row tells: its last attempt, or a cancel before the next one."""
    if view.state not in FINAL or view.finished_at is None:
        return []
    began = view.finished_at if view.started_at is None else view.started_at
    outcome = view.outcome or view.state
    return [
        AttemptView(
            view.attempt, outcome, view.scheduled_at, began, view.finished_at, view.worker, view.error, view.traceback,
            view.reason, view.claimed_at,
        )
    ]  # fmt: skip


def known_id(text: str, what: str = "job") -> int:
    """Return the id that a path names. Raises UnknownJob for what no job (conversation, person) can have."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 0 < int(text) <= MAX_ID):
        raise UnknownJob(f"There is no {what} {text[:20]!r}: ids go from 1 to {MAX_ID:,}.")
    return int(text)
