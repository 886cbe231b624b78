"""The simulator's time: callbacks at moments of a clock that may be the machine's, or one that a test moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from oncue.clock import SECOND, Clock

Callback = Callable[[], None]
log = logging.getLogger(__name__)


class ShiftedClock:
    """The machine's clock, which may be moved on by hand."""

    def __init__(self) -> None:
        self._shift = 0
        self._watchers: list[Callback] = []

    def now(self) -> int:
        """Return the time in microseconds since the epoch, UTC."""
        return time.time_ns() // 1000 + self._shift

    def advance(self, seconds: float) -> None:
        """Move on by so many seconds."""
        self._shift += round(seconds * SECOND)
        for moved in list(self._watchers):
            moved()

    def watch(self, moved: Callback) -> Callback:
        """Have ``moved`` called whenever the clock is moved; the returned function ends that."""
        self._watchers.append(moved)
        return lambda: self._watchers.remove(moved) if moved in self._watchers else None


@dataclass(order=True, slots=True)
class _Timer:
    due: int
    number: int
    call: Callback | None = field(compare=False)


class Timers:
    """Calls at their due times, in their order. Where the clock jumped, each still sees its own due time as now."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._heap: list[_Timer] = []
        self._numbers = itertools.count()
        self._handle: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unwatch: Callback | None = None
        self._at: int | None = None
        self._jumped = False

    def now(self) -> int:
        """Return the time in microseconds; within a call after a jump of the clock: when the call was due."""
        return self.clock.now() if self._at is None else self._at

    def after(self, seconds: float, call: Callback) -> Callback:
        """Have ``call`` called so many seconds from now; the returned function takes that back."""
        timer = _Timer(self.now() + round(seconds * SECOND), next(self._numbers), call)
        heapq.heappush(self._heap, timer)
        if self._heap[0] is timer and self._at is None:
            self._arm()

        def forget() -> None:
            timer.call = None

        return forget

    async def sleep(self, seconds: float) -> None:
        """Wait by this clock."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        done = asyncio.get_running_loop().create_future()
        forget = self.after(seconds, lambda: None if done.done() else done.set_result(None))
        try:
            await done
        finally:
            forget()

    def close(self) -> None:
        """Forget every call."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # A test may use one simulator in several loops, one after the other.
            self._loop, self._handle = loop, None
        if self._unwatch is None:
            self._unwatch = self.clock.watch(self._moved)
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None
        if self._heap:
            wait = max(0, self._heap[0].due - self.clock.now()) / SECOND
            self._handle = loop.call_later(wait, self._run)

    def _moved(self) -> None:
        self._jumped = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        jumped, self._jumped = self._jumped, False
        now = self.clock.now()
        while self._heap and self._heap[0].due <= now:
            timer = heapq.heappop(self._heap)
            if timer.call is None:
                continue
            self._at = timer.due if jumped else now
            try:
                timer.call()
            except Exception:
                log.exception("oncue.whatsapp.simulator: a call at its time failed")
            finally:
                self._at = None
        self._arm()
