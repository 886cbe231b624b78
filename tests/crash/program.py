"""The program that the crash tests start, kill and stop: an OnCue application whose handlers keep a ledger.

Run as ``python -m tests.crash.program ORDERS``, where ORDERS is the JSON of ``Orders``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from oncue import JobContext, Limit, OnCue, Retry, errors
from oncue.service import Service
from oncue.store.sqlite.connection import ConnectionThread
from oncue.worker import WorkerOptions
from tests.crash.faults import Faults, note_acks
from tests.crash.ledger import Ledger

HOUR = 3_600_000_000
PATIENT = Retry(max_attempts=1000)


class Orders(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one process is to do. Times in seconds."""

    role: str
    folder: str
    database: str
    lease: float = 10.0
    concurrency: int = 200
    sweep: float = 3600.0
    busy: float = 10.0
    point: str = ""
    nth: int = 1
    signal: int = signal.SIGKILL
    cron: bool = False
    deaf: bool = False
    seed: int = 0
    count: int = 0
    kind: str = "plain"
    size: int = 0


class Shifted:
    """The machine's clock plus what the file ``shift`` says (hours): moved from outside, and nobody is told."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def now(self) -> int:
        """Return the shifted time in microseconds."""
        shift = float(self._path.read_text()) if self._path.exists() else 0.0
        return time.time_ns() // 1000 + int(shift * HOUR)

    def watch(self, moved: Callable[[], None]) -> Callable[[], None]:
        """As with a machine's clock, nobody is told."""
        return lambda: None


class Program:
    """One process: the application, its ledger, and its part in the test."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.folder = Path(orders.folder)
        self.ledger = Ledger(self.folder / "ledger")
        self.clock = Shifted(self.folder / "shift")
        self.gate = self.folder / "gate"
        self.app = OnCue(
            f"sqlite:///{orders.database}",
            clock=self.clock,
            sweep=orders.sweep,
            retention=None,
            busy_timeout=orders.busy,
        )
        note_acks(self.ledger)
        self.faults = Faults(self.ledger, orders.point, orders.nth, orders.signal)
        self._declare()

    @contextlib.contextmanager
    def _attempt(self, ctx: JobContext, token: str) -> Iterator[None]:
        now, due = self.clock.now(), int(ctx.scheduled_at.timestamp() * 1_000_000)
        known: dict[str, Any] = {"job": ctx.id, "attempt": ctx.attempt, "due": due, "group": ctx.group or ctx.key}
        self.ledger.write("start", token, now=now, **known)
        self.faults.reach("handler")
        try:
            yield
        except asyncio.CancelledError:
            self.ledger.write("told", token, note="lease lost" if ctx.lease_lost else "cancelled", **known)
            raise
        self.ledger.write("end", token, now=self.clock.now(), **known)

    def _declare(self) -> None:
        app = self.app

        @app.task(name="work", retry=PATIENT)
        async def work(ctx: JobContext, token: str, seconds: float = 0.0, filler: str = "") -> int:
            with self._attempt(ctx, token):
                await asyncio.sleep(seconds)
            return ctx.attempt

        @app.task(name="gated", retry=PATIENT)
        async def gated(ctx: JobContext, token: str) -> int:
            with self._attempt(ctx, token):
                while not self.gate.exists():  # noqa: ASYNC110 - the event is another process's
                    await asyncio.sleep(0.005)
            return ctx.attempt

        @app.task(name="gated_thread", retry=PATIENT)
        def gated_thread(ctx: JobContext, token: str) -> int:
            with self._attempt(ctx, token):
                while not self.gate.exists():
                    time.sleep(0.005)
                if ctx.lease_lost:
                    self.ledger.write("told", token, job=ctx.id, attempt=ctx.attempt, note="lease lost")
            return ctx.attempt

        self._declare_limited()

    def _declare_limited(self) -> None:
        app = self.app

        @app.task(name="limited", retry=PATIENT, limit=Limit(20, per=1, burst=1))
        async def limited(ctx: JobContext, token: str) -> None:
            with self._attempt(ctx, token):
                await asyncio.sleep(0)

        @app.task(name="capped", retry=PATIENT, concurrency=2)
        async def capped(ctx: JobContext, token: str) -> None:
            with self._attempt(ctx, token):
                await asyncio.sleep(0.02)

        @app.task(name="chain", retry=PATIENT)
        async def chain(ctx: JobContext, token: str, left: int) -> None:
            with self._attempt(ctx, token):
                if left:
                    following = f"{token.rpartition('/')[0]}/{left - 1}"
                    call = chain.call(following, left - 1)
                    await app.schedule(call, key=ctx.key)
                    self.ledger.write("promised", following)
                await asyncio.sleep(0.01)

        if self.orders.cron:

            @app.every(1, name="tick", overlap="allow", missed="all", max_missed=1000)
            async def tick() -> None:
                self.ledger.write("tick")

    async def worker(self, stop: asyncio.Event) -> None:
        """Work until told to stop."""
        orders = self.orders
        options = WorkerOptions(lease=orders.lease, concurrency=orders.concurrency, grace=5.0)
        async with self.app:
            await self._serve(self.app.service(options), stop)

    async def planner(self, stop: asyncio.Event) -> None:
        """Plan and sweep, without a worker, until told to stop."""
        async with self.app:
            service = self.app.service(worker=False)
            serving = asyncio.create_task(self._serve(service, stop))
            while not serving.done():
                if service.ready.is_set():
                    await service.planner.run_once()
                await asyncio.sleep(0.01)
            await serving

    async def _serve(self, service: Service, stop: asyncio.Event) -> None:
        running = asyncio.create_task(service.run(stop))
        ready = asyncio.create_task(service.ready.wait())
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not running.done():
            self.ledger.write("ready")
        await running

    async def opener(self, stop: asyncio.Event) -> None:
        """Open the application, which migrates the file, and end."""
        async with self.app:
            self.ledger.write("ready")

    async def producer(self, stop: asyncio.Event) -> None:
        """Schedule ``count`` jobs of the ordered kind, or go on until told to stop."""
        rng = random.Random(self.orders.seed)
        async with self.app:
            self.ledger.write("ready")
            number = 0
            while not stop.is_set() and (not self.orders.count or number < self.orders.count):
                token = f"{self.orders.kind}-{self.orders.seed}-{number}"
                await getattr(self, f"_{self.orders.kind}")(token, rng)
                self.faults.reach("promised")
                number += 1
            self.ledger.write("produced")

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
        statuses = [(await self.app.schedule(call, key=token, delay=0.3)).status for _ in range(3)]
        self.ledger.write("promised", token, note=",".join(statuses))

    async def _large(self, token: str, rng: random.Random) -> None:
        """Large jobs, one after the other: a full disk refuses one, and that is said."""
        try:
            await self._promise("work", token, filler="x" * self.orders.size)
        except errors.StoreError as error:
            self.ledger.write("refused", token, note=f"{type(error).__name__}: {error}")
        await asyncio.sleep(0.02)

    async def _mixed(self, token: str, rng: random.Random) -> None:
        """All ways to schedule at once, in the order that the seed says."""
        seconds, delay = rng.uniform(0, 0.03), rng.uniform(0, 0.3)
        way = rng.choice(["plain", "group", "many", "mine", "mine", "rolled back"])
        if way == "many":
            tokens = [f"{token}.{n}" for n in range(5)]
            handles = await self.app.schedule_many([self.app.tasks["work"].call(one, seconds) for one in tokens])
            for one, handle in zip(tokens, handles, strict=True):
                self._promised(one, handle.scheduled_at.timestamp())
        elif way in ("mine", "rolled back"):
            self._in_mine(f"mine-{token}", seconds, delay, commit=way == "mine")
        else:
            group = f"lane-{rng.randrange(3)}" if way == "group" else None
            await self._promise("work", token, seconds=seconds, delay=delay, group=group)
        await asyncio.sleep(rng.uniform(0, 0.01))

    def _in_mine(self, token: str, seconds: float, delay: float, *, commit: bool) -> None:
        """Schedule inside a transaction of the application's own, with a row of its own table beside the job."""
        conn = sqlite3.connect(self.orders.database, timeout=10)
        with contextlib.closing(conn):
            if not commit:
                self.ledger.write("doomed", token)
            conn.execute("CREATE TABLE IF NOT EXISTS note (token TEXT PRIMARY KEY)")
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("INSERT INTO note VALUES (?)", (token,))
            call = self.app.tasks["work"].call(token, seconds)
            handle = self.app.sync.schedule(call, delay=delay, connection=conn)
            if commit:
                conn.commit()
                self._promised(token, handle.scheduled_at.timestamp())
            else:
                conn.rollback()

    async def _promise(
        self, task: str, token: str, *, delay: float = 0.0, group: str | None = None, **args: Any
    ) -> None:
        handle = await self.app.schedule(self.app.tasks[task].call(token, **args), delay=delay, group=group)
        self._promised(token, handle.scheduled_at.timestamp())

    def _promised(self, token: str, due: float) -> None:
        self.ledger.write("promised", token, due=int(due * 1_000_000))


def _small_disk(program: Program) -> None:
    """While the file ``full`` is there, the database may not grow by a page: a full disk for those who aren't root."""
    original = ConnectionThread._transaction

    def limited(self: ConnectionThread, conn: sqlite3.Connection, operations: list[Any]) -> Any:
        pages = "1" if (program.folder / "full").exists() else "1073741823"
        conn.execute(f"PRAGMA max_page_count = {pages}")
        return original(self, conn, operations)

    ConnectionThread._transaction = limited  # type: ignore[method-assign]


def _deaf(*args: Any) -> None:
    raise OSError("no inotify in this test")


async def main() -> None:
    """Do what the orders say; SIGTERM ends it cleanly."""
    logging.basicConfig(format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s", level=logging.INFO)
    program = Program(msgspec.json.decode(sys.argv[1], type=Orders))
    _small_disk(program)
    if program.orders.deaf:
        from oncue.wake import watch

        watch._Inotify.__init__ = _deaf  # type: ignore[method-assign,assignment]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await getattr(program, program.orders.role)(stop)


if __name__ == "__main__":
    asyncio.run(main())
