"""The history by day: partitions are made ahead, and dropped whole once every row in them is over its retention."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg

from oncue.clock import SECOND, from_us, to_us
from oncue.errors import StoreBusy, StoreError
from oncue.store.postgres.connection import Connection
from oncue.store.postgres.run import qualified
from oncue.store.views import Check
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.store.postgres import PostgresStore

log = logging.getLogger("oncue.history")
DAYS_AHEAD = 3
_SWEEP, _HOUR = 60 * SECOND, 3600 * SECOND
_LONG = 600.0
_NAME = re.compile(r"oncue_finished_(\d{8})")
# Whoever writes an outcome waits while partitions are attached or detached: rather not today than for long.
_BRIEF = "SET LOCAL lock_timeout = '300ms'; SET LOCAL statement_timeout = '2s'"
_MANY = 1_000_000

_LOOK = """
SELECT pg_has_role(parent.relowner, 'USAGE') AND has_schema_privilege(parent.relnamespace, 'CREATE') AS may,
       rest.reltuples::bigint AS rest,
       ARRAY(SELECT relname::text FROM pg_class WHERE relnamespace = parent.relnamespace AND relkind = 'r'
             AND relname ~ '^oncue_finished_[0-9]{8}$' AND relispartition ORDER BY 1) AS days,
       ARRAY(SELECT relname::text FROM pg_class WHERE relnamespace = parent.relnamespace AND relkind = 'r'
             AND relname ~ '^oncue_finished_[0-9]{8}$' AND NOT relispartition ORDER BY 1) AS detached
FROM pg_class AS parent JOIN pg_class AS rest ON rest.relnamespace = parent.relnamespace
WHERE parent.relnamespace = $1::text::regnamespace AND parent.relname = 'oncue_finished'
  AND rest.relname = 'oncue_finished_rest'"""


class History:
    """Keeps the partitions of finished jobs, at the first sweep and then once a day, or when one can be dropped.

    Any number of processes may do so at once. Where the role owns no tables, nothing is done: all jobs are in the
    default partition then, and deleted row by row.
    """

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._next = 0

    async def keep(self, now: int) -> None:
        """Make the partitions of the days to come and drop those that are over. Costs nothing between two such looks.

        What can't be had now, because others hold locks, is tried again later.
        """
        if now < self._next:
            return
        self._next = now + _SWEEP
        tomorrow = to_us(_day(now) + timedelta(days=1))
        found = await self._store.pool.run(lambda conn: conn.fetchrow(_LOOK, f'"{self._store.schema_name}"'))
        if found is None or not found["may"]:
            self._next = tomorrow
            return
        made = await self._make(now, found["days"])
        self._next = min(
            tomorrow if made else now + _HOUR, await self._drop_over(now, found["days"], found["detached"])
        )

    async def _make(self, now: int, days: list[str]) -> bool:
        """Make what is missing of the next days' partitions; False where that is to be tried again soon."""
        for ahead in range(1, DAYS_AHEAD + 1):
            day = _day(now) + timedelta(days=ahead)
            if _name(day) in days:
                continue
            try:
                if not await self._store.transaction(partial(self._attach, day=day)):
                    return False
            except StoreError as error:
                # Rows of that day are in the default partition already, by a clock that was ahead.
                if not isinstance(error.__cause__, asyncpg.CheckViolationError):
                    log.info("the history's partition %s is made later: %s", _name(day), error)
                    return False
        return True

    async def _attach(self, conn: Connection, day: datetime) -> bool:
        """Make one partition; False where another process is at it."""
        await conn.execute(_BRIEF)
        if await self._is_busy(conn):
            return False
        if await self._state(conn, _name(day)) is not None:
            return True
        parent, child = self._table("oncue_finished"), self._table(_name(day))
        await conn.execute(f"CREATE TABLE {child} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        first, last = to_us(day), to_us(day + timedelta(days=1))
        await conn.execute(f"ALTER TABLE {parent} ATTACH PARTITION {child} FOR VALUES FROM ({first}) TO ({last})")
        return True

    async def _drop_over(self, now: int, days: list[str], detached: list[str]) -> int:
        """Drop partitions whose rows are all over; return when the next one will be, or may be tried again."""
        following = now + 2 * 24 * _HOUR
        for name in days + detached:
            try:
                # An outcome may come late: a day is looked at when it has been over for an hour.
                if name in days and (over := await self._over(name, now)) > now:
                    following = min(following, over)
                    continue
                if name in days:
                    await self._store.transaction(partial(self._detach, name=name))
                if not await self._store.transaction(partial(self._drop, name=name, now=now)):
                    following = min(following, now + _SWEEP)
            except StoreError as error:
                log.info("the history's partition %s is dropped later: %s", name, error)
                following = min(following, now + (_SWEEP if isinstance(error, StoreBusy) else _HOUR))
        return following

    async def _over(self, name: str, now: int) -> int:
        """Return when the last row of a partition is over, in microseconds; far away where one is kept for ever."""
        end = to_us(_parsed(name) + timedelta(days=1)) + _HOUR
        if end > now:
            return end

        async def ask(conn: Connection) -> int:
            last = await conn.fetchval(f"SELECT max(expires_at) FROM {self._table(name)}")  # noqa: S608
            if last is not None and last > now:
                return int(last)
            kept = f"SELECT EXISTS (SELECT 1 FROM {self._table(name)} WHERE expires_at IS NULL)"  # noqa: S608
            return now + 365 * 24 * _HOUR if await conn.fetchval(kept, timeout=_LONG) else now

        return await self._store.pool.run(ask)

    async def _detach(self, conn: Connection, name: str) -> None:
        await conn.execute(_BRIEF)
        if await self._is_busy(conn) or not await self._state(conn, name):
            return
        await conn.execute(f"ALTER TABLE {self._table('oncue_finished')} DETACH PARTITION {self._table(name)}")

    async def _drop(self, conn: Connection, name: str, now: int) -> bool:
        """Drop a table that was detached, after what is not over yet (it came in a moment before) was put back.

        False where it may still be there, because another process is at it.
        """
        await conn.execute(f"{_BRIEF}; SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = on")
        if await self._is_busy(conn):
            return False
        if (attached := await self._state(conn, name)) is not False:
            return attached is None
        day, parent = self._table(name), self._table("oncue_finished")
        kept = f"INSERT INTO {parent} SELECT * FROM {day} WHERE expires_at IS NULL OR expires_at > $1"  # noqa: S608
        await conn.execute(kept, now, timeout=_LONG)
        # A job that was put back by `oncue jobs retry` keeps its attempts.
        over = (
            f"DELETE FROM oncue_attempt AS a USING {day} AS d WHERE a.job = d.id AND d.expires_at <= $1 "  # noqa: S608
            "AND NOT EXISTS (SELECT 1 FROM oncue_job AS j WHERE j.id = a.job)"
        )
        await conn.execute(qualified(over, self._store.schema_name), now, timeout=_LONG)
        await conn.execute(f"DROP TABLE {day}")
        return True

    async def _is_busy(self, conn: Connection) -> bool:
        """Tell whether another process keeps the history of this schema just now; else nobody may until we commit."""
        text = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))"
        return not await conn.fetchval(text, f"oncue history {self._store.schema_name}")

    async def _state(self, conn: Connection, name: str) -> bool | None:
        """Tell whether a table is a partition now; None where there is none of that name."""
        text = "SELECT relispartition FROM pg_class WHERE relname = $1 AND relnamespace = $2::text::regnamespace"
        found: bool | None = await conn.fetchval(text, name, f'"{self._store.schema_name}"')
        return found

    def _table(self, name: str) -> str:
        return f'"{self._store.schema_name}".{name}'


def _day(now: int) -> datetime:
    return from_us(now).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _name(day: datetime) -> str:
    return f"oncue_finished_{day:%Y%m%d}"


def _parsed(name: str) -> datetime:
    found = _NAME.fullmatch(name)
    assert found is not None
    return datetime.strptime(found[1], "%Y%m%d").replace(tzinfo=UTC)


async def check(conn: Connection, schema: str, now: int) -> Check:
    """Say whether finished jobs go into partitions by day, and how many are in the default one."""
    found: Any = await conn.fetchrow(_LOOK, f'"{schema}"')
    if found is None:
        return Check("history", "FAIL", "oncue_finished or oncue_finished_rest is missing", "Restore a backup.")
    rest = max(0, found["rest"])
    if _name(_day(now) + timedelta(days=1)) in found["days"]:
        many = f", and about {rest:,} finished jobs outside them" if rest > _MANY else ""
        return Check("history", "ok", f"partitions for {counted(len(found['days']), 'day')}{many}")
    about = counted(rest, "row")
    text = f"no partition for tomorrow: finished jobs go into the default one (about {about}) and are deleted singly"
    if found["may"]:
        return Check("history", "ok" if rest < _MANY else "warn", text, "A worker's next sweep makes them.")
    remedy = "Above a million jobs a day, run `oncue sweep module:app` once a day as the role that owns the tables."
    return Check("history", "ok" if rest < _MANY else "warn", text, remedy)
