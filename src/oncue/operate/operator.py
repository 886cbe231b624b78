"""The one door to the operator's view: reads, actions and the audit, on behalf of somebody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import msgspec

from oncue.errors import StoreError
from oncue.operate.actions import Action, Actions, due_of
from oncue.operate.events import Watcher
from oncue.operate.find import Filter, cursor_of
from oncue.operate.flows import Flows
from oncue.operate.jobs import JobReader
from oncue.operate.known import doubt
from oncue.operate.overview import Look
from oncue.operate.schedule import Wish, schedule
from oncue.operate.shape import iso
from oncue.operate.tokens import Tokens
from oncue.operate.views import (
    AuditEntry,
    AuditPage,
    Counts,
    Done,
    Health,
    JobLife,
    JobPage,
    Lane,
    Made,
    ManyCounted,
    ManyDone,
    Overview,
)
from oncue.redaction import Redaction
from oncue.store.operating import AuditRow
from oncue.store.steps import operate

if TYPE_CHECKING:
    from oncue.app import OnCue
    from oncue.operate.talk_views import ChannelView, Person, PersonLife, TalkLife, TalkPage
    from oncue.operate.talks import TalkAction, Talks

_looks: WeakKeyDictionary[OnCue, Look] = WeakKeyDictionary()
_watchers: WeakKeyDictionary[OnCue, Watcher] = WeakKeyDictionary()


class Operator:
    """Looks at an application and acts on it; ``who`` (``token:ana``, ``cli:root``) stands in the audit.

    The application's store is open meanwhile. Raises what its parts raise, and a StoreError where the database fails.
    """

    def __init__(self, app: OnCue, who: str) -> None:
        self.app, self.who = app, who
        redaction = Redaction(app.redacted)
        self.flows, self.jobs = Flows(app), JobReader(app, redaction)
        self.tokens = Tokens(app, who)
        self._actions = Actions(app, who)

    @cached_property
    def _talks(self) -> Talks:
        # What conversations need is a fifth of what a shell command loads, and most have nothing to do with them.
        from oncue.operate.talks import Talks

        return Talks(self.app, self.who, redact="text" in self.app.redacted)

    @property
    def look(self) -> Look:
        """What remembers costly figures of this application, for all who ask in this process."""
        return _looks.setdefault(self.app, Look(self.app))

    @property
    def watcher(self) -> Watcher:
        """What watches this application for all who listen in this process."""
        return _watchers.setdefault(self.app, Watcher(self.app, self.look))

    async def overview(self) -> Overview:
        """Return how things are now."""
        return await self.look.overview()

    async def counts(self) -> Counts:
        """Return how many jobs are in which state now."""
        return await self.look.counts()

    async def checks(self) -> list[Health]:
        """Return all checks, each with its remedy."""
        return await self.look.examine()

    async def page(self, filter: Filter, cursor: str | None = None, limit: int = 50) -> JobPage:
        """Return a page of jobs."""
        return await self.jobs.page(filter, cursor, limit)

    async def job(self, id: int) -> JobLife:
        """Return a job's whole life. Raises UnknownJob."""
        return await self.jobs.life(id)

    async def schedule(self, wish: Wish, request: str | None = None) -> tuple[Made, bool]:
        """Store a job by its task's name; see ``oncue.operate.schedule``."""
        return await schedule(self.app, self.who, wish, request)

    async def act(self, action: Action, id: int, *, at: str | None = None, delay: float | None = None) -> Done:
        """Do it to one job. ``at`` or ``delay`` (seconds) for ``reschedule``. Raises UnknownJob or InvalidJob."""
        due = due_of(self.app.clock.now(), at, delay) if action == "reschedule" else None
        with self._acting():
            return await self._actions.job(action, id, due)

    async def count(self, action: Action, filter: Filter) -> ManyCounted:
        """Count the jobs to which an action would be done."""
        return await self._actions.count(action, filter)

    async def act_on_many(
        self, action: Action, filter: Filter, token: str, confirm: int, *, at: str | None, delay: float | None
    ) -> ManyDone:
        """Do it to the jobs that ``count`` counted. Raises InvalidJob."""
        due = due_of(self.app.clock.now(), at, delay) if action == "reschedule" else None
        with self._acting():
            return await self._actions.many(action, filter, token, confirm, due)

    async def lanes(self, kind: Literal["queues", "tasks"]) -> list[Lane]:
        """Return the queues or the tasks, with the number of their jobs."""
        return (await self.flows.lanes(*await self.look.groups()))[kind == "tasks"]

    async def pause(self, kind: Literal["queue", "task", "schedule"], name: str, *, paused: bool = True) -> Done:
        """Pause or resume a queue, a task or a schedule. Raises UnknownSchedule, or InvalidJob for no name.

        A queue or task that nobody knows may be a newer version's: the answer says so, and it is done.
        """
        with self._acting():
            if kind == "schedule":
                done = await self._actions.schedule("pause" if paused else "resume", name)
            else:
                done = await (self._actions.queue if kind == "queue" else self._actions.task)(name, paused)
        # Now that the last look is forgotten: a job that has come since may know the name.
        if kind != "schedule" and (doubt := await self.doubt(kind, name)) is not None:
            done = msgspec.structs.replace(done, text=f"{done.text} {doubt}")
        return done

    async def doubt(self, kind: Literal["queue", "task"], name: str) -> str | None:
        """Return, in words, that no worker and no job knows a queue or task of that name; None where one does, or where
        that can't be found out now."""
        # Who hears of trouble here would take what they did for not done.
        with contextlib.suppress(StoreError):
            return await doubt(self.app, self.look, kind, name)
        return None

    async def reconnect(self) -> Done:
        """Have all whose wake channel doesn't work connect it anew, at once."""
        with self._acting():
            return await self._actions.reconnect()

    async def run_schedule(self, name: str) -> Done:
        """Make a job of a schedule at once. Raises UnknownSchedule."""
        with self._acting():
            return await self._actions.schedule("run-now", name)

    async def restored(self, *, release: bool = False) -> int:
        """After a restored backup: hold what came due by now, or let that run; return how many jobs that were."""
        with self._acting():
            return await self._actions.restored(release=release)

    async def audit(self, cursor: str | None = None, limit: int = 50, target: str | None = None) -> AuditPage:
        """Return what was done, the latest first; to ``target`` (``job:17``) where it is given."""
        before = cursor_of(cursor)
        rows = await self.app.store.look(lambda: operate.audit(limit + 1, before, target))
        entries = [_entry(row) for row in rows[:limit]]
        return AuditPage(entries, str(entries[-1].id) if len(rows) > limit else None)

    async def talks(
        self,
        state: str | None = None,
        conversation: str | None = None,
        person: int | None = None,
        cursor: str | None = None,
        limit: int = 50,
        channel: str | None = None,
    ) -> TalkPage:
        """Return a page of conversations, the newest first."""
        return await self._talks.page(state, conversation, person, cursor, limit, channel)

    async def talk(self, id: int) -> TalkLife:
        """Return a conversation and its timeline. Raises UnknownJob."""
        return await self._talks.life(id)

    async def people(self, name: str, channel: str | None = None) -> list[Person]:
        """Return whom a name fits, as the command line takes it."""
        return await self._talks.people(name, channel)

    async def person(self, id: int, *, redact: bool = False) -> PersonLife:
        """Return a person and their timeline, over all their conversations. Raises UnknownPerson."""
        return await self._talks.person(id, redact=redact)

    async def channels(self) -> list[ChannelView]:
        """Return how each channel stands: whether it sends, and why not."""
        return await self._talks.channels()

    async def steer_talk(self, action: TalkAction, id: int) -> Done:
        """Do it to a conversation, or to its person. Raises UnknownJob, InvalidJob or ConfigError (no such channel)."""
        with self._acting():
            return await self._talks.act(action, id)

    @contextlib.contextmanager
    def _acting(self) -> Iterator[None]:
        """Have all looked at anew afterwards, also after trouble: a part may be done, or all without an answer."""
        try:
            yield
        finally:
            self.look.forget()


def _entry(row: AuditRow) -> AuditEntry:
    detail = msgspec.json.decode(row.detail)
    # The digest of what was sent with an idempotency key: arguments that are hidden could be guessed by it.
    detail.pop("body", None)
    return AuditEntry(row.id, iso(row.at), row.who, row.action, row.target, row.count, detail)
