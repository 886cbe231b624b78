"""A pause between two tries that somebody who wants the next one at once can end."""

from __future__ import annotations

import asyncio
import random
from typing import Any


class Pause:
    """Waits on one loop; ended from any thread."""

    def __init__(self) -> None:
        self._ended: asyncio.Future[None] | None = None
        self._next = 0.0

    async def wait(self, seconds: float, *others: asyncio.Future[Any]) -> bool:
        """Wait so long, or until it is ended or one of the others is done; tell whether it was ended."""
        ended = self._ended = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait({ended, *others}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ended = None
        return ended.done()

    async def between(self, first: float, longest: float, *, worked: bool) -> None:
        """Wait between two tries to connect: for about ``first`` seconds after one that ``worked`` for a time, or that
        somebody wanted at once, and for twice as long after each other one, ``longest`` at most."""
        seconds = first if worked else self._next or first
        ended = await self.wait(seconds * random.uniform(0.5, 1.0))
        self._next = first if ended else min(2 * seconds, longest)

    def end(self) -> None:
        """End the pause, where there is one."""
        ended = self._ended
        if ended is not None and not (loop := ended.get_loop()).is_closed():
            loop.call_soon_threadsafe(_settle, ended)


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
