"""Renewing a worker's lease from a thread, while it holds jobs and its event loop still turns."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from oncue.clock import Clock
from oncue.errors import StoreError
from oncue.store import LeaseKeeper

log = logging.getLogger("oncue.worker")
# Of a lease, after a claim that brought jobs: three quarters, but for the moments that it may go on by an earlier look.
_LEFT = 0.7


class Heartbeat:
    """One thread that renews the lease every third of its length while ``active``.

    A loop that was silent for ``silence`` seconds is given up: its jobs then go to others. ``lost(worker)`` is called
    where they were taken back, and where the server stayed away until the lease was over: then they may have been.
    """

    def __init__(
        self, keeper: LeaseKeeper, clock: Clock, lease: int, silence: float, lost: Callable[[int], None]
    ) -> None:
        self._keeper, self._clock, self._lease, self._silence, self._lost = keeper, clock, lease, silence, lost
        self._loop = asyncio.get_running_loop()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._worker = 0
        self._turned = self._over_at = time.monotonic()
        self._thread: threading.Thread | None = None

    def active(self, worker: int, began: float, *, took: bool) -> None:
        """Renew this worker's lease from now on; 0 for none. ``began``: when its latest claim did (monotonic);
        ``took``: it brought jobs, and so has left as much of the lease as the first one."""
        if worker == self._worker:
            if worker and took:
                # The connection that renews may be the only one that doesn't come through.
                self._over_at = max(self._over_at, began + self._lease * _LEFT / 1e6)
            return
        self._worker = worker
        if worker:
            self._turned = time.monotonic()
            # The claim that brought the first jobs has left at least so much of the lease, however late its answer is.
            self._over_at = began + self._lease * _LEFT / 1e6
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="oncue-heartbeat", daemon=True)
                self._thread.start()
            self._wake.set()

    async def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._worker = 0
        self._wake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _loop_turned(self) -> None:
        self._turned = time.monotonic()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._worker:
                self._wake.wait()
                self._wake.clear()
            elif not self._stop.wait(self._pause()) and (worker := self._worker):
                self._beat(worker)
        self._keeper.close()

    def _pause(self) -> float:
        """A third of the lease, in seconds; less where less than two thirds of it are left."""
        left = self._over_at - time.monotonic()
        return min(self._lease / 3e6, max(left - self._lease / 3e6, self._lease / 20e6))

    def _beat(self, worker: int) -> None:
        silent = time.monotonic() - self._turned
        if silent > self._silence:
            log.error("the event loop was silent for %.0f s: its jobs' lease is not renewed any more", silent)
            return
        self._tell(self._loop_turned)
        began = time.monotonic()
        try:
            held = self._keeper.extend(worker, self._clock.now(), self._lease)
        except Exception as error:
            # Whatever kept it from being renewed, it ends all the same.
            held = (left := self._over_at - time.monotonic()) > 0
            told = None if isinstance(error, StoreError) else error
            when = f"{left:.1f} s before its end" if held else "and has ended"
            log.error("the lease could not be renewed, %s: %s", when, error, exc_info=told)
        else:
            self._over_at = began + self._lease / 1e6
        if not held and self._worker == worker:
            self._worker = 0
            self._tell(partial(self._lost, worker))

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:
            # The loop is closed: nobody works there any more.
            self._stop.set()
