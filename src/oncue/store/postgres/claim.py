"""A worker's round trip on PostgreSQL: acks and claims side by side, and the lock for jobs that bind each other."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import msgspec

from oncue.errors import StoreBusy, StoreError
from oncue.job import Ack, Claimed, Snoozed, decide
from oncue.limits import possible_caps
from oncue.store import Claim, Claims
from oncue.store.postgres.connection import Connection
from oncue.store.postgres.run import named, perform
from oncue.store.shares import Lane, Turns
from oncue.store.steps import Finish, Steps, as_json, claim, fetch, manage
from oncue.store.steps.acks import write_acks
from oncue.store.steps.claim import Peek, claims_of, refused, renew, served
from oncue.store.steps.insert import release

if TYPE_CHECKING:
    from oncue.store.postgres import PostgresStore

_FIRST_HELD, _LONGEST_HELD = 10_000, 1_000_000
_CAUTIOUS = 30.0
# So long, in seconds, a worker whose places one lane fills goes on without looking at anything else.
_LOOK_EVERY = 0.02
_WITH_JOBS_IN_HAND = 0.1


class Claimer:
    """Does what ``Claim`` says. Jobs that nothing binds are claimed and acked without any lock, on two connections.

    Jobs with a group, a key or a limit bind each other: who claims or acks them holds one advisory lock meanwhile, so
    that nobody parks a job behind another that just ends.
    """

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._held: dict[int, int] = {}
        self._unsure: set[int] = set()
        self._runs: dict[int, tuple[float, Lane, Peek]] = {}
        self.suspects: set[int] = set()
        """Workers that hold jobs by the last sweep. A claim may come through long after its worker gave it up, so each
        of them looks once whether it holds some without knowing."""
        self._cautious_until = 0.0

    async def claim(self, request: Claim) -> Claims:
        """Record acks and claim due jobs. What could be done is in the answer, also where the rest failed."""
        found = await self._claim(request)
        back = [ack.eligible_at for ack in request.acks if ack.outcome == "released" and ack.id not in found.unwritten]
        if back and (hint := self._store.hint(min(back))):
            # Others may be free for what this worker gave back. They look by themselves, later, where this is lost.
            with contextlib.suppress(StoreError):
                await self._store.announce(hint)
        return found

    async def warm_up(self) -> None:
        """Have the hot statements planned on both connections before there is work: the first jobs come sooner."""
        schema = self._store.schema_name
        nothing = {
            "worker": 0,
            "now": 0,
            "until": 0,
            "count": 0,
            "queue": "",
            "priority": 0,
            "unknown": [],
            "bound": [],
        }
        no_acks = {"worker": 0, "attempt": 0, "retention": 0, "id": [], "started_at": [], "finished_at": []}

        async def plan(conn: Connection) -> None:
            for text, args in (
                named("claim_plain", schema, nothing),
                named("finish_completed", schema, no_acks),
            ):
                await conn.fetch(text, *args)

        await asyncio.gather(self._store.hot(plan), self._store.hot(plan))

    async def _claim(self, request: Claim) -> Claims:
        free = [ack for ack in request.acks if not ack.release]
        bound = [ack for ack in request.acks if ack.release]
        if not free:
            return await self._take_safely(request, bound)
        acked, taken = await asyncio.gather(
            self._ack(request, free), self._take_safely(request, bound), return_exceptions=True
        )
        if isinstance(acked, BaseException) and isinstance(taken, BaseException):
            raise taken
        if isinstance(taken, BaseException):
            assert not isinstance(acked, BaseException)
            lost, held = acked
            held = held + [ack.id for ack in bound]
            found = Claims([], lost, [], None, None, None, unwritten=held, trouble=_error(taken))
        elif isinstance(acked, BaseException):
            found = taken
            found.unwritten += [ack.id for ack in free]
            found.trouble = _error(acked)
        else:
            found = taken
            found.lost += acked[0]
            found.unwritten += acked[1]
            # Put back while the claim looked elsewhere, so it may not have seen them.
            again = [ack.eligible_at for ack in free if ack.state == "scheduled"]
            found.next_eligible = min((due for due in (found.next_eligible, *again) if due is not None), default=None)
        return found

    async def _ack(self, request: Claim, acks: Sequence[Ack]) -> tuple[list[int], list[int]]:
        """Record the outcomes of jobs that nobody waits behind; return the ids of those that the worker lost, and of
        those whose rows others hold."""
        # Statements that commit one by one could be repeated from the first on.
        is_one = len({ack.attempt for ack in acks}) == 1 and all(ack.state != "scheduled" for ack in acks)
        if is_one and time.monotonic() > self._cautious_until:
            try:
                return await self._store.alone(lambda: _write(request.worker, acks)), []
            except StoreBusy:
                # Somebody's transaction holds one of the rows, and may do so for long: the others need not wait for it.
                self._cautious_until = time.monotonic() + _CAUTIOUS

        async def work(conn: Connection) -> tuple[list[int], list[int]]:
            ready, held = await self._free(conn, acks)
            return await perform(conn, _write(request.worker, ready), self._store.schema_name), held

        return await self._store.pool.transaction(work, waits=False)

    async def _free(self, conn: Connection, acks: Sequence[Ack]) -> tuple[list[Ack], list[int]]:
        """Lock the rows of these acks; return the acks that can be written now, and the ids of the others."""
        if not acks:
            return [], []
        ids = [ack.id for ack in acks]
        text, args = named("free_jobs", self._store.schema_name, {"id": ids})
        free = set(msgspec.json.decode(await conn.fetchval(text, *args)))
        rest = [id for id in ids if id not in free]
        if rest:
            text, args = named("gone", self._store.schema_name, {"ids": as_json(rest)})
            free.update(msgspec.json.decode(await conn.fetchval(text, *args)))
        return [ack for ack in acks if ack.id in free], [id for id in ids if id not in free]

    async def _take_safely(self, request: Claim, bound: list[Ack]) -> Claims:
        try:
            found = await self._take(request, bound)
        except StoreError:
            # It may have come through, and its answer been lost: then the worker holds jobs that it knows nothing of.
            self._unsure.add(request.worker)
            raise
        if found.held:
            wait = self._held[request.worker] = min(_LONGEST_HELD, 2 * self._held.get(request.worker, _FIRST_HELD // 2))
            later = request.until + wait
            found.next_eligible = later if found.next_eligible is None else min(later, found.next_eligible)
        elif found.jobs:
            self._held.pop(request.worker, None)
        return found

    async def _take(self, request: Claim, bound: list[Ack]) -> Claims:
        request = msgspec.structs.replace(request, acks=bound, by_server=self._store.keeps_servers_time)
        found = None
        if not bound and request.worker not in self._unsure | self.suspects:
            begun = False

            async def take(conn: Connection) -> Claims | None:
                nonlocal begun
                run = self._runs.pop(request.worker, None)
                if begun:
                    # Taken back by the server under way, after it may have handed out jobs.
                    self._unsure.add(request.worker)
                    return None
                begun = True
                if run is not None and request.count > 0 and time.monotonic() < run[0]:
                    return await self._take_on(conn, request, *run)
                return await self._take_plain(conn, request)

            found = await self._store.hot(take)
        if found is None:
            return await self._take_locked(request)
        left = request.count - len(found.jobs)
        if not found.bound_due or left <= 0:
            return found
        # Bound jobs stood among the plain ones: they have their turn under the lock.
        taken = Counter(job.queue for job in found.jobs)
        more: dict[str, Any] = {"count": left, "taken": taken}
        if request.holding is not None:
            # It holds these too by now: in doubt about what it holds, the locked part would give them back.
            more["holding"] = request.holding | {job.id for job in found.jobs}
        return await self._take_rest(msgspec.structs.replace(request, **more), found)

    async def _take_rest(self, request: Claim, found: Claims) -> Claims:
        """Add bound jobs to the plain ones of ``found``. These are not begun meanwhile, and nobody renews their lease:
        the lock is waited for only briefly."""
        try:
            rest = await self._take_locked(request, _WITH_JOBS_IN_HAND)
        except StoreBusy:
            found.more, found.next_eligible = True, request.now
            return found
        except StoreError as error:
            # What was claimed before is the worker's, and runs; only about the rest is there doubt.
            self._unsure.add(request.worker)
            found.trouble = error
            return found
        rest.jobs[:0] = found.jobs
        return rest

    async def _take_plain(self, conn: Connection, request: Claim) -> Claims | None:
        """Claim jobs that nothing binds; None where the first due jobs are bound ones."""
        policy = request.policy
        tasks = list(policy.tasks) if policy else []
        peek = await self._peek(conn, request, tasks)
        found = claims_of(peek, [])
        if found.lease_lost:
            return found
        until = claim.until(request, peek)
        lanes = served(peek, request)
        queues = policy.queues if policy else {}
        if peek.freed or any(
            (is_bound or queue in queues) and eligible <= until for queue, _, eligible, is_bound in lanes
        ):
            return None
        later = [lane[2] for lane in lanes if lane[2] > until]
        due = [lane for lane in lanes if lane[2] <= until]
        # Each statement commits by itself: nobody may see jobs under a lease that is over.
        await perform(conn, renew(request, peek, takes=bool(due)), self._store.schema_name)
        turns = Turns(due, request.shares, request.taken)
        while (turn := turns.pick(request.count - len(found.jobs))) is not None:
            lane, count = turn
            values = {"queue": lane[0], "priority": lane[1], "bound": tasks, "unknown": refused(request, peek)}
            limits = {"worker": request.worker, "now": request.now, "until": until, "count": count}
            taken = await self._take_lane(conn, {**values, **limits})
            found.jobs += taken
            turns.took(lane, len(taken), more=len(taken) == count)
            if len(taken) < count and await self._look_on(conn, values, until, found, later):
                turns.keep(lane)
        found.more = found.more or bool(turns.left)
        found.next_eligible = min(later, default=None)
        if found.more and len(due) == 1 and request.shares is None:
            self._runs[request.worker] = time.monotonic() + _LOOK_EVERY, due[0], peek
        return found

    async def _take_on(self, conn: Connection, request: Claim, end: float, lane: Lane, peek: Peek) -> Claims:
        """Go on with the one lane that has more than fits, without another look for a few milliseconds."""
        found = claims_of(peek, [])
        found.cancel = []
        limits = {"worker": request.worker, "now": request.now, "until": claim.until(request, peek)}
        values = {"queue": lane[0], "priority": lane[1], "unknown": refused(request, peek), "count": request.count}
        found.jobs = await self._take_lane(conn, {**values, **limits, "bound": list(request.policy.tasks)})
        found.more = True
        if len(found.jobs) == request.count:
            self._runs[request.worker] = end, lane, peek
            return found
        # The lane has an end after all: what comes now needs a look.
        rest = await self._take_plain(conn, msgspec.structs.replace(request, count=request.count - len(found.jobs)))
        if rest is None:
            found.bound_due = True
            return found
        rest.jobs[:0] = found.jobs
        return rest

    async def _take_lane(self, conn: Connection, values: dict[str, Any]) -> list[Claimed]:
        text, args = named("claim_plain", self._store.schema_name, values)
        jobs = [Claimed(*row) for row in await conn.fetch(text, *args)]
        jobs.sort(key=lambda job: (job.eligible_at, job.id))
        return jobs

    async def _look_on(
        self, conn: Connection, values: dict[str, Any], until: int, found: Claims, later: list[int]
    ) -> bool:
        """See when a lane goes on, whose jobs were taken as far as they are due, free and plain; tell whether bound
        ones are due."""
        text, args = named("lane_head", self._store.schema_name, values)
        head = await conn.fetchrow(text, *args)
        if head is None:
            return False
        if head[0] > until:
            later.append(head[0])
            return False
        if head[1]:
            found.bound_due = True
            return True
        found.held = True
        rest = {
            "queue": values["queue"],
            "priority": values["priority"],
            "except": as_json(values["unknown"]),
            "held": "[]",
        }
        text, args = named("lane_after", self._store.schema_name, {**rest, "until": until})
        after = await conn.fetchval(text, *args)
        if after is not None:
            later.append(after)
        return False

    async def _peek(self, conn: Connection, request: Claim, tasks: list[str]) -> Peek:
        began = self._store.began()
        peek = await perform(conn, claim.look(request.worker, tasks, request.unknown), self._store.schema_name)
        self._store.learn(began, peek.now)
        return peek

    async def _take_locked(self, request: Claim, lock_wait: float | None = None) -> Claims:
        async def work(conn: Connection) -> Claims:
            acks, held = await self._free(conn, request.acks)
            found = await perform(
                conn, self._steps(msgspec.structs.replace(request, acks=acks)), self._store.schema_name, locked=True
            )
            found.unwritten += held
            return found

        found = await self._store.pool.transaction(work, self._store.lock, waits=False, lock_wait=lock_wait)
        self._unsure.discard(request.worker)
        self.suspects.discard(request.worker)
        return found

    def _steps(self, request: Claim) -> Steps[Claims]:
        if request.holding is not None and request.worker in self._unsure | self.suspects:
            yield from _give_orphans_back(request, request.holding)
        yield from let_go()
        return (yield from claim.claim(request))


def let_go() -> Steps[None]:
    """Let those go on whose blockers were freed outside a claim, since the last time."""
    freed = yield from fetch("take_releases")
    if freed:
        yield from release(freed)


def _give_orphans_back(request: Claim, known: AbstractSet[int]) -> Steps[None]:
    """Give back what the worker holds without knowing: the answer to its claim was lost with the connection."""
    held = yield from manage.jobs_of(request.worker)
    reason = "given back: the connection broke before its worker learnt of it"
    back = Snoozed(0, reason, released=True)
    acks = [
        decide(job, back, request.now, job.claimed_at, caps=possible_caps(job.task, job.queue))
        for job in held
        if job.id not in known
    ]
    if acks:
        yield from write_acks(request.worker, acks)


def _write(worker: int, acks: Sequence[Ack]) -> Steps[list[int]]:
    lost: list[int] = []
    final = [ack for ack in acks if ack.state != "scheduled"]
    if final:
        lost += yield Finish(worker, final)
    again = [ack for ack in acks if ack.state == "scheduled"]
    if again:
        lost += yield from write_acks(worker, again)
    return lost


def _error(error: BaseException) -> Exception:
    if not isinstance(error, Exception):
        raise error
    return error
