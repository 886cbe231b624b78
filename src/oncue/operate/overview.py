"""How things are, in one look that stays cheap however many jobs there are."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from oncue.clock import SECOND
from oncue.errors import StoreError
from oncue.metrics import merged
from oncue.operate import checks, standing
from oncue.operate.find import LATE
from oncue.operate.shape import iso, maybe_iso
from oncue.operate.views import Coming, Counts, Health, Lateness, Overview, Past
from oncue.store.operating import MinuteRow
from oncue.store.steps import Steps, operate, overview
from oncue.store.steps.overview import Group, Live, Search
from oncue.store.views import Check

if TYPE_CHECKING:
    from oncue.app import OnCue

T = TypeVar("T")
MINUTE = 60 * SECOND
_PAST, _RECENT = 60, 5
_BIN, _BINS = 30 * SECOND, 20
_HEALTH_SECONDS = 5.0
_SHARE = 50
_STALE = 3
_LONG = 0.1
_PATIENCE = 0.5
_WINDOW = 50_000
_SILENT, _MOMENT = 1.0, 0.1


class Kept(Generic[T]):
    """An answer that is kept for fifty times as long as it took to get, so that asking costs 2% of the time at most;
    but no longer than ``most`` seconds, as a database that stalled for a moment would freeze it for minutes.

    What takes long is got in the background while the last answer goes on to be told; and once, however many ask. An
    answer that nobody has asked for anew in three times that span is told no more: whoever asks then waits, for
    ``patience`` seconds at most. ``free``: what takes so many seconds at most is not kept. ``now`` tells seconds.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[T]],
        least: float = 0.0,
        free: float = 0.01,
        patience: float | None = None,
        most: float = 60.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._least, self._free, self._patience, self._now = ask, least, free, patience, now
        self._most, self._partly = most, False
        self._value: T | None = None
        self._until = self._told_until = self._took = 0.0
        self._asking: asyncio.Future[T] | None = None
        self._before: asyncio.Future[T] | None = None
        self._began = self._failed = False
        self._forgotten = 0

    async def get(self) -> T:
        """Return the answer, a new one where the last one is too old."""
        now = self._now()
        if self._value is not None and now < self._until:
            return self._value
        asking = self._asking
        if asking is None or asking.done() or asking.get_loop() is not asyncio.get_running_loop():
            self._began = False
            asking = self._asking = asyncio.ensure_future(self._anew(self._before))
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._value is None or self._took < _LONG:
            # One of those who wait may leave; the others still want it.
            return await asyncio.shield(asking)
        if now >= self._told_until:
            # Where nobody but who asks keeps the application open, it comes only to those who wait.
            await asyncio.wait([asking], timeout=None if self._failed else self._patience)
        return asking.result() if asking.done() else self._value

    async def _anew(self, before: asyncio.Future[T] | None) -> T:
        # One after the other, however often somebody acts meanwhile.
        if before is not None and not before.done() and before.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([before])
        self._began = True
        began, mine, self._partly = self._now(), self._forgotten, False
        try:
            value = await self._ask()
        except BaseException:
            self._failed = True
            raise
        self._failed = False
        # What was asked before somebody acted is for those who asked then.
        if mine == self._forgotten:
            ended = self._now()
            self._value, self._took = value, ended - began
            share = _SHARE * self._took if self._took > self._free and not self._partly else 0.0
            good_for = max(self._least, min(self._most, share))
            self._until, self._told_until = ended + good_for, ended + _STALE * good_for
        return value

    def partly(self) -> None:
        """Note that what is being asked can't be told in full just now: it is not kept for long."""
        self._partly = True

    def forget(self) -> None:
        """Ask anew next time: something was changed here, which what is being asked just now may not see."""
        self._until = self._told_until = 0.0
        self._forgotten += 1
        if self._began:
            self._before, self._asking, self._began = self._asking, None, False


class Look:
    """Looks at the whole of an application. One an application and process, as it remembers what is costly to ask."""

    def __init__(self, app: OnCue) -> None:
        self._app = app
        self._live = Kept(self._ask_live)
        # Of what has ended nothing changes any more, but there may be very much of it: nobody waits long for that.
        self._final = Kept(self._ask_final, patience=_PATIENCE, most=math.inf)
        self._bins = Kept(self._ask_bins)
        self._groups = Kept(self._ask_groups, free=_LONG)
        self._health = Kept(self._ask_health, _HEALTH_SECONDS)
        self._checks = Kept(self._ask_checks, free=_LONG)
        self._minutes: dict[int, list[MinuteRow]] = {}
        self._read_until = 0

    def forget(self) -> None:
        """Look anew: somebody acted."""
        for kept in (self._live, self._bins, self._groups, self._health, self._checks):
            kept.forget()

    async def overview(self) -> Overview:
        """Return how things are now."""
        now = self._app.clock.now()
        counts = await self.counts()
        past = [_past(minute, rows) for minute, rows in (await self._past(now)).items()]
        lateness, rate = self._recent(now)
        after, bins = await self._bins.get()
        coming = [Coming(iso(after + number * _BIN), count) for number, count in enumerate(bins)]
        return Overview(iso(now), counts, lateness, rate, coming, past, await self._health.get())

    async def counts(self) -> Counts:
        """Return how many jobs are in which state now."""
        live, final = await self._live.get(), await self._final.get()
        # Of those given up the index tells at once; of the others the count may be a little old.
        cancelled, completed = final.get("cancelled", 0), final.get("completed", 0)
        return Counts(
            live.scheduled, live.due, live.running, live.late, live.blocked, completed, live.discarded, cancelled,
            maybe_iso(live.next_due),
        )  # fmt: skip

    async def _ask_live(self) -> Live:
        now = self._app.clock.now()
        return await self._app.store.look(lambda: overview.live_counts(now, now - LATE))

    async def _ask_final(self) -> dict[str, int]:
        """Count the history bit by bit, so that nobody has to wait for all of it."""
        store, found = self._app.store, Counter[str]()
        history = Search(None, [], {})
        top = await store.look(partial(overview.next_below, history, 1 << 62))
        while top is not None:
            start = max(0, top + 1 - _WINDOW)
            found.update(await store.look(partial(overview.final_counts, start, top + 1)))
            top = await store.look(partial(overview.next_below, history, start))
        return dict(found)

    async def _ask_bins(self) -> tuple[int, list[int]]:
        after = self._app.clock.now()
        return after, await self._app.store.look(lambda: overview.coming_bins(after, _BIN, _BINS))

    async def groups(self) -> tuple[list[Group], list[tuple[str, str, int]]]:
        """Return how many jobs wait, run and were given up, by queue and task."""
        return await self._groups.get()

    async def _ask_groups(self) -> tuple[list[Group], list[tuple[str, str, int]]]:
        now = self._app.clock.now()

        def steps() -> Steps[tuple[list[Group], list[tuple[str, str, int]]]]:
            groups = yield from overview.groups(now, now - LATE)
            return groups, (yield from overview.discarded_groups())

        return await self._app.store.look(steps)

    async def _past(self, now: int) -> dict[int, list[MinuteRow]]:
        """Return what was counted in each of the last minutes. Those that are over for long are not read again."""
        current = now - now % MINUTE
        first = current - (_PAST - 1) * MINUTE
        # A worker writes a minute a few seconds after it is over, and longer after where the database was away.
        again = max(first, min(self._read_until - 2 * MINUTE, current))
        rows = await self._app.store.look(lambda: operate.minutes(again, current + MINUTE))
        found: defaultdict[int, list[MinuteRow]] = defaultdict(list)
        for row in rows:
            found[row.minute].append(row)
        kept = {minute: rows for minute, rows in self._minutes.items() if first <= minute < again}
        self._minutes = {minute: kept.get(minute, found[minute]) for minute in range(first, current + 1, MINUTE)}
        self._read_until = current
        return self._minutes

    def _recent(self, now: int) -> tuple[Lateness, float]:
        current = now - now % MINUTE
        first = current - (_RECENT - 1) * MINUTE
        rows = [row for minute, rows in self._minutes.items() if minute >= first for row in rows]
        window = max(1, (now - first) // SECOND)
        rate = sum(row.started for row in rows) / window
        return Lateness(*_late(rows), int(window)), round(rate, 3)

    async def _ask_health(self) -> list[Health]:
        return await self._asked(_CHEAP, self._health)

    async def _asked(self, looks: dict[str, _Look], kept: Kept[list[Health]]) -> list[Health]:
        found: list[Health] = []
        silent: StoreError | None = None
        for name, look in looks.items():
            began = time.monotonic()
            try:
                # A database that is silent is waited for once, not by each that asks it.
                async with asyncio.timeout(None if silent is None else _MOMENT):
                    answer = await look(self._app)
            except (StoreError, TimeoutError) as error:
                if isinstance(error, StoreError) and time.monotonic() - began >= _SILENT:
                    silent = error
                kept.partly()
                answer = Check(name, "FAIL", str(silent or error))
            found += [health(one) for one in ([answer] if isinstance(answer, Check) else answer)]
        return found

    async def examine(self) -> list[Health]:
        """Return all that ``oncue doctor`` looks at from inside the application."""
        return await self._checks.get()

    async def _ask_checks(self) -> list[Health]:
        return await self._asked(_CHEAP | _REST, self._checks)


async def _store(app: OnCue) -> Sequence[Check]:
    return await app.store.check()


async def bridge(app: OnCue) -> Sequence[Check]:
    """Tell whether adoption keeps up, and whether Node listens where jobs go; nothing where neither is declared."""
    if not app.adoptions and not app.node_targets:
        return []
    from oncue.bridge.examine import adoption_checks, node_checks

    return [*await adoption_checks(app), *await node_checks(app)]


_Look = Callable[["OnCue"], Awaitable["Check | Sequence[Check]"]]
_CHEAP: dict[str, _Look] = {
    "workers": checks.workers, "wake": checks.wake, "wake of workers": checks.hearing,
    "sweeper": checks.sweeper, "database": checks.database,
    "queues": checks.paused, "paused tasks": checks.pauses, "schedules": checks.schedules, "sources": checks.sources,
    "clock": checks.clock, "conversations": standing.conversations, "channels": standing.channels,
}  # fmt: skip
_REST: dict[str, _Look] = {
    "schema": checks.schema, "store": _store, "tasks": checks.tasks, "overdue jobs": checks.overdue,
    "discarded": checks.discarded, "running long": checks.long_running, "tokens": checks.tokens,
    "blockers": checks.blockers, "code": checks.code, "bridge": bridge,
}  # fmt: skip


def health(check: Check) -> Health:
    """Return a check as all faces show it."""
    level = {"ok": "ok", "warn": "warn", "FAIL": "fail"}[check.level]
    return Health(check.name, level, check.found, check.remedy or None)  # type: ignore[arg-type]


def _past(minute: int, rows: Sequence[MinuteRow]) -> Past:
    started, completed, retried, discarded = (
        sum(getattr(row, name) for row in rows) for name in ("started", "completed", "retried", "discarded")
    )
    return Past(iso(minute), started, completed, retried, discarded, *_late(rows))


def _late(rows: Sequence[MinuteRow]) -> tuple[float | None, float | None, float | None]:
    """Return the p50, the p99 and the longest of how late jobs started, in milliseconds."""
    spans = merged(row.lateness for row in rows)
    if not spans.count:
        return None, None, None
    return _ms(spans.quantile(0.5)), _ms(spans.quantile(0.99)), _ms(spans.max)


def _ms(us: int) -> float:
    return round(us / 1000, 3)
