"""A worker process that stops itself (SIGSTOP) in the middle of its first claim under the lock; run with a URL.

Once continued it works until one of its jobs is called with the number 0.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from oncue.store.postgres import claim
from oncue.store.postgres.run import perform
from tests.postgres.failure import Ledger, application, working


def stop_in_first_claim() -> None:
    stopped = False

    async def stopping(conn: Any, steps: Any, schema: str, *, locked: bool = False) -> Any:
        nonlocal stopped
        answer = await perform(conn, steps, schema, locked=locked)
        if locked and answer.jobs and not stopped:
            stopped = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return answer

    claim.perform = stopping  # type: ignore[attr-defined]


async def main(url: str) -> None:
    ledger = Ledger()
    async with working(application(url, ledger, "stopped"), lease=60.0):
        print("ready", flush=True)
        await ledger.until(lambda: 0 in ledger.of("ran"))
    for line in ledger.lines:
        print(*line, flush=True)


if __name__ == "__main__":
    stop_in_first_claim()
    asyncio.run(main(sys.argv[1]))
