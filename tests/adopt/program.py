"""A process that adopts: one that dies when it has stored jobs and before it has taken them out, or one that works."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from oncue.bridge.queuelink import Found
from tests.adopt.stage import Trial


async def die(jobs: Sequence[Found]) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def work(database: str, redis: str, ledger: Path) -> None:
    """Adopt and run, noting in a file what was sent, until killed."""
    # A job that is at work at each of the kills uses up an attempt each time.
    trial = Trial(database, redis, max_attempts=100)
    trial.ledger = ledger
    asyncio.run(trial.app.run_worker())


async def main() -> None:
    trial = Trial(sys.argv[1], sys.argv[2])
    async with trial:
        adopter = trial.adopter()
        adopter._link.remove = die  # type: ignore[method-assign]
        await adopter.run_once()


if __name__ == "__main__":
    asyncio.run(main())
