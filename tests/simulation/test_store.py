"""Random lives of jobs: whatever is done in whatever order, the store does what the model says."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from oncue.errors import InvalidJob
from oncue.job import Ack, Claimed, Completed, Failed, NewJob, Outcome, Skipped, Snoozed
from oncue.store import open_store
from oncue.store.postgres import PostgresStore
from oncue.store.postgres.claim import let_go
from oncue.store.views import JobView
from tests.databases import POSTGRES, database
from tests.simulation.model import Kind, Model
from tests.store.kit import LEASE, T0, Bench, HandClock, S, job

T = TypeVar("T")
# `make soak` asks for more: ONCUE_SIMULATIONS=2000 ONCUE_SIMULATION_STEPS=200.
EXAMPLES = int(os.environ.get("ONCUE_SIMULATIONS", "150"))
STEPS = int(os.environ.get("ONCUE_SIMULATION_STEPS", "50"))
RETENTION = 20 * S

# Few names and times, so that jobs meet.
seconds = st.sampled_from([0, 0, 1, 3])
keys = st.sampled_from([None, "k1", "k1", "k2"])
new_jobs = st.fixed_dictionaries(
    {
        "delay": seconds,
        "key": keys,
        "group": st.sampled_from([None, "g1", "g1", "g1", "g2"]),
        "priority": st.sampled_from([-1, 0, 1]),
        "queue": st.sampled_from(["a", "a", "b"]),
        "max_attempts": st.sampled_from([1, 3, 3]),
        "on_conflict": st.sampled_from(["keep", "replace", "reschedule", "debounce"]),
        "while_started": st.sampled_from(["queue", "keep"]),
        "max_wait": st.sampled_from([None, 3 * S]),
    }
)
kinds: Any = st.sampled_from(["complete", "fail", "fail", "give up", "snooze", "snooze", "release", "skip"])


class StoreLives(RuleBasedStateMachine):
    """Two workers on one store, and everything that people, clocks and crashes do to their jobs."""

    kind = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.rest = ExitStack()
        folder = self.rest.enter_context(tempfile.TemporaryDirectory())
        self.clock, self.model = HandClock(), Model()
        store = open_store(self.rest.enter_context(database(self.kind, Path(folder))).url, self.clock)
        self.bench = Bench(store, self.clock)
        self.held: dict[int, list[Claimed]] = {}
        self.stale: list[tuple[int, Ack]] = []

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    @initialize()
    def open(self) -> None:
        self.do(self.bench.store.open())
        self.keeper = self.bench.store.lease_keeper()
        for name in ("one", "two"):
            self.held[self.do(self.bench.worker(name))] = []

    def teardown(self) -> None:
        try:
            if self.held:
                self.everything_ends()
                self.keeper.close()
        finally:
            for life in self.bench.lives.values():
                life.release()
            self.do(self.bench.store.close())
            self.loop.close()
            self.rest.close()

    def new(self, options: dict[str, Any]) -> NewJob:
        options = dict(options)
        made = job(0, created_at=self.bench.now, **{k: v for k, v in options.items() if k != "delay"})
        made.scheduled_at = self.bench.now + options["delay"] * S
        return made

    @rule(options=new_jobs)
    def schedule(self, options: dict[str, Any]) -> None:
        new = self.new(options)
        wanted = self.new(options)
        self.model.insert(wanted, self.do(self.bench.put(new)))

    @rule(many=st.lists(new_jobs, min_size=2, max_size=3))
    def schedule_many(self, many: list[dict[str, Any]]) -> None:
        found = self.do(self.bench.store.insert_many([self.new(one) for one in many]))
        for options, got in zip(many, found, strict=True):
            # A job of the same batch may move the one before: the store tells each where it stood at its turn.
            self.model.insert(self.new(options), got)

    @rule(which=st.integers(0, 1), queues=st.sampled_from([None, frozenset({"a"})]), ahead=st.sampled_from([0, 20_000]))
    def claim_all(self, which: int, queues: frozenset[str] | None, ahead: int) -> None:
        worker = list(self.held)[which]
        wanted = self.model.claimable(self.bench.now + ahead, queues)
        got = self.do(self.bench.ask(worker, queues=queues, ahead=ahead)).jobs
        self.took(worker, got, ahead)
        assert {one.id for one in got} == wanted, f"{[one.id for one in got]}, not {wanted}; {self.shown()}"

    @rule(which=st.integers(0, 1))
    def claim_again(self, which: int) -> None:
        self.claim_all(which, None, 0)

    @rule(which=st.integers(0, 1), count=st.integers(1, 2))
    def claim_some(self, which: int, count: int) -> None:
        worker = list(self.held)[which]
        wanted = self.model.claimable(self.bench.now, None)
        got = self.do(self.bench.ask(worker, count=count)).jobs
        first = sorted(self.model.jobs[id].priority for id in wanted)[:count]
        self.took(worker, got, 0)
        assert {one.id for one in got} <= wanted
        assert [self.model.jobs[one.id].priority for one in got] == first

    def took(self, worker: int, got: list[Claimed], ahead: int) -> None:
        for one in got:
            known = self.model.jobs[one.id]
            assert known.not_before <= self.bench.now + ahead, "claimed before it was eligible"
            assert one.start_at >= known.due
            self.model.claim(one.id, worker)
            assert one.attempt == known.attempt
            self.held[worker].append(one)

    @precondition(lambda self: any(self.held.values()))
    @rule(pick=st.integers(0, 99), kind=kinds, delay=seconds, hold=st.booleans(), keep=st.booleans())
    def end(self, pick: int, kind: Kind, delay: int, hold: bool, keep: bool) -> None:
        all_held = [(worker, one) for worker, jobs in self.held.items() for one in jobs]
        worker, one = all_held[pick % len(all_held)]
        outcomes: dict[Kind, Outcome] = {
            "complete": Completed('"r"'),
            "fail": Failed("E", "trace", delay * S),
            "give up": Failed("E", None, None, "no more"),
            "snooze": Snoozed(delay * S, "later"),
            "release": Snoozed(0, "shutdown", released=True),
            "skip": Skipped("late"),
        }
        retention = RETENTION if keep else None
        ack = self.bench.ack(one, outcomes[kind], "hold" if hold else "yield", retention=retention)
        assert self.do(self.bench.ask(worker, [ack], count=0)).lost == []
        self.model.end(one.id, kind, self.bench.now, delay * S, hold, retention)
        self.held[worker].remove(one)
        self.stale.append((worker, ack))

    @precondition(lambda self: self.stale)
    @rule(pick=st.integers(0, 99))
    def a_zombie_acks(self, pick: int) -> None:
        """An old ack comes again, or late: it is reported as lost and changes nothing."""
        worker, ack = self.stale[pick % len(self.stale)]
        assert self.do(self.bench.ask(worker, [ack], count=0)).lost == [ack.id]

    @rule(key=keys | st.none(), pick=st.integers(0, 99), keep=st.booleans())
    def cancel(self, key: str | None, pick: int, keep: bool) -> None:
        id = self.any_id(pick) if key is None else None
        expires = self.bench.now + RETENTION if keep else None
        answer = self.do(self.bench.store.cancel(self.bench.now, expires, id=id, key=key))
        assert answer == self.model.cancel(id, key, self.bench.now, RETENTION if keep else None)

    @rule(key=keys | st.none(), pick=st.integers(0, 99), delay=seconds)
    def reschedule(self, key: str | None, pick: int, delay: int) -> None:
        id = self.any_id(pick) if key is None else None
        due = self.bench.now + delay * S
        moved = self.do(self.bench.store.reschedule(due, id=id, key=key))
        assert moved == self.model.reschedule(id, key, due)

    @rule(pick=st.integers(0, 99))
    def retry(self, pick: int) -> None:
        over = sorted(id for id, one in self.model.jobs.items() if one.state in ("discarded", "cancelled"))
        if not over:
            return
        id = over[pick % len(over)]
        if self.model.restart(id, self.bench.now):
            self.do(self.bench.store.restart(self.bench.now, id))
        else:
            with pytest.raises(InvalidJob, match="key"):
                self.do(self.bench.store.restart(self.bench.now, id))

    @rule(ms=st.sampled_from([1, 20, 1000, 4000]))
    def time_passes(self, ms: int) -> None:
        self.clock.move(ms / 1000)
        for worker in self.held:
            assert self.keeper.extend(worker, self.bench.now, LEASE)

    @rule(which=st.integers(0, 1), keep=st.booleans())
    def a_worker_dies(self, which: int, keep: bool) -> None:
        dead, alive = list(self.held)[which], list(self.held)[1 - which]
        self.clock.move(LEASE / S + 1)
        assert self.keeper.extend(alive, self.bench.now, LEASE)
        retention = RETENTION if keep else None
        taken = self.do(self.bench.store.rescue(self.bench.now, retention))
        lost = self.held.pop(dead)
        assert sorted(one.id for one, _ in taken) == sorted(one.id for one in lost)
        for one in lost:
            self.stale.append((dead, self.bench.ack(one)))
            self.model.rescue(one.id, self.bench.now, retention)
        self.held[self.do(self.bench.worker("next"))] = []

    @rule()
    def sweep(self) -> None:
        self.do(self.bench.store.unblock())
        assert self.do(self.bench.store.prune(self.bench.now, 1000)) == self.model.prune(self.bench.now)

    def any_id(self, pick: int) -> int:
        """A job that isn't final, but now and then any."""
        known = sorted(one.id for one in self.model.live()) if pick % 10 else sorted(self.model.jobs)
        return known[pick % len(known)] if known else 1

    @invariant()
    def the_store_is_what_the_model_says(self) -> None:
        if not self.held:
            return
        self.settle()
        seen = {one.id: one for one in self.do(self.bench.store.list_jobs(limit=10_000))}
        assert seen.keys() == self.model.jobs.keys()
        for id, one in self.model.jobs.items():
            view = seen[id]
            assert (view.state, view.attempt, view.snoozes, view.folded) == (
                one.state,
                one.attempt,
                one.snoozes,
                one.folded,
            )
            assert (view.key, view.group, view.queue, view.priority) == (one.key, one.group, one.queue, one.priority)
            assert (view.scheduled_at, view.max_attempts) == (one.due, one.max_attempts)
            assert view.worker == one.worker or not one.live
        self.laws(list(seen.values()))

    def shown(self) -> str:
        """What is there, for a person who reads why the model and the store differ."""
        rows = [
            (
                v.id,
                v.state,
                v.queue,
                v.priority,
                v.scheduled_at - T0,
                v.eligible_at,
                v.blocked_by,
                v.attempt,
                v.key,
                v.group,
            )
            for v in self.do(self.bench.store.list_jobs(limit=99, state=["scheduled", "running"]))
        ]
        return f"at {self.bench.now - T0}: {rows}"

    def settle(self) -> None:
        """Bring about what the store leaves for later, if it does."""

    def laws(self, seen: list[JobView]) -> None:
        assert len({one.id for one in seen}) == len(seen), "a job is in one place"
        live = [one for one in seen if one.state in ("scheduled", "running")]
        for started in (False, True):
            taken = [one.key for one in live if one.key is not None and (one.attempt > 0) is started]
            assert len(taken) == len(set(taken)), "one waiting and one started job a key"
        running = [one.group for one in live if one.group is not None and one.state == "running"]
        assert len(running) == len(set(running)), "one at a time in a group"
        for one in live:
            if one.state == "scheduled" and one.eligible_at is None:
                assert self.has_a_living_blocker(one, live), f"job {one.id} waits for nobody: {one.blocked_by}"
        counts = self.do(self.bench.store.counts(self.bench.now))
        parked = sum(one.state == "scheduled" and one.eligible_at is None for one in live)
        assert counts.scheduled + counts.due + parked + counts.running == len(live)
        assert counts.completed + counts.discarded + counts.cancelled == len(seen) - len(live)

    def has_a_living_blocker(self, one: JobView, live: list[JobView]) -> bool:
        kind, _, name = (one.blocked_by or "").partition(":")
        others = [other for other in live if other.id != one.id]
        if kind == "key":
            return any(other.key == name and other.attempt > 0 for other in others)
        lane = [other for other in others if other.group == name]
        return any(
            other.state == "running"
            or self.model.jobs[other.id].holds
            or (other.blocked_by != one.blocked_by and (other.scheduled_at, other.id) < (one.scheduled_at, one.id))
            for other in lane
        )

    def everything_ends(self) -> None:
        """Run the rest, with claims alone: no sweep must be needed for a job to be found."""
        worker = next(iter(self.held))
        for owner, jobs in self.held.items():
            for one in jobs:
                self.do(self.bench.ask(owner, [self.bench.ack(one)], count=0))
        for _ in range(500):
            self.keeper.extend(worker, self.bench.now, LEASE)
            found = self.do(self.bench.ask(worker))
            if found.jobs:
                self.do(self.bench.ask(worker, [self.bench.ack(one) for one in found.jobs], count=0))
            elif not found.more:
                if found.next_eligible is None:
                    break
                self.clock.set(max(self.bench.now, found.next_eligible))
        left = self.do(self.bench.store.list_jobs(limit=99, state=["scheduled", "running"]))
        assert left == [], "found by no claim"


class PostgresLives(StoreLives):
    """The same on PostgreSQL, where each step takes longer: fewer of them."""

    kind = POSTGRES[0]

    def settle(self) -> None:
        """Who frees others outside a claim leaves that to the next one."""
        assert isinstance(self.bench.store, PostgresStore)
        self.do(self.bench.store.change(let_go, locked=True))


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        # The small run is the same each time; the big one looks for what nobody has seen yet.
        derandomize=EXAMPLES <= 150,
        suppress_health_check=list(HealthCheck),
    )


_patience = pytest.mark.timeout(24 * 3600 if EXAMPLES > 150 else 600)
StoreLives.TestCase.settings = _settings(EXAMPLES)
PostgresLives.TestCase.settings = _settings(EXAMPLES // 5)
TestStoreLives = _patience(StoreLives.TestCase)
TestPostgresLives = _patience(PostgresLives.TestCase)
