"""A Python worker in a process of its own, to be killed: DATABASE REDIS."""

from __future__ import annotations

import asyncio
import sys

from oncue.worker import WorkerOptions
from tests.handoff.stage import make_app


async def main() -> None:
    app = make_app(sys.argv[1], sys.argv[2])
    async with app.worker(WorkerOptions(lease=2.0)):
        await asyncio.Event().wait()


asyncio.run(main())
