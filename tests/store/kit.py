"""What the tests of stores share: a clock that moves by hand, jobs, and a bench to claim and ack on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from oncue.job import Ack, Claimed, Completed, Inserted, NewJob, OnRetry, Outcome, decide
from oncue.limits import Policy
from oncue.store import Claim, Claims, Store, WorkerRow
from oncue.store.lock import LifeLock
from oncue.store.views import JobView

S = 1_000_000
T0 = 1_800_000_000 * S
LEASE = 10 * S
DAY = 86_400 * S


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: int = T0) -> None:
        self._now = now
        self._watchers: list[Callable[[], None]] = []

    def now(self) -> int:
        return self._now

    def watch(self, moved: Callable[[], None]) -> Callable[[], None]:
        self._watchers.append(moved)
        return lambda: self._watchers.remove(moved)

    def move(self, seconds: float) -> None:
        self.set(self._now + round(seconds * S))

    def set(self, now: int) -> None:
        self._now = now
        for moved in list(self._watchers):
            moved()


def job(due: float = 0.0, task: str = "t", **options: Any) -> NewJob:
    """A job due so many seconds after T0."""
    options.setdefault("created_at", T0)
    options.setdefault("max_attempts", 5)
    args, queue, priority = options.pop("args", "{}"), options.pop("queue", "default"), options.pop("priority", 0)
    return NewJob(0, task, args, queue, priority, T0 + round(due * S), **options)


class Bench:
    """A store with its clock, and the life of workers on it. ``due`` times are seconds after T0."""

    def __init__(self, store: Store, clock: HandClock) -> None:
        self.store, self.clock = store, clock
        self.lives: dict[int, LifeLock] = {}

    @property
    def now(self) -> int:
        return self.clock.now()

    async def worker(self, name: str = "w", lease: int = LEASE, host: str = "elsewhere") -> int:
        row = WorkerRow(0, name, host, 1, None, self.now, self.now, self.now + lease)
        id, self.lives[id] = await self.store.register(row)
        return id

    async def add(self, *jobs: NewJob) -> list[int]:
        return [one.id for one in await self.store.insert_many(jobs)]

    async def put(self, one: NewJob) -> Inserted:
        return await self.store.insert(one)

    async def ask(self, worker: int, acks: Sequence[Ack] = (), ahead: int = 0, count: int = 100, **more: Any) -> Claims:
        request = Claim(worker, self.now, self.now + ahead, LEASE, count, acks, **more)
        return await self.store.claim(request)

    async def claim(self, worker: int, count: int = 100, **more: Any) -> list[Claimed]:
        """Claim again and again, as a worker does, until there is no more or ``count`` are held."""
        jobs: list[Claimed] = []
        while True:
            found = await self.ask(worker, count=count - len(jobs), **more)
            jobs += found.jobs
            if not found.more or len(jobs) >= count:
                return jobs

    async def ids(self, worker: int, **more: Any) -> list[int]:
        return [one.id for one in await self.claim(worker, **more)]

    def ack(self, one: Claimed, outcome: Outcome | None = None, on_retry: OnRetry = "hold", **more: Any) -> Ack:
        return decide(one, outcome or Completed(), self.now, max(self.now, one.start_at), on_retry, **more)

    async def done(
        self,
        worker: int,
        one: Claimed,
        outcome: Outcome | None = None,
        on_retry: OnRetry = "hold",
        policy: Policy | None = None,
        **more: Any,
    ) -> Claims:
        """Hand in one outcome and claim nothing."""
        if policy is not None:
            more["caps"] = tuple(name for name, _ in policy.caps(one.task, one.queue))
        return await self.ask(worker, [self.ack(one, outcome, on_retry, **more)], count=0)

    async def get(self, id: int) -> JobView:
        found = await self.store.job(id)
        assert found is not None, f"no job {id}"
        return found

    async def state(self, id: int) -> str:
        return (await self.get(id)).state
