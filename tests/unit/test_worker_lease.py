"""What must leave no worker asleep beside a due job, nor at work on one that others took back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from oncue import JobContext, OnCue
from oncue.clock import SECOND, SystemClock
from oncue.errors import StoreUnavailable
from oncue.handle import JobHandle
from oncue.heartbeat import Heartbeat
from oncue.store.sqlite.run import SQL
from tests.databases import sqlite_of


@pytest.mark.parametrize("round", range(5))
async def test_a_worker_that_was_signed_off_by_others_still_runs_what_is_due(tmp_path: Path, round: int) -> None:
    app = OnCue(f"sqlite:///{tmp_path}/jobs.db")

    @app.task(name="note")
    async def note() -> int:
        return round

    async with app.worker() as service:
        assert service.worker is not None
        before = service.worker.id
        await sqlite_of(app).write(lambda conn: conn.execute(SQL["drop_worker"], {"worker": before}))
        handle = await app.schedule(note.call())
        assert await handle.result(timeout=20) == round
        assert service.worker.id != before


async def test_a_hint_that_comes_while_the_worker_follows_a_claim_is_kept(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path}/jobs.db")
    made: list[JobHandle[int]] = []
    scheduled = asyncio.Event()

    @app.task(name="note")
    async def note() -> int:
        return 1

    async def changed() -> int:
        await sqlite_of(app).write(lambda conn: conn.execute("DELETE FROM oncue_source_change"))
        if not made:
            made.append(await app.schedule(note.call()))
            scheduled.set()
        return 0

    app.sources.reconcile_changed = changed  # type: ignore[method-assign]
    async with app.worker() as service:
        assert service.worker is not None
        note_of = "INSERT INTO oncue_source_change (source, row_key) VALUES ('s', '1')"
        await sqlite_of(app).write(lambda conn: conn.execute(note_of))
        service.worker._arm(app.clock.now())
        await scheduled.wait()
        assert await made[0].result(timeout=20) == 1


async def test_jobs_that_arrive_for_a_life_that_was_lost_meanwhile_are_not_begun(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path}/jobs.db")
    begun: list[int] = []

    @app.task(name="note")
    async def note(ctx: JobContext) -> int:
        begun.append(ctx.attempt)
        return ctx.attempt

    async with app.worker() as service:
        worker, claim = service.worker, app.store.claim
        assert worker is not None

        async def too_late(request: Any) -> Any:
            found = await claim(request)
            if found.jobs and found.jobs[0].attempt == 1:
                worker._lease_is_lost(worker.id)
            return found

        app.store.claim = too_late  # type: ignore[method-assign]
        handle = await app.schedule(note.call())
        assert await handle.result(timeout=20) == 2
        assert begun == [2]


async def test_a_lease_is_renewed_before_its_end_however_late_the_answer_to_the_claim_was(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path}/jobs.db")
    async with app:
        lease = 100.0
        heart = Heartbeat(app.store.lease_keeper(), SystemClock(), int(lease * SECOND), 60, lambda _: None)
        for waited in (0.0, 40.0, 60.0):
            heart.active(7, time.monotonic() - waited, took=True)
            # By then a claim has left three quarters of it.
            assert heart._pause() < 75 - waited
            heart.active(0, time.monotonic(), took=False)
        await heart.close()


class _Away:
    """The connection that renews the lease doesn't come through: the server lets no more in."""

    def extend(self, worker: int, now: int, lease: int) -> bool:
        raise StoreUnavailable("no connection left")

    def close(self) -> None: ...


@pytest.mark.parametrize("took", [True, False])
async def test_a_life_goes_on_while_claims_bring_jobs_though_the_lease_is_not_renewed_otherwise(took: bool) -> None:
    """These claims renew it: who gave the life up would have the jobs in hand run once more."""
    lost: list[int] = []
    heart = Heartbeat(_Away(), SystemClock(), 100 * SECOND, 60, lost.append)
    heart.active(7, time.monotonic() - 90, took=True)
    heart.active(7, time.monotonic(), took=took)
    await asyncio.to_thread(heart._beat, 7)
    await heart.close()
    assert lost == ([] if took else [7])
