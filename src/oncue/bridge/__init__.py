"""The bridge to BullMQ for Node: jobs of its queues that are taken over, and jobs that are handed to its workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from oncue.errors import StoreError

if TYPE_CHECKING:
    from oncue.app import OnCue
    from oncue.bridge.adopt import Adopter

_CANCEL_AGAIN = 0.1
log = logging.getLogger("oncue.bridge")


def adopters(app: OnCue) -> list[Adopter]:
    """Return what adopts for each declaration. Raises ConfigError, so that nothing starts that could not adopt."""
    if not app.adoptions:
        return []
    from oncue.bridge.adopt import Adopter

    return [
        Adopter(one, app.wake_url, app.store, app.wake, app.clock, app.retention_us, app.sweep_us)
        for one in app.adoptions.values()
    ]


@asynccontextmanager
async def adopting(app: OnCue) -> AsyncIterator[None]:
    """Adopt for the length of an ``async with`` block. Raises ConfigError."""
    roles = adopters(app)
    tasks = [asyncio.create_task(one.run()) for one in roles]
    try:
        yield
    finally:
        await end(tasks)
        await asyncio.gather(*(one.close() for one in roles))


async def end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks that use the driver, until they have ended.

    It sends by ``asyncio.wait_for``, which up to Python 3.11 loses a cancellation that comes when it is done.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN)


async def adopt_once(app: OnCue) -> None:
    """Adopt what waits in the queues just now. Where Redis can't be reached that is logged. Raises a StoreError."""
    for one in adopters(app):
        try:
            await one.run_once()
        except StoreError:
            raise
        except Exception as error:
            one.failed(error)
        finally:
            await one.close()
