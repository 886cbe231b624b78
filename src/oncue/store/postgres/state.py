"""What the server's settings and the tables say about their health."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oncue.store.postgres.connection import Connection
from oncue.store.views import Check

if TYPE_CHECKING:
    from oncue.store.postgres import PostgresStore


async def check(conn: Connection, store: PostgresStore) -> list[Check]:
    """Return what the server's settings and the tables say. Changes nothing."""
    return [await _durability(conn)]


async def _durability(conn: Connection) -> Check:
    level = str(await conn.fetchval("SHOW synchronous_commit"))
    fsync = str(await conn.fetchval("SHOW fsync"))
    if fsync == "on" and level != "off":
        return Check("durability", "ok", f"fsync=on, synchronous_commit={level}: what is promised survives a crash")
    remedy = "Set fsync=on and synchronous_commit=on for OnCue's role: what schedule() promised may be lost in a crash."
    return Check("durability", "FAIL", f"fsync={fsync}, synchronous_commit={level}", remedy)
