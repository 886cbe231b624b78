"""The live stream: what changes, for all who listen in this process, with a ring, so that no gap is silent."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from oncue.clock import SECOND
from oncue.errors import NotOpen, StoreError
from oncue.job import FINAL
from oncue.operate.jobs import Said, views
from oncue.operate.views import Health, Overview
from oncue.store.steps import Steps, overview, read
from oncue.store.views import JobView

if TYPE_CHECKING:
    from oncue.app import OnCue
    from oncue.operate.jobs import JobReader
    from oncue.operate.overview import Look

log = logging.getLogger("oncue.operate")
RING = 5_000
A_TICK = 200
_TICK = 1.0
_AT_LEAST_EVERY = 5
_WATCHED = 1_000
_AHEAD = 2 * SECOND
_LINGER = 60.0


class Event(msgspec.Struct, frozen=True):
    """One event: its number in this epoch, its kind and its data as JSON text.

    ``overview``; ``job``; ``more`` where more jobs may have changed than are told one by one; ``reset`` after a gap.
    """

    number: int
    name: str
    data: str


class _Seen(NamedTuple):
    """What a look saw: the highest id, where the watched jobs are, those that went on, and whether there are more."""

    last: int
    found: dict[int, overview.Change]
    views: list[tuple[JobView, Said | None]]
    more: bool


class Watcher:
    """Looks for changes once a second while somebody listens, and a minute longer; keeps the last 5,000 events.

    ``epoch`` tells the lives of watchers apart: who comes back with an id of another one, or of an event that is gone
    from the ring, is told ``reset`` and reads everything anew.
    """

    def __init__(self, app: OnCue, look: Look) -> None:
        self._app, self._look = app, look
        self.epoch = f"{random.getrandbits(48):x}"
        self._ring: deque[Event] = deque(maxlen=RING)
        self._number = 0
        self._listeners: set[asyncio.Event] = set()
        self._running: asyncio.Task[None] | None = None
        self._known: dict[int, overview.Change] = {}
        self._last_id = 0
        self._heard, self._looked = asyncio.Event(), asyncio.Event()
        self._shown = ""
        self._latest: Overview | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._ended = False

    def since(self, last: str | None) -> int | None:
        """Return the number of the last event that somebody heard, by its id; None where there is a gap since then."""
        if last is None:
            return self._number
        epoch, _, text = last.partition("-")
        if epoch != self.epoch or not text.isascii() or not text.isdigit() or len(text) > 15:
            return None
        number = int(text)
        first = self._ring[0].number if self._ring else self._number + 1
        return number if first - 1 <= number <= self._number else None

    def end(self) -> None:
        """Let everybody's stream come to its end, for good: this process stops, and waits for whoever it serves."""
        self._ended = True
        for news in self._listeners:
            news.set()

    async def looking(self) -> None:
        """Wait until what changes from now on is told to whoever has begun to listen."""
        await self._looked.wait()

    async def listen(self, last: str | None, reader: JobReader) -> AsyncGenerator[tuple[str, Event], None]:
        """Yield (id, event) as they come, after the one that was heard last; first of all ``reset`` after a gap."""
        news = asyncio.Event()
        self._listeners.add(news)
        try:
            self._wake_up(reader)
            number = self.since(last)
            if number is None:
                number = self._number
                yield f"{self.epoch}-{number}", Event(number, "reset", "{}")
            while not self._ended:
                news.clear()
                gone = bool(self._ring) and self._ring[0].number - 1 > number
                if gone:
                    # Too slow a listener: what it missed is gone from the ring.
                    number = self._number
                    yield f"{self.epoch}-{number}", Event(number, "reset", "{}")
                for event in [one for one in self._ring if one.number > number]:
                    number = event.number
                    yield f"{self.epoch}-{number}", event
                if self._number == number:
                    await news.wait()
        finally:
            self._listeners.discard(news)
            if not self._listeners:
                # Who reconnects soon is to find what came meanwhile.
                self._leaving = asyncio.get_running_loop().call_later(_LINGER, self._stop)

    def _stop(self) -> None:
        if not self._listeners and self._running is not None:
            self._running.cancel()
            self._running = None

    def _wake_up(self, reader: JobReader) -> None:
        loop = asyncio.get_running_loop()
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if self._running is None or self._running.done() or self._running.get_loop() is not loop:
            if self._number:
                # Nobody looked meanwhile: whoever was here before has a gap.
                self.epoch = f"{random.getrandbits(48):x}"
                self._ring.clear()
                self._number = 0
            self._known.clear()
            self._shown, self._heard, self._looked = "", asyncio.Event(), asyncio.Event()
            self._running = asyncio.create_task(self._watch(reader), name="oncue-watcher")

    def _publish(self, name: str, data: Any) -> None:
        self._number += 1
        self._ring.append(Event(self._number, name, msgspec.json.encode(data).decode()))
        for news in self._listeners:
            news.set()

    async def _watch(self, reader: JobReader) -> None:
        unlisten = self._app.wake.listen(lambda _: self._heard.set())
        quiet, first, failing = 0, True, False
        try:
            while True:
                try:
                    # On SQLite every commit is heard; elsewhere claims and outcomes are not.
                    heard = self._heard.is_set()
                    if first or heard or not self._app.wake.hears_commits or quiet >= _AT_LEAST_EVERY:
                        self._heard.clear()
                        quiet = 0
                        await self._tick(reader, first=first, heard=heard)
                        first = failing = False
                        self._looked.set()
                    quiet += 1
                except NotOpen:
                    # The host opens the application for each request, and nobody asks for anything any more.
                    return
                except StoreError as error:
                    log.warning("the live view can't look at the database: %s", error)
                    self._unseen(error)
                except Exception:
                    # Who listens must not wait for ever for news that nobody looks for.
                    if not failing:
                        log.exception("the live view failed; it looks again each second")
                    failing = True
                await asyncio.sleep(_TICK)
        finally:
            unlisten()

    async def _tick(self, reader: JobReader, *, first: bool, heard: bool) -> None:
        now = self._app.clock.now()
        seen = await self._app.store.look(lambda: self._changes(now, first))
        told = [reader.summary(view, said, now) for view, said in reversed(seen.views)]
        # From here on nothing fails: what is taken as seen is told.
        self._last_id = seen.last
        self._known.update(seen.found)
        over = [id for id, one in self._known.items() if one.state in FINAL]
        for id in over + list(self._known)[:-_WATCHED]:
            self._known.pop(id, None)
        if not first:
            for summary in told:
                self._publish("job", summary)
            # What was heard may be of a job that nobody watches here: one that is far, or that was over in a moment.
            if seen.more or heard:
                self._publish("more", {})
        self._latest = await self._look.overview()
        self._show(self._latest)

    def _show(self, found: Overview) -> None:
        same = msgspec.json.encode(msgspec.structs.replace(found, now="", coming=[])).decode()
        if same != self._shown:
            self._shown = same
            self._publish("overview", found)

    def _unseen(self, error: StoreError) -> None:
        """Tell at once that nothing can be seen: the connection to us lives, and what was seen last may be all well."""
        if self._latest is not None:
            text = f"it can't be asked, so the rest is as it was at {self._latest.now[:19]}Z: {error}"
            self._show(msgspec.structs.replace(self._latest, health=[Health("database", "fail", text)]))

    def _changes(self, now: int, first: bool) -> Steps[_Seen]:
        span = yield from overview.id_span()
        last = span[1] if span is not None else 0
        before = last if first else self._last_id
        new = (yield from overview.newest_ids(before, A_TICK)) if last > before else []
        running = yield from overview.few("running", A_TICK, now)
        coming = yield from read.coming(now - 2 * _AHEAD, now + _AHEAD, A_TICK, None)
        watched = dict.fromkeys([*self._known, *new, *running, *(id for id, _ in coming)])
        found = {one.id: one for one in (yield from overview.states_of(list(watched)))}
        fresh = set(new)
        moved = [id for id, one in found.items() if (id in fresh or id in running or id in self._known)
                 and self._known.get(id) != one]  # fmt: skip
        told = (yield from views(moved[:A_TICK])) if moved else []
        cut = len(moved) > A_TICK or any(len(ids) >= A_TICK for ids in (new, running, coming))
        return _Seen(max(before, last), found, told, cut)
