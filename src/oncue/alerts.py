"""Alerts: somebody is told when something is wrong, once however many processes see it, and when it is well again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

import msgspec

from oncue.clock import SECOND, from_us, seconds_to_us
from oncue.errors import ConfigError, StoreError
from oncue.store.steps import chats, watch
from oncue.telling import PATIENCE, host, tell, why
from oncue.why import seconds
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.app import OnCue

log = logging.getLogger("oncue.alerts")
EVERY = 15.0
"""Seconds between two looks of a process."""
_UNSWEPT = 600 * SECOND
_LEAST = {"after": 0, "within": 1, "repeat": 1, "jobs": 1, "at_least": 1, "conversations": 1}


class Alert(msgspec.Struct, frozen=True):
    """What somebody is told. As JSON its times are RFC 3339, UTC.

    ``id``: the same for all that is told of one occurrence. ``text``: a complete sentence. ``found``: what was found
    when it was told first, or, while it lasts, now. ``since``: when it was first seen; ``ended``: when it was seen to
    be well again. ``again``: it was told before, and still lasts.
    """

    id: str
    app: str
    name: str
    state: Literal["firing", "recovered"]
    text: str
    found: str
    since: datetime
    ended: datetime | None = None
    again: bool = False


Target = str | Callable[[Alert], Awaitable[None] | None]
"""Who is told: a URL to which the alert is posted as JSON, or a function; a plain one is called in a thread."""


class Rule(Protocol):
    """What is watched. ``name``: of its own in the application; ``repeat``: seconds after which somebody is told again
    while it lasts, None for never."""

    @property
    def name(self) -> str: ...
    @property
    def to(self) -> Target | None: ...
    @property
    def repeat(self) -> float | None: ...

    async def find(self, app: OnCue) -> str | None:
        """Return what is wrong, as a clause such as "2 jobs are late"; None where all is well."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Rule:
    name: str
    to: Target | None = field(default=None, repr=False)
    repeat: float | None = 4 * 3600.0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name, None)
            if value is not None and not least <= value < math.inf:
                raise ConfigError(f"The alert {self.name!r} takes {name} from {least} up, not {value!r}.")


@dataclass(frozen=True, kw_only=True)
class Late(_Rule):
    """Jobs are due for more than ``after`` seconds and don't run: ``jobs`` of them at least, in ``queue`` or anywhere.

    Those behind a group, key or cap that is busy count; those of paused queues and tasks, behind a rate limit or held
    after a restore do not.
    """

    name: str = "late"
    after: float = 30.0
    jobs: int = 1
    queue: str | None = None

    async def find(self, app: OnCue) -> str | None:
        """Return how many are late, and for how long the first."""
        now = app.clock.now()
        before = now - seconds_to_us(self.after)
        found = await app.store.look(lambda: watch.late_jobs(before))
        late = [one for one in found if self.queue is None or one.queue == self.queue]
        count, blocked = sum(one.jobs for one in late), sum(one.blocked for one in late)
        if not late or count < self.jobs:
            return None
        worst = min(late, key=lambda one: one.first)
        behind = f"; {blocked} of them wait behind others" if blocked else ""
        return (
            f"{counted(count, 'job')} late, the first for {seconds(now - worst.first)} in queue {worst.queue}{behind}"
        )


@dataclass(frozen=True, kw_only=True)
class Discards(_Rule):
    """Jobs were discarded, which nobody runs again: ``jobs`` of them at least ``within`` so many seconds."""

    name: str = "discards"
    jobs: int = 1
    within: float = 3600.0

    async def find(self, app: OnCue) -> str | None:
        """Return how many there are, and which is the last."""
        since = app.clock.now() - seconds_to_us(self.within)
        found = await app.store.look(lambda: watch.discards_since(since))
        if found.number < self.jobs or found.last is None:
            return None
        id, task, _ = found.last
        span = seconds(seconds_to_us(self.within))
        return f"{counted(found.number, 'job')} discarded in the last {span}, the last one job {id} ({task})"


@dataclass(frozen=True, kw_only=True)
class Workers(_Rule):
    """Fewer than ``at_least`` workers are alive, or one died with jobs in hand in the last ``within`` seconds.

    Somebody has to be alive to see it: another worker, `oncue serve`, or a cron that calls the route.
    """

    name: str = "workers"
    at_least: int = 1
    within: float = 600.0

    async def find(self, app: OnCue) -> str | None:
        """Return how many are alive, which are not, or that one was not."""
        workers, now = await app.jobs.workers(), app.clock.now()
        alive = sum(one.state == "alive" for one in workers)
        if alive < self.at_least:
            return f"{counted(alive, 'worker is', 'workers are')} alive, and there should be {self.at_least} at least"
        lost = [f"{one.name} is {one.state} with {counted(one.running, 'job')}" for one in workers
                if one.state != "alive" and one.running]  # fmt: skip
        if lost:
            return f"worker {', '.join(lost)}"
        rescued = await app.store.look(lambda: watch.last("rescued_at"))
        if rescued is None or rescued < now - seconds_to_us(self.within):
            return None
        return "a worker died or fell silent with jobs in hand, which run again"


@dataclass(frozen=True, kw_only=True)
class Drift(_Rule):
    """A source found rows that it can't read or can't make jobs of, or wasn't swept for ten minutes."""

    name: str = "drift"

    async def find(self, app: OnCue) -> str | None:
        """Return which sources, and why."""
        now, said = app.clock.now(), []
        for one in await app.sources.status():
            if one.app != app.name:
                continue
            if (one.drift or {}).keys() - {"trigger"}:
                said.append(f"source {one.name} finds rows that it can't make jobs of")
            elif one.swept_at is not None and one.swept_at < now - _UNSWEPT:
                said.append(f"source {one.name} was not swept for {seconds(now - one.swept_at)}")
        return "; ".join(said) or None


@dataclass(frozen=True, kw_only=True)
class Paused(_Rule):
    """A queue or a task is paused for more than ``after`` seconds: somebody may have forgotten it."""

    name: str = "paused"
    after: float = 3600.0

    async def find(self, app: OnCue) -> str | None:
        """Return what is paused, and for how long."""
        now = app.clock.now()
        before = now - seconds_to_us(self.after)
        found = await app.store.look(watch.paused)
        said = [
            f"{one.what} {one.name} is paused for {seconds(now - one.since)}"
            for one in found
            if one.since is not None and one.since <= before
        ]
        return "; ".join(said) or None


@dataclass(frozen=True, kw_only=True)
class Parked(_Rule):
    """Conversations are parked, or their messenger stopped a channel: nothing of it goes on before a person acts."""

    name: str = "parked"
    conversations: int = 1

    async def find(self, app: OnCue) -> str | None:
        """Return which channels are stopped, and how many conversations are parked."""
        rows = await app.store.look(chats.channels_now)
        said = [f"channel {one.name} was stopped by its messenger" for one in rows if one.stopped and one.paused_at]
        parked = [one for one in await app.store.look(chats.standing_still) if one.state == "parked"]
        said += [
            f"{counted(one.number, 'conversation')} parked, the last {one.last} ({one.conversation})"
            for one in parked
            if one.number >= self.conversations
        ]
        return "; ".join(said) or None


class Alerts:
    """The alerts of an application: what is watched, and who is told."""

    def __init__(self, app: OnCue) -> None:
        self._app = app
        self.rules: dict[str, tuple[Rule, Target]] = {}

    def add(self, rules: Iterable[Rule], to: Target | None) -> None:
        """Watch these too. Raises ConfigError for a name that is taken, and where nobody is to be told."""
        for rule in rules:
            target = rule.to if rule.to is not None else to
            if rule.name in self.rules:
                raise ConfigError(f"There is an alert {rule.name!r} already. Give one of them another name=...")
            if target is None:
                raise ConfigError(f"The alert {rule.name!r} has nobody to tell: give to= a URL or a function.")
            if isinstance(target, str) and (urlsplit(target).scheme not in ("http", "https") or not host(target)):
                raise ConfigError(f"The alert {rule.name!r} is told to a URL such as https://example.com/hook.")
            if not isinstance(target, str) and not callable(target):
                raise ConfigError(f"The alert {rule.name!r} is told to a URL or a function, not {target!r}.")
            self.rules[rule.name] = rule, target

    async def run_once(self) -> list[Alert]:
        """Look at everything that is watched, and tell what this process is to tell; return what it told.

        A rule or a target that fails is logged, and tried again: keeps none of the others from their turn. The
        application must be open. Raises a StoreError.
        """
        told = []
        rows = await self._app.store.look(lambda: watch.alerts(self._app.name)) if self.rules else {}
        for rule, target in self.rules.values():
            try:
                alert = await self._turn(rule, target, rows.get(rule.name))
            except StoreError:
                raise
            except Exception:
                log.exception("the alert %s failed; it is tried again", rule.name)
                continue
            if alert is not None:
                told.append(alert)
        return told

    async def _turn(self, rule: Rule, target: Target, row: watch.AlertRow | None) -> Alert | None:
        app = self._app
        found, now = await rule.find(app), app.clock.now()
        again = -1 if rule.repeat is None else now - seconds_to_us(rule.repeat)
        if not _is_news(row, found, now, again):
            return None
        mine = await app.store.change(lambda: watch.take_alert(app.name, rule.name, found, now, again))
        if mine is None:
            return None
        alert = _alert(app.name, mine)
        try:
            async with asyncio.timeout(PATIENCE):
                await tell(target, alert)
        except Exception as error:
            wait = seconds(max(0, (mine.busy_until or now) - now))
            log.error("the alert could not be told; again in %s: %s (%s)", wait, alert.text, why(error, target))
            return None
        await app.store.change(lambda: watch.told_alert(app.name, mine, now))
        return alert

    @contextlib.asynccontextmanager
    async def watching(self, ready: asyncio.Event | None = None, every: float | None = None) -> AsyncIterator[None]:
        """For the length of an ``async with`` block look every so many seconds (``EVERY``).

        First once ``ready``: a worker that is about to register is not missing. None: after the first pause, in which
        the workers of other processes may start.
        """
        if not self.rules:
            yield
            return
        pause = EVERY if every is None else every

        async def look_on() -> None:
            await (asyncio.sleep(pause) if ready is None else ready.wait())
            while True:
                try:
                    await self.run_once()
                except StoreError as error:
                    log.error("alerts can't be looked after now: %s", error)
                await asyncio.sleep(pause)

        watcher = asyncio.create_task(look_on())
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


def _is_news(row: watch.AlertRow | None, found: str | None, now: int, again: int) -> bool:
    """Tell whether there may be something to tell; the row decides who does."""
    if row is None:
        return found is not None
    if (found is None) == (row.ended_at is None):
        return True
    if row.told_at is None:
        return row.busy_until is None or row.busy_until <= now
    return row.ended_at is None and row.told_at <= again


def _alert(app: str, row: watch.AlertRow) -> Alert:
    since, id = from_us(row.since), f"{app}/{row.name}/{row.since}"
    if row.ended_at is not None:
        lasted = seconds(row.ended_at - row.since)
        text = f"OnCue ({app}): {row.name} is well again after {lasted}; it was: {row.found}."
        return Alert(id, app, row.name, "recovered", text, row.found, since, from_us(row.ended_at))
    again = row.told_at is not None
    text = f"OnCue ({app}): {row.name}{' still' if again else ''}: {row.found}."
    return Alert(id, app, row.name, "firing", text, row.found, since, again=again)
