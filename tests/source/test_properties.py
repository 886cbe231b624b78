"""Any edits of rows, between any sweeps, looks and runs: each due value runs at most once, and once where it stays."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from oncue import JobContext, Retry
from oncue.clock import SECOND, from_us
from tests.databases import POSTGRES, database
from tests.source.stage import START, Stage

IDS = st.integers(1, 3)
STEP = st.one_of(
    st.tuples(st.just("put"), IDS, st.sampled_from([0, 3, 7, 20, 200]), st.sampled_from(["active", "paused"])),
    st.tuples(st.just("clear"), IDS),
    st.tuples(st.just("delete"), IDS),
    st.tuples(st.just("schedule"), IDS, st.sampled_from([0, 3, 7])),
    st.tuples(st.just("fail"), st.integers(1, 2)),
    st.tuples(st.just("move"), st.sampled_from([1, 5, 30])),
    st.tuples(st.just("sweep")),
    st.tuples(st.just("two sweeps")),
    st.tuples(st.just("work")),
)


# The due value that a job was made for, and whether the application made it itself.
MEANT = """SELECT coalesce({ref}, (SELECT scheduled_at FROM oncue_attempt WHERE job = id AND attempt = 1),
  scheduled_at), origin IS NULL FROM oncue_job WHERE id = ?"""
REF = {"sqlite": "origin_ref->>1", "postgres": "(origin_ref::json->>1)::bigint"}


class World:
    """The rows as the model sees them, and what ran: (row, due value) for each start that was not a failure."""

    def __init__(self, stage: Stage, trigger: bool) -> None:
        self.stage = stage
        meant_by = MEANT.format(ref=REF["sqlite" if stage.backend.is_sqlite else "postgres"])
        self.rows: dict[int, tuple[int | None, str]] = {}
        self.done: Counter[tuple[int, int]] = Counter()
        self.asked: set[tuple[int, int]] = set()
        self.wrong: list[str] = []

        @stage.app.task(name="send", retry=Retry(max_attempts=5, delay=5.0))
        async def send(ctx: JobContext, trial_id: int) -> None:
            due, status = self.rows.get(trial_id, (None, "gone"))
            now = (stage.clock.now() - START) // SECOND
            meant, own = stage.db.execute(meant_by, (ctx.id,)).fetchone()
            if due is None or status != "active" or due > now or meant != due * SECOND + START:
                # The application's own jobs are not read again when they start.
                self.wrong += [] if own else [f"row {trial_id} ran at {now} while it was {due}, {status}"]
            if stage.fails:
                stage.fails -= 1
                raise ValueError("not yet")
            self.done[trial_id, (meant - START) // SECOND] += 1

        stage.declare(task=send, group="trial-{id}", trigger=trigger)
        self.task = send

    async def step(self, name: str, *values: object) -> None:
        stage = self.stage
        match (name, *values):
            case "put", int(id), int(ahead), str(status):
                # Even seconds for what is put, so that no due value comes twice unless it is put again.
                due = (stage.clock.now() - START) // SECOND + ahead
                self.rows[id] = (due, status)
                stage.put(id, stage.at(due), status)
            case "clear", int(id) if id in self.rows:
                self.rows[id] = (None, self.rows[id][1])
                stage.put(id, None, self.rows[id][1])
            case "delete", int(id):
                self.rows.pop(id, None)
                stage.db.execute("DELETE FROM free_trials WHERE id = ?", (id,))
            case "schedule", int(id), int(ahead):
                # What the webhook does: the job and the due column in one transaction.
                due = (stage.clock.now() - START) // SECOND + ahead
                # An application that asks twice for the same time while the first job has begun gets two jobs.
                if (id, due) in self.done or (id, due) in self.asked:
                    return
                self.asked.add((id, due))
                self.rows[id] = (due, "active")
                stage.db.execute("BEGIN")
                stage.put(id, stage.at(due))
                await stage.app.schedule(
                    self.task.call(id), at=from_us(START + due * SECOND), key=f"question-{id}", group=f"trial-{id}",
                    on_conflict="replace", connection=stage.db.connection,
                )  # fmt: skip
                stage.db.execute("COMMIT")
            case "fail", int(count):
                stage.fails = count
            case "move", int(seconds):
                stage.clock.move(seconds)
            case ("sweep",):
                await stage.sweep()
            case ("two sweeps",):
                await asyncio.gather(stage.sweep(), stage.sweep())
            case ("work",):
                await stage.work()

    async def settle(self) -> None:
        """Time passes and nobody edits: what is active and due runs."""
        self.stage.fails = 0
        for _ in range(12):
            self.stage.clock.move(30)
            await self.stage.sweep()
            await self.stage.work()


async def _play(kind: str, steps: list[tuple[object, ...]], trigger: bool, own: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, database(kind, Path(folder)) as backend:
        stage = Stage(backend)
        world = World(stage, trigger)
        async with stage.app:
            await stage.app.sources.install()
            for name, *values in steps:
                if name == "schedule" and not own:
                    continue
                await world.step(str(name), *values)
            await world.settle()
        stage.db.close()
        assert world.wrong == []
        assert [pair for pair, count in world.done.items() if count > 1] == []
        for id, (due, status) in world.rows.items():
            if due is not None and status == "active":
                assert world.done[id, due] == 1, (id, due)


Steps = list[tuple[object, ...]]
PLAYS = given(st.lists(STEP, max_size=25), st.booleans())
FEW = settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
# The application replaces the row's job, then the row goes back to its old time, with no sweep in between.
REPLACED: Steps = [("put", 1, 0, "active"), ("sweep",), ("schedule", 1, 3), ("put", 1, 0, "active")]


@MANY
@PLAYS
def test_each_due_value_of_a_row_runs_at_most_once_and_once_where_it_stays(steps: Steps, trigger: bool) -> None:
    asyncio.run(_play("sqlite", steps, trigger, own=False))


@MANY
@PLAYS
@example(REPLACED, False)
@example(REPLACED, True)
def test_the_same_beside_the_applications_own_jobs(steps: Steps, trigger: bool) -> None:
    asyncio.run(_play("sqlite", steps, trigger, own=True))


@pytest.mark.slow
@FEW
@PLAYS
@example(REPLACED, False)
@example(REPLACED, True)
def test_the_same_on_postgresql(steps: Steps, trigger: bool) -> None:
    asyncio.run(_play(POSTGRES[0], steps, trigger, own=True))
