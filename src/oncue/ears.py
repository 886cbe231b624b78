"""How a worker hears of what other processes store: operators read it in its row, and can have it connect anew."""

from __future__ import annotations

import contextlib

from oncue.clock import SECOND, Clock
from oncue.errors import StoreError
from oncue.store import Store
from oncue.store.steps.operate import reconnect_asked, set_wake
from oncue.wake import Wake

_LASTING = SECOND
"""A channel that is proved sooner, as after every start, is no news."""
_EVERY = SECOND // 4
_LONGEST = 1_000


class Ears:
    """Writes to the worker's row what is wrong with its wake channel, and reads there whether it is to connect anew.

    While the channel works this costs nothing. While it doesn't, the wake queue has the worker look around again and
    again, so it is asked again and again.
    """

    def __init__(self, store: Store, wake: Wake, clock: Clock) -> None:
        self._store, self._wake, self._clock = store, wake, clock
        self._worker = self._heeded = self._next = 0
        self._told: str | None = None
        self._since: int | None = None

    async def report(self, worker: int) -> None:
        """Write and read what there is to. Where the database fails, it is tried again at the next call."""
        trouble = self._wake.healthy
        if worker != self._worker:
            # Its row is a new one.
            self._worker, self._told, self._heeded = worker, None, 0
        if trouble is None and self._told is None:
            self._since = None
            return
        now = self._clock.now()
        if self._since is None:
            self._since = now
        if trouble is not None and (now < self._since + _LASTING or now < self._next):
            return
        self._next = now + _EVERY
        with contextlib.suppress(StoreError):
            await self._tell(None if trouble is None else trouble[:_LONGEST])
            await self._heed()

    async def _tell(self, trouble: str | None) -> None:
        if trouble != self._told:
            since = None if trouble is None else self._since
            await self._store.change(lambda: set_wake(self._worker, trouble, since))
            self._told = trouble
        if trouble is None:
            self._since = None

    async def _heed(self) -> None:
        if self._told is None:
            return
        asked = await self._store.look(lambda: reconnect_asked(self._worker))
        if asked is not None and asked > self._heeded:
            self._heeded = asked
            self._wake.reconnect()
