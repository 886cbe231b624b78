"""Looking at and steering an application's recurring schedules."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from oncue.clock import Clock, from_us
from oncue.errors import UnknownSchedule

if TYPE_CHECKING:
    from oncue.planner import Planner
    from oncue.store import Store
    from oncue.wake import Wake


class Recurring:
    """``app.recurring``: the stored schedules, by the names that they have in the code."""

    def __init__(self, store: Store, wake: Wake, clock: Clock) -> None:
        self._store, self._wake, self._clock = store, wake, clock

    @property
    def _planner(self) -> Planner:
        from oncue.planner import Planner

        return Planner(self._store, self._clock, "", {})

    async def pause(self, name: str) -> None:
        """Let a schedule fire no more until it is resumed, on all workers. Raises UnknownSchedule."""
        _known(await self._planner.pause(name), name)

    async def resume(self, name: str) -> None:
        """Let a paused schedule go on with its next fire; those in between are left out. Raises UnknownSchedule."""
        _known(await self._planner.pause(name, paused=False), name)
        self._wake.hint(self._clock.now())

    async def run_now(self, name: str) -> int:
        """Make a job of a schedule at once, apart from its fires, and return its id. Raises UnknownSchedule."""
        id = await self._planner.run_now(name)
        _known(id is not None, name)
        assert id is not None
        self._wake.hint(self._clock.now())
        return id

    async def preview(self, name: str, n: int = 10) -> list[datetime]:
        """Return the next ``n`` fires of a schedule (aware, UTC), paused or not. Raises UnknownSchedule."""
        from oncue.cron import parse_schedule

        row = next((row for row in await self._store.schedules() if row.name == name), None)
        _known(row is not None, name)
        assert row is not None
        when = parse_schedule(row.expression, row.timezone)
        return [from_us(fire) for fire in when.upcoming(self._clock.now(), n)]


def _known(found: bool, name: str) -> None:
    if not found:
        raise UnknownSchedule(
            f"No schedule is named {name!r} in the database: `oncue schedules list` names those that are. One that is "
            "new in the code is stored when a worker starts."
        )
