"""What operators do to jobs, queues, tasks and schedules, each with its line in the audit."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from oncue.clock import SECOND, in_range, seconds_to_us
from oncue.errors import InvalidJob, InvalidTime, UnknownSchedule
from oncue.operate.find import Filter, Finder
from oncue.operate.jobs import JobReader
from oncue.operate.shape import from_iso, iso
from oncue.operate.views import Done, ManyCounted, ManyDone, Refused
from oncue.planner import Planner
from oncue.redaction import Redaction
from oncue.store.operating import AuditRow
from oncue.store.steps import Steps, manage, many, operate, watch
from oncue.task import checked_name
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.app import OnCue

T = TypeVar("T")
Action = Literal["run-now", "retry", "cancel", "reschedule"]
_BATCH = 500
_MOST = 100_000
_MOST_REFUSED = 100
_GOOD_FOR = 600 * SECOND
_FITS: dict[str, tuple[str, ...]] = {
    "run-now": ("scheduled", "due", "late", "blocked"),
    "reschedule": ("scheduled", "due", "late", "blocked"),
    "retry": ("discarded", "cancelled"),
    "cancel": ("scheduled", "due", "late", "blocked", "running"),
}
_SAID = {
    "prevented": "It is cancelled, and will not run.",
    "requested": "It runs; its handler was asked to stop.",
    "too late": "Nothing that waits or runs has that id.",
}


class Question(msgspec.Struct, frozen=True):
    """What somebody was asked to confirm: the digest of what is to be done, up to which job, how many, and when."""

    digest: str
    last: int
    count: int
    asked_at: int


class Actions:
    """Acts on behalf of somebody (``who``), and records it. Where it raises, nothing was done."""

    def __init__(self, app: OnCue, who: str) -> None:
        self._app, self._who = app, who

    def line(self, action: str, target: str, count: int = 1, when: int | None = None, **detail: Any) -> AuditRow:
        """Return a line of the audit about what this person does now, or did ``when`` (microseconds)."""
        text = msgspec.json.encode({name: value for name, value in detail.items() if value is not None}).decode()
        return AuditRow(0, self._app.clock.now() if when is None else when, self._who, action, target, count, text)

    async def _do(self, steps: Callable[[], Steps[T]], line: Callable[[T], AuditRow | None], hint: int) -> T:
        """Run steps with their line of the audit in one transaction, then hint."""

        def both() -> Steps[T]:
            answer = yield from steps()
            if (row := line(answer)) is not None:
                yield from operate.add_audit(row)
            return answer

        answer = await self._app.store.change(both, hint)
        self._app.wake.hint(hint)
        return answer

    async def job(self, action: Action, id: int, due: int | None = None) -> Done:
        """Do it to one job. Raises UnknownJob, or InvalidJob where it does not apply to the job's state."""
        now = self._app.clock.now()
        at = None if action != "reschedule" or due is None else iso(due)
        text = await self._do(
            lambda: self._step(action, id, due, now),
            # Asked before it was done, whatever the clock says by then.
            lambda said: self.line(action, f"job:{id}", when=now, at=at, answer=said),
            now if due is None else due,
        )
        return Done(action != "cancel" or text != _SAID["too late"], text)

    def _step(self, action: Action, id: int, due: int | None, now: int) -> Steps[str]:
        if action == "run-now":
            yield from manage.run_now(now, id)
            return "It is due now."
        if action == "retry":
            yield from manage.restart(now, id)
            return "It is put back, due now."
        if action == "cancel":
            retention = self._app.retention_us
            answer = yield from manage.cancel(now, None if retention is None else now + retention, id=id, key=None)
            if answer == "too late":
                yield from manage.refuse(id, "cancel")
            return _SAID[answer]
        assert due is not None
        if not (yield from manage.reschedule(due, id=id, key=None)):
            yield from manage.refuse(id, "reschedule")
        return f"It is due at {iso(due)}."

    def _batch(self, action: Action, ids: list[int], due: int | None, now: int) -> Steps[many.Refusals]:
        if action == "cancel":
            retention = self._app.retention_us
            return (yield from many.cancel(now, None if retention is None else now + retention, ids))
        if action == "retry":
            return (yield from many.restart(now, ids))
        return (yield from many.move(now if due is None else due, ids, action))

    async def count(self, action: Action, filter: Filter) -> ManyCounted:
        """Count the jobs that match and to which the action applies. Raises InvalidJob for an empty filter."""
        self._check(filter)
        ids = await self._matching(action, filter, None)
        question = Question(_digest(action, filter), max(ids, default=0), len(ids), self._app.clock.now())
        return ManyCounted(len(ids), msgspec.json.encode(question).hex())

    async def many(self, action: Action, filter: Filter, token: str, confirm: int, due: int | None = None) -> ManyDone:
        """Do it to all jobs that were counted and still match. Raises InvalidJob where the answer fits no question."""
        self._check(filter)
        question = self._question(token, action, filter, confirm)
        now, request = self._app.clock.now(), f"many:{secrets.token_hex(16)}"
        ids = await self._matching(action, filter, question.last + 1)
        shown: dict[str, Any] = {"filter": msgspec.to_builtins(filter), "at": None if due is None else iso(due)}
        # By its time, what was done to each job is known to be of this.
        start = self.line(action, "jobs", 0, now, **shown)
        await self._app.store.change(lambda: operate.add_audit(start, request))
        refused: list[Refused] = []
        done = total = 0
        for first in range(0, len(ids), _BATCH):
            part, before = ids[first : first + _BATCH], done

            def steps(part: list[int] = part, before: int = before) -> Steps[list[Refused]]:
                bad = yield from self._batch(action, part, due, now)
                count = before + len(part) - len(bad)
                yield from operate.settle_audit(request, "jobs", count, msgspec.json.encode(shown).decode())
                return [Refused(id, why) for id, why in bad]

            bad = await self._app.store.change(steps, now if due is None else due)
            done += len(part) - len(bad)
            total += len(bad)
            refused += bad[: _MOST_REFUSED - len(refused)]
            self._app.wake.hint(now if due is None else due)
        said = f"{action}: {done} done" + (f", {total} refused" if total else "")
        return ManyDone(done, refused, f"{said}.")

    def _check(self, filter: Filter) -> None:
        if not filter:
            raise InvalidJob("The filter is empty, and would match every job. Say which ones: by task, state, ...")

    def _question(self, token: str, action: Action, filter: Filter, confirm: int) -> Question:
        try:
            question = msgspec.json.decode(bytes.fromhex(token), type=Question)
        except (ValueError, msgspec.MsgspecError) as error:
            raise InvalidJob("That is no token of a count: ask without `confirm` first.") from error
        if question.digest != _digest(action, filter):
            raise InvalidJob("The token belongs to another action or filter: count these jobs first.")
        if question.count != confirm:
            found = counted(question.count, "job was", "jobs were")
            raise InvalidJob(f"{found} counted, and {confirm:,} confirmed. Count them anew.")
        if not 0 <= self._app.clock.now() - question.asked_at <= _GOOD_FOR:
            raise InvalidJob("That was counted more than ten minutes ago. Count anew.")
        return question

    async def _matching(self, action: Action, filter: Filter, before: int | None) -> list[int]:
        fits = _FITS[action]
        if filter.state is not None:
            wanted = [filter] if filter.state in fits else []
        elif filter.late:
            wanted = [filter] if "late" in fits else []
        else:
            states = ("scheduled", "running") if action == "cancel" else fits if action == "retry" else ("scheduled",)
            wanted = [msgspec.structs.replace(filter, state=state) for state in states]
        ids: set[int] = set()
        for one in wanted:
            # What may not be seen can't be acted upon, and not be counted either: that would tell it.
            shows = JobReader(self._app, Redaction(self._app.redacted)).shows(one)
            found = await Finder(self._app.store, one, self._app.clock.now(), shows).find(before, _MOST + 1, None)
            ids.update(found.ids)
        if len(ids) > _MOST:
            raise InvalidJob(f"More than {_MOST:,} jobs match. Narrow the filter, for example by time.")
        return sorted(ids)

    async def queue(self, name: str, paused: bool) -> Done:
        """Pause or resume a queue for all workers. Raises InvalidJob for what can't be a name."""
        checked_name("queue", name)
        now, verb = self._app.clock.now(), "pause" if paused else "resume"

        def steps() -> Steps[bool]:
            if any((one.what, one.name) == ("queue", name) for one in (yield from watch.paused())) is paused:
                return False
            yield from manage.set_queue(now, name, paused)
            return True

        if not await self._do(steps, lambda changed: self.line(verb, f"queue:{name}") if changed else None, now):
            return Done(False, f"Queue {name} {'is paused already' if paused else 'was not paused'}.")
        return Done(True, f"Queue {name} is paused." if paused else f"Queue {name} goes on.")

    async def task(self, name: str, paused: bool) -> Done:
        """Pause or resume a task for all workers. Raises InvalidJob for what can't be a name."""
        checked_name("task", name)
        now, verb = self._app.clock.now(), "pause" if paused else "resume"

        def steps() -> Steps[bool]:
            return (yield from operate.pause_task(name, now, self._who) if paused else operate.resume_task(name))

        while not paused and await self._app.store.change(partial(operate.unpark_paused, name)):
            pass
        changed = await self._do(steps, lambda changed: self.line(verb, f"task:{name}") if changed else None, now)
        if paused:
            await self._app.store.park_paused()
        if not changed:
            return Done(False, f"Task {name} {'is paused already' if paused else 'was not paused'}.")
        return Done(True, f"Task {name} is paused: nobody starts its jobs." if paused else f"Task {name} goes on.")

    async def reconnect(self) -> Done:
        """Have this process, and each worker that hears late of what others store, connect its wake channel anew."""
        now, own = self._app.clock.now(), self._app.wake.healthy is not None
        self._app.wake.reconnect()
        deaf = [one for one in await self._app.jobs.workers() if one.state == "alive" and one.wake is not None]
        names = sorted(one.name for one in deaf)
        await self._do(
            lambda: operate.ask_to_reconnect(now, [one.id for one in deaf]),
            lambda _: self.line("reconnect", "wake", len(names) + own, workers=names) if names or own else None,
            now,
        )
        asked = ["this process"] * own + names
        if not asked:
            return Done(False, "Every wake channel works, as far as is known: nobody was asked to connect anew.")
        return Done(True, f"Connecting anew: {', '.join(asked)}. The checks tell within seconds whether they hear.")

    async def restored(self, *, release: bool) -> int:
        """After a restore: hold what came due by now, or let that run; return how many jobs that were."""
        now, verb = self._app.clock.now(), "release" if release else "hold"

        def steps() -> Steps[int]:
            count: int = yield from manage.release_held() if release else manage.hold_due(now)
            yield from operate.add_audit(self.line(verb, "restore", count))
            return count

        return await self._app.store.change(steps, now if release else None, locked=True)

    async def schedule(self, action: Literal["pause", "resume", "run-now"], name: str) -> Done:
        """Pause or resume a schedule, or make a job of it now. Raises UnknownSchedule."""
        planner = Planner(self._app.store, self._app.clock, self._app.name, {})
        if action == "run-now":
            made = await planner.run_now(name, self.line(action, f"schedule:{name}"))
            found, text = made is not None, f"Job {made} is due now."
        else:
            text = f"Schedule {name} is paused." if action == "pause" else f"Schedule {name} fires again."
            found = await planner.pause(name, action == "pause", self.line(action, f"schedule:{name}", answer=text))
        if not found:
            raise UnknownSchedule(f"There is no schedule {name[:100]!r}. A worker stores those of its application.")
        self._app.wake.hint(self._app.clock.now())
        return Done(True, text)


def due_of(now: int, at: str | None, delay: float | None) -> int:
    """Return the due time that a caller gave, as a time or as seconds from now. Raises InvalidTime."""
    if (at is None) == (delay is None):
        raise InvalidTime("Give `at` (a time) or `delay` (seconds), one of them.")
    return from_iso(at) if at is not None else in_range(now + seconds_to_us(delay or 0.0), delay)


def _digest(action: str, filter: Filter) -> str:
    return hashlib.sha256(action.encode() + msgspec.json.encode(filter)).hexdigest()[:32]
