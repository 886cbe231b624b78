"""Sources: the user's own tables, which the sweeper reconciles with jobs."""

from __future__ import annotations

from collections.abc import Mapping

from oncue.runner import Guard


class Sources:
    """The declared sources of an application."""

    def guards(self) -> Mapping[str, Guard]:
        """Return, by origin, what tells at the claim why a source's job need not run any more."""
        return {}

    async def install(self) -> None:
        """Install the triggers that were asked for."""

    async def reconcile(self) -> int:
        """Reconcile every source; return how many jobs were made or moved."""
        return 0

    async def reconcile_changed(self) -> int:
        """Reconcile the rows that a trigger saw change; return how many jobs were made or moved."""
        return 0
