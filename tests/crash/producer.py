"""The ways in which the producers of the crash tests schedule, each noted in the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from datetime import timedelta
from typing import Any

from oncue import OnCue, Scheduled
from oncue.errors import StoreError
from oncue.handle import JobHandle
from oncue.task import Call
from tests.crash.ledger import Ledger
from tests.crash.orders import Orders

WAYS = (
    "single", "single", "flaky", "many", "shared_key", "cancelled", "moved", "mine", "mine", "rolled_back",
)  # fmt: skip


class Producer:
    """Schedules jobs of the ordered kinds; the ledger says of which it was promised that they run, or don't."""

    def __init__(self, app: OnCue, ledger: Ledger, orders: Orders) -> None:
        self.app, self.ledger, self.orders = app, ledger, orders
        self.rng = random.Random(orders.seed)

    async def produce(self, token: str) -> None:
        """Schedule what the orders say."""
        await getattr(self, f"_{self.orders.kind}")(token, self.rng)

    async def _plain(self, token: str, rng: random.Random) -> None:
        await self._promise("work", token, delay=0.05)

    async def _far(self, token: str, rng: random.Random) -> None:
        await self._promise("work", token, delay=1800)

    async def _gated(self, token: str, rng: random.Random) -> None:
        await self._promise("gated", token)

    async def _gated_thread(self, token: str, rng: random.Random) -> None:
        await self._promise("gated_thread", token)

    async def _limited(self, token: str, rng: random.Random) -> None:
        await self._promise("limited", token)

    async def _capped(self, token: str, rng: random.Random) -> None:
        await self._promise("capped", token)

    async def _grouped(self, token: str, rng: random.Random) -> None:
        await self._promise("work", token, group=f"lane-{rng.randrange(4)}", delay=rng.uniform(0, 0.2), seconds=0.01)

    async def _chain(self, token: str, rng: random.Random) -> None:
        call = self.app.tasks["chain"].call(f"{token}/5", 5)
        await self.app.schedule(call, key=token)
        self.ledger.write("promised", f"{token}/5")

    async def _keyed(self, token: str, rng: random.Random) -> None:
        call = self.app.tasks["work"].call(token)
        # So much later that it has not ended before the last call, whose key would be free then.
        statuses = [(await self.app.schedule(call, key=token, delay=2.0)).status for _ in range(3)]
        self.ledger.write("promised", token, note=",".join(statuses))

    async def _large(self, token: str, rng: random.Random) -> None:
        """Large jobs, one after the other: a full disk refuses one, and that is said."""
        try:
            await self._promise("work", token, filler="x" * self.orders.size)
        except StoreError as error:
            self.ledger.write("refused", token, note=f"{type(error).__name__}: {error}")
        await asyncio.sleep(0.02)

    async def _mixed(self, token: str, rng: random.Random) -> None:
        """All ways to schedule at once, in the order that the seed says."""
        await getattr(self, f"_{rng.choice(WAYS)}")(token, rng)
        await asyncio.sleep(rng.uniform(0, 0.01))

    async def _stormy(self, token: str, rng: random.Random) -> None:
        """The same on PostgreSQL, which may be away: then nobody knows whether the commit came through."""
        import asyncpg
        import psycopg

        theirs = (psycopg.Error, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
        try:
            await self._mixed(token, rng)
        except (StoreError, *theirs) as error:
            self.ledger.write("unsure", token, note=f"{type(error).__name__}: {error}")

    async def _crowd(self, token: str, rng: random.Random) -> None:
        """A hundred of all kinds in one transaction, due over some seconds."""
        jobs = {f"{token}.{number}": self._of_crowd(f"{token}.{number}", number, rng) for number in range(100)}
        for one, handle in zip(jobs, await self.app.schedule_many(list(jobs.values())), strict=True):
            self._promised(one, handle.scheduled_at.timestamp())

    def _of_crowd(self, token: str, number: int, rng: random.Random) -> Scheduled:
        tasks = self.app.tasks
        how: dict[str, Any] = {}
        if number == 0:
            call = tasks["limited"].call(token)
        elif number < 5:
            call = tasks["capped"].call(token)
        elif number < 10:
            call = tasks["flaky"].call(token, rng.randrange(1, 3))
        else:
            call = tasks["work"].call(token, rng.uniform(0, 0.03))
            how = rng.choice(({}, {"key": token}, {"group": f"crowd-{rng.randrange(8)}"}))
        return Scheduled(call, delay=rng.uniform(3, 9), priority=rng.randrange(-2, 3), **how)

    async def _single(self, token: str, rng: random.Random) -> None:
        group = rng.choice([None, "lane-0", "lane-1", "lane-2"])
        await self._promise("work", token, group=group, **_when(rng))

    async def _flaky(self, token: str, rng: random.Random) -> None:
        group = rng.choice([None, "lane-0", "lane-1"])
        await self._promise("flaky", token, delay=rng.uniform(0, 0.2), group=group, fails=rng.randrange(1, 4))

    async def _many(self, token: str, rng: random.Random) -> None:
        tokens, seconds = [f"{token}.{n}" for n in range(5)], rng.uniform(0, 0.03)
        handles = await self.app.schedule_many([self.app.tasks["work"].call(one, seconds) for one in tokens])
        for one, handle in zip(tokens, handles, strict=True):
            self._promised(one, handle.scheduled_at.timestamp())

    async def _shared_key(self, token: str, rng: random.Random) -> None:
        """One of few keys: where a job waits under it, this one is never stored."""
        call = self.app.tasks["work"].call(token, rng.uniform(0, 0.03))
        handle = await self.app.schedule(call, key=f"key-{rng.randrange(3)}", delay=rng.uniform(0, 0.2))
        if handle.status == "created":
            self._promised(token, handle.scheduled_at.timestamp())
        else:
            self.ledger.write("doomed", token)

    async def _cancelled(self, token: str, rng: random.Random) -> None:
        """Cancelled around its due time. What was prevented may not start after that; what was too late has run."""
        delay = rng.uniform(0, 0.1)
        handle = await self.app.schedule(self.app.tasks["work"].call(token, 0.01), delay=delay)
        await asyncio.sleep(rng.uniform(0, 2 * delay))
        answer = await self.app.cancel(id=handle.id)
        if answer == "prevented":
            self.ledger.write("prevented", token)
        elif answer == "too late":
            self._promised(token, handle.scheduled_at.timestamp())

    async def _moved(self, token: str, rng: random.Random) -> None:
        """Moved to later, often while it is being claimed."""
        handle = await self._promise("work", token, **_when(rng))
        later = handle.scheduled_at + timedelta(seconds=rng.uniform(0, 0.3))
        if await self.app.reschedule(id=handle.id, at=later):
            self._promised(token, later.timestamp())

    async def _mine(self, token: str, rng: random.Random) -> None:
        await self._in_mine(f"mine-{token}", rng, commit=True)

    async def _rolled_back(self, token: str, rng: random.Random) -> None:
        await self._in_mine(f"mine-{token}", rng, commit=False)

    async def _in_mine(self, token: str, rng: random.Random, *, commit: bool) -> None:
        """Schedule inside a transaction of the application's own, with a row of its own table beside the job."""
        if not commit:
            self.ledger.write("doomed", token)
        call, delay = self.app.tasks["work"].call(token, rng.uniform(0, 0.03)), rng.uniform(0, 0.3)
        if self.orders.on_postgres and rng.randrange(2):
            due = await self._in_asyncpg(token, call, delay, commit=commit)
        else:
            due = self._in_dbapi(token, call, delay, commit=commit)
        if commit:
            self._promised(token, due)

    def _in_dbapi(self, token: str, call: Call[Any], delay: float, *, commit: bool) -> float:
        conn: Any
        if self.orders.on_postgres:
            import psycopg

            conn, place = psycopg.connect(self.orders.url, connect_timeout=10), "%s"
        else:
            conn, place = sqlite3.connect(self.orders.database, timeout=10), "?"
            conn.execute("CREATE TABLE IF NOT EXISTS note (token TEXT PRIMARY KEY)")
            conn.execute("BEGIN IMMEDIATE")
        with contextlib.closing(conn):
            conn.execute(f"INSERT INTO note VALUES ({place})", (token,))
            handle = self.app.sync.schedule(call, delay=delay, connection=conn)
            if commit:
                conn.commit()
            else:
                conn.rollback()
        return handle.scheduled_at.timestamp()

    async def _in_asyncpg(self, token: str, call: Call[Any], delay: float, *, commit: bool) -> float:
        import asyncpg

        conn = await asyncpg.connect(self.orders.url, timeout=10, command_timeout=10)
        try:
            mine = conn.transaction()
            await mine.start()
            await conn.execute("INSERT INTO note VALUES ($1)", token)
            handle = await self.app.schedule(call, delay=delay, connection=conn)
            await (mine.commit() if commit else mine.rollback())
        finally:
            conn.terminate()
        return handle.scheduled_at.timestamp()

    async def _promise(
        self, task: str, token: str, *, delay: float = 0.0, group: str | None = None, **args: Any
    ) -> JobHandle[Any]:
        handle = await self.app.schedule(self.app.tasks[task].call(token, **args), delay=delay, group=group)
        self._promised(token, handle.scheduled_at.timestamp())
        return handle

    def _promised(self, token: str, due: float) -> None:
        self.ledger.write("promised", token, due=int(due * 1_000_000))


def _when(rng: random.Random) -> dict[str, Any]:
    return {"seconds": rng.uniform(0, 0.03), "delay": rng.uniform(0, 0.3)}
