"""An open wake channel for the length of a look: whether hints arrive is seen only by listening."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from oncue.app import OnCue

_PATIENCE = 2.0


@contextlib.asynccontextmanager
async def listening(app: OnCue) -> AsyncIterator[None]:
    """Listen as a worker does, and give the channel two seconds to prove itself."""
    # SQLite makes the file that is watched at the first look.
    await app.store.workers()
    await app.wake.start()
    unlisten = app.wake.listen(lambda _: None)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while app.wake.healthy is not None:  # noqa: ASYNC110 - whoever else is told of it says so once only
                    await asyncio.sleep(0.02)
        yield
    finally:
        unlisten()
        await app.wake.close()
