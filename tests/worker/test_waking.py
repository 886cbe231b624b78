"""A worker that sleeps is woken by whatever makes work due, on this loop, on another, and after an earlier one."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from oncue import OnCue, Retry
from tests.databases import Backend
from tests.worker.conftest import until_state


async def test_a_job_that_is_run_again_or_now_runs_at_once(app: OnCue) -> None:
    @app.task(retry=Retry.never())
    async def work(ok: bool) -> None:
        if not ok:
            raise ValueError("no")

    async with asyncio.timeout(30), app.worker():
        failed, far = await app.schedule(work.call(False)), await app.schedule(work.call(True), delay=3600)
        await until_state(app, failed.id, "discarded")
        await app.jobs.retry(failed.id)
        await until_state(app, failed.id, "discarded", attempt=2)
        await app.jobs.run_now(far.id)
        await until_state(app, far.id, "completed")


async def test_a_schedule_that_is_run_now_runs_at_once(app: OnCue) -> None:
    @app.cron("0 0 1 1 *", name="yearly")
    async def yearly() -> None: ...

    async with asyncio.timeout(30), app.worker():
        await until_state(app, await app.recurring.run_now("yearly"), "completed")


def test_results_are_waited_for_on_one_loop_after_another(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path / 'jobs.db'}")

    @app.task()
    async def work() -> int:
        return 7

    async def main() -> int:
        async with app.worker():
            return await (await app.schedule(work.call(), delay=0.05)).result(30)

    assert [asyncio.run(main()) for _ in range(3)] == [7, 7, 7]


async def test_loops_that_schedule_side_by_side_are_each_answered(app: OnCue, backend: Backend) -> None:
    @app.task()
    async def work() -> None: ...

    waits = threading.Event()

    async def other() -> None:
        asked = asyncio.create_task(app.schedule(work.call(), delay=60))
        await asyncio.sleep(0)
        waits.set()
        await asked

    async with app:
        with backend.locked():
            mine = asyncio.create_task(app.schedule(work.call(), delay=60))
            await asyncio.sleep(0)
            thread = threading.Thread(target=lambda: asyncio.run(other()), daemon=True)
            thread.start()
            await asyncio.to_thread(waits.wait, 30)
        await mine
        await asyncio.to_thread(thread.join, 30)
        assert not thread.is_alive()
        assert (await app.jobs.counts()).scheduled == 2
