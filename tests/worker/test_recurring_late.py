"""A task's bound on lateness holds for its fires too."""

from __future__ import annotations

from oncue import OnCue
from tests.store.kit import HandClock


async def test_the_tasks_bound_on_lateness_holds_for_its_fires(still: OnCue, clock: HandClock) -> None:
    ran: list[int] = []

    @still.cron("* * * * *", task=still.task(name="tick", max_late=30, when_late="skip"))
    async def tick() -> None:
        ran.append(clock.now())

    async with still:
        await still.drain()
        clock.move(600 + 45)
        await still.drain()
        (late,) = await still.jobs.list()
    assert late.state == "cancelled"
    assert late.reason is not None
    assert "more than max_late=30 s" in late.reason
    assert not ran
