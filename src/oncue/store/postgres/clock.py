"""The server's clock, as this process knows it: its own steady clock, and by how much the server's differs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Two good quartz clocks differ by less than this, so an old measurement is good for so much less.
_DRIFT = 50e-6


def _steady() -> int:
    return time.monotonic_ns() // 1000


class ServerClock:
    """Tells the server's time, never ahead of it.

    What the server said between asking and hearing is known to within half the round trip, so the clock runs behind by
    that much: a timer that waits for it fires at the due time or just after. The machine's own wall clock plays no
    part; one that is wrong, or is set, changes nothing. Before the first measurement it tells the machine's time.
    """

    def __init__(self, steady: Callable[[], int] = _steady) -> None:
        self._steady = steady
        self._lock = threading.Lock()
        self._offset = time.time_ns() // 1000 - steady()
        self._margin = 0
        self._measured_at: int | None = None

    def now(self) -> int:
        """Return the server's time in microseconds since the epoch, UTC, less the uncertainty, which grows."""
        now, measured_at = self._steady(), self._measured_at
        aged = 0 if measured_at is None else int((now - measured_at) * _DRIFT)
        return now + self._offset - aged

    def watch(self, moved: Callable[[], None]) -> Callable[[], None]:
        """Nobody moves this clock by hand, so ``moved`` is never called."""
        return lambda: None

    def began(self) -> int:
        """Return the moment at which the server is asked, for ``learn``."""
        return self._steady()

    def learn(self, began: int, server: int) -> None:
        """Take in what the server's clock said (microseconds) in answer to a question asked at ``began``.

        Of two measurements the more exact one is kept, the older one counting as less exact by the drift that clocks
        have. One that the kept one can't be reconciled with shows that a clock was set: the new one is taken.
        """
        ended = self._steady()
        margin = (ended - began) // 2 + 1
        middle = server - began - (ended - began) // 2
        with self._lock:
            if self._measured_at is not None:
                known = self._margin + int((ended - self._measured_at) * _DRIFT)
                agrees = abs(middle - (self._offset + self._margin)) <= margin + known
                if agrees and margin >= known:
                    return
            self._offset, self._margin, self._measured_at = middle - margin, margin, ended

    @property
    def is_known(self) -> bool:
        """Whether the server's time was measured at all."""
        return self._measured_at is not None

    @property
    def skew(self) -> float:
        """By how many seconds the server's clock is ahead of this machine's wall clock; 0 before it was measured."""
        if self._measured_at is None:
            return 0.0
        return (self._offset + self._margin - (time.time_ns() // 1000 - self._steady())) / 1e6

    @property
    def uncertainty(self) -> float:
        """How exactly the server's time is known: half a round trip, in seconds."""
        return self._margin / 1e6
