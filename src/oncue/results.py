"""Waiting for jobs to end: one look for all who wait, after each commit that is heard, or again and again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oncue.store import Store
    from oncue.store.views import JobView
    from oncue.wake import Wake


_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0


class Results:
    """Tells each waiter when its job is final, also one that another process ended.

    What this process ends is told at once. Where a wake queue does not hear every commit, the others are looked for
    after 20 ms, then at growing intervals of up to a second.
    """

    def __init__(self, store: Store, wake: Wake) -> None:
        self._store, self._wake = store, wake
        self._waiting: dict[int, set[asyncio.Future[JobView | None]]] = {}
        self._changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, id: int) -> JobView | None:
        """Return the job once it is final; None where it is not in the kept history (any more)."""
        future: asyncio.Future[JobView | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(id, set()).add(future)
        if self._looking is None or self._looking.done():
            # An event belongs to the loop that waited on it, and this may be another one than last time.
            self._changed = asyncio.Event()
            self._looking = asyncio.create_task(self._look())
        self._changed.set()
        try:
            return await future
        finally:
            waiters = self._waiting.get(id, set())
            waiters.discard(future)
            if not waiters:
                self._waiting.pop(id, None)
            self._changed.set()

    def ended(self) -> None:
        """A job of this process has ended: look."""
        if self._waiting:
            self._changed.set()

    async def _news(self, pause: float) -> None:
        if self._wake.hears_commits:
            await self._changed.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._changed.wait()

    async def _look(self) -> None:
        pause = _FIRST_PAUSE
        unlisten = self._wake.listen(lambda _: self._changed.set())
        try:
            while self._waiting:
                self._changed.clear()
                # With the write lock: a commit is heard as it is written, a moment before it can be read.
                for id in await self._store.gone(list(self._waiting)):
                    row = await self._store.job(id)
                    for future in self._waiting.pop(id, set()):
                        if not future.done():
                            future.set_result(row)
                if self._waiting:
                    await self._news(pause)
                    pause = _FIRST_PAUSE if self._changed.is_set() else min(_LONGEST_PAUSE, pause * 1.5)
        except Exception as error:
            waiting, self._waiting = self._waiting, {}
            for future in (one for waiters in waiting.values() for one in waiters):
                if not future.done():
                    future.set_exception(error)
        finally:
            unlisten()
