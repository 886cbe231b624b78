"""Completing a job inside its handler's own transaction, and learning afterwards whether that one committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from oncue.errors import StoreError
from oncue.job import Ack, Claimed
from oncue.store import Store
from oncue.store.steps import Steps, run
from oncue.store.steps.acks import write_acks

log = logging.getLogger("oncue.worker")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


class Completion:
    """Records outcomes on a caller's connection. ``worker`` tells the id of this process's worker, 0 for none."""

    def __init__(self, store: Store, worker: Callable[[], int]) -> None:
        self._store, self._worker = store, worker

    async def record(self, ack: Ack, connection: Any, again: bool) -> bool:
        """Record a completion in the caller's transaction; False where the job is this worker's no more.

        ``again``: an earlier one of the same attempt, which was rolled back, undone to a savepoint or stands, is
        replaced.
        """
        worker = self._worker()
        if not worker:
            return False
        return await self._store.within(connection, lambda: _record(worker, ack, again), _hint(ack))

    def record_sync(self, ack: Ack, connection: Any, again: bool) -> bool:
        """``record`` for a handler that runs in a thread."""
        worker = self._worker()
        if not worker:
            return False
        return self._store.within_sync(connection, lambda: _record(worker, ack, again), _hint(ack))

    async def committed(self, job: Claimed) -> bool:
        """Tell whether the transaction that completed the job has committed; asks until the database answers.

        The commit's own answer may have been lost, so only the row tells.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                return job.id in await self._store.gone([job.id])
            except StoreError as error:
                log.error(
                    "job %s completed in its own transaction; asking again whether that stands: %s", job.id, error
                )
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)


def _record(worker: int, ack: Ack, again: bool) -> Steps[bool]:
    if not (yield from write_acks(worker, [ack])):
        return True
    values = {"id": ack.id, "worker": worker, "attempt": ack.attempt, "result": ack.result, "reason": ack.reason}
    return again and (yield run("replace_result", **values)) == 1


def _hint(ack: Ack) -> int | None:
    """Others may be waiting behind this job."""
    return ack.finished_at if ack.release else None
