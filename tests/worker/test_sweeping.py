"""The sweeper's duties, apart from its loop."""

from __future__ import annotations

import pytest

from oncue import OnCue
from oncue.errors import UnknownJob
from oncue.sweeper import Sweeper
from tests.store.kit import HandClock
from tests.worker.conftest import Make


async def test_a_duty_that_fails_keeps_no_other_from_being_done(make: Make, clock: HandClock) -> None:
    app: OnCue = make(clock=clock, retention=5)

    @app.task()
    async def work() -> None: ...

    async def fail() -> int:
        raise RuntimeError("a mistake in one duty")

    async with app:
        handle = await app.schedule(work.call())
        await app.drain()
        clock.move(5)
        sweeper = Sweeper(app.store, app.wake, clock, retention=5, plan=fail, reconcile=fail, upkeep=fail)
        with pytest.raises(RuntimeError, match="a mistake in one duty"):
            await sweeper.run_once()
        with pytest.raises(UnknownJob, match="retention is over"):
            await handle.result(30)
