"""Outcomes that may have been recorded although the connection broke before the answer came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from oncue.errors import StoreError
from oncue.job import Ack, Claimed
from oncue.store import Claims, Store


class Doubts:
    """Jobs whose outcome was handed in before, when the connection broke: it may have come through then."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ids: set[int] = set()

    def add(self, ids: Iterable[int]) -> None:
        """The hand-in of these failed."""
        self._ids.update(ids)

    async def settle(self, worker: int, entries: Sequence[tuple[Claimed, Ack]], found: Claims) -> None:
        """Take those out of ``found.lost`` whose outcome is on record as this worker's."""
        doubtful = self._ids.intersection(found.lost)
        self._ids.difference_update(job.id for job, _ in entries)
        if found.trouble is not None:
            self._ids.update(found.unwritten)
        for _, ack in entries:
            if ack.id in doubtful and await self._is_recorded(worker, ack):
                found.lost.remove(ack.id)

    async def _is_recorded(self, worker: int, ack: Ack) -> bool:
        mine = (worker, ack.attempt, ack.outcome)
        try:
            job = await self._store.job(ack.id)
            if job is not None and (job.worker, job.attempt, job.outcome) == mine:
                return True
            attempts = await self._store.attempts(ack.id)
            return any((one.worker, one.attempt, one.outcome) == mine for one in attempts)
        except StoreError:
            return False
