"""Reading and steering jobs: what the command line, the HTTP API and a person at 3 a.m. use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from oncue.clock import SECOND, Clock
from oncue.errors import InvalidJob, UnknownJob
from oncue.job import State
from oncue.limits import Policy
from oncue.store import Store, WorkerRow
from oncue.task import MAX_ID, checked_name
from oncue.wake import Wake

if TYPE_CHECKING:
    from oncue.store.views import AttemptView, Counts, JobView, WorkerView

# An idle worker renews its row about every 45 s, and looks up at least once a minute.
_SILENT = 120 * SECOND
_STATES: tuple[str, ...] = get_args(State)


class Jobs:
    """The jobs of an application, to look at and to steer."""

    def __init__(self, store: Store, wake: Wake, clock: Clock, policy: Callable[[], Policy] = Policy) -> None:
        self._store, self._wake, self._clock, self._policy = store, wake, clock, policy

    async def get(self, id: int) -> JobView | None:
        """Return a job, waiting, running or final; None where there is none (any more)."""
        return await self._store.job(id) if 0 < id <= MAX_ID else None

    async def attempts(self, id: int) -> list[AttemptView]:
        """Return a job's attempts, oldest first; the one that ended it is in the job itself."""
        return await self._store.attempts(id) if 0 < id <= MAX_ID else []

    async def list(
        self,
        *,
        state: State | Sequence[State] = (),
        task: str | None = None,
        queue: str | None = None,
        key: str | None = None,
        group: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[JobView]:
        """Return jobs, newest id first, that match all that is given; ``before`` continues below an id.

        ``state``: one, or several of which a job has any. Raises InvalidJob for what can't be a state or a name.
        """
        states = (state,) if isinstance(state, str) else tuple(state)
        for one in states:
            if one not in _STATES:
                raise InvalidJob(f"state is one of {', '.join(map(repr, _STATES))}, or several, not {one!r}.")
        for name, value in (("task", task), ("queue", queue), ("key", key), ("group", group)):
            if value is not None:
                checked_name(name, value)
        return await self._store.list_jobs(
            state=states, task=task, queue=queue, key=key, group=group, limit=limit, before=before
        )

    async def counts(self) -> Counts:
        """Return how many jobs are in which state now."""
        return await self._store.counts(self._clock.now())

    async def why(self, job: JobView) -> str:
        """Return in plain English why a job does not run now, or what became of it."""
        from oncue.why import why

        return await why(job, self._store, self._clock.now(), await self.workers(), self._policy())

    async def workers(self) -> Sequence[WorkerView]:
        """Return the registered workers, and whether each is alive."""
        from oncue.store.views import WorkerView

        now, dead = self._clock.now(), await self._store.proved_dead()
        views = []
        for row in await self._store.workers():
            queues = None if row.queues is None else msgspec.json.decode(row.queues)
            views.append(
                WorkerView(
                    row.id,
                    row.name,
                    _state(row, now, dead),
                    row.host,
                    row.pid,
                    None if queues is None else sorted(queues),
                    row.running,
                    row.started_at,
                    row.seen_at,
                    abs(row.lease_until),
                    weights=queues if isinstance(queues, dict) else None,
                    tasks=None if row.tasks is None else msgspec.json.decode(row.tasks),
                    version=row.version,
                    given_up=row.given_up,
                    wake=row.wake,
                    wake_since=row.wake_since,
                )
            )
        return views

    async def run_now(self, id: int) -> None:
        """Make a waiting job due now. Raises UnknownJob, or InvalidJob where it runs or is final."""
        now = self._clock.now()
        await self._store.run_now(now, _possible(id))
        self._wake.hint(now)

    async def retry(self, id: int) -> None:
        """Put a discarded or cancelled job back, due now. Raises UnknownJob, or InvalidJob where that can't be."""
        now = self._clock.now()
        await self._store.restart(now, _possible(id))
        self._wake.hint(now)


def _state(row: WorkerRow, now: int, dead: AbstractSet[int]) -> Literal["alive", "silent", "dead"]:
    if row.given_up or row.id in dead:
        return "dead"
    return "alive" if row.seen_at > now - _SILENT else "silent"


def _possible(id: int) -> int:
    """Return an id that a database can hold. Raises UnknownJob."""
    if not 0 < id <= MAX_ID:
        raise UnknownJob(f"No job {id}: ids go from 1 to {MAX_ID:,}.")
    return id
