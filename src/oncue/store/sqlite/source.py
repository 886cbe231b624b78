"""Sources in SQLite: what is asked of the user's tables there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from oncue.store.base import SharedSources
from oncue.store.sources import Found, Table
from oncue.store.sqlite import triggers
from oncue.store.sqlite.rows import check, find

if TYPE_CHECKING:
    from oncue.store.sqlite import SqliteStore


class SqliteSources(SharedSources):
    """What the SQLite store does for sources."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__(store)
        self._sqlite = store

    async def check(self, table: Table) -> list[str]:
        """Return the table's columns. Raises SourceBroken where it, a column or the condition can't be used."""
        return await self._sqlite.read(lambda conn: check(conn, table))

    async def exists(self, table: str) -> bool:
        """Tell whether there is such a table or view."""
        return await self._sqlite.read(lambda conn: bool(triggers.kind_of(conn, table)))

    async def install(self, app: str, names: Sequence[str], wanted: Sequence[Table]) -> list[str]:
        """Make the triggers those of ``wanted``, and drop this app's others; return what was changed, in words."""
        if await self._sqlite.read(lambda conn: triggers.is_in_step(conn, app, names, wanted)):
            return []
        return await self._sqlite.write(lambda conn: triggers.install(conn, app, names, wanted))

    async def find(self, table: Table, horizon: int) -> Found:
        """Return rows due by ``horizon`` whose due value is not handled, and rows that left a waiting job behind."""
        return await self._sqlite.read(lambda conn: find(conn, table, horizon))
