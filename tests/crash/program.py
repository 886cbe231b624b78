"""The program that the crash tests start, kill and stop: an OnCue application whose handlers keep a ledger.

Run as ``python -m tests.crash.program ORDERS``, where ORDERS is the JSON of ``Orders``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from oncue import JobContext, Limit, OnCue, Retry, RetryAfter
from oncue.errors import StoreBusy, StoreReadOnly, StoreUnavailable
from oncue.service import Service
from oncue.store.sqlite.connection import ConnectionThread
from oncue.worker import WorkerOptions
from tests.crash.faults import Faults, note_acks
from tests.crash.ledger import Ledger
from tests.crash.orders import Orders
from tests.crash.producer import Producer

log = logging.getLogger("tests.crash")
HOUR = 3_600_000_000
PATIENT = Retry(max_attempts=1000)


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
            orders.url,
            wake=orders.wake or None,
            # PostgreSQL keeps the time, and the judge compares with this machine's: the server runs on it.
            clock=None if orders.on_postgres else self.clock,
            sweep=orders.sweep,
            retention=None,
            busy_timeout=orders.busy,
        )
        note_acks(type(self.app.store), self.ledger)
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
        except RetryAfter:
            self.ledger.write("failed", token, **known)
            raise
        self.ledger.write("end", token, now=self.clock.now(), **known)

    def _declare(self) -> None:
        app = self.app

        @app.task(name="work", retry=PATIENT)
        async def work(ctx: JobContext, token: str, seconds: float = 0.0, filler: str = "") -> int:
            with self._attempt(ctx, token):
                await asyncio.sleep(seconds)
            return ctx.attempt

        @app.task(name="flaky", retry=PATIENT)
        async def flaky(ctx: JobContext, token: str, fails: int) -> None:
            with self._attempt(ctx, token):
                await asyncio.sleep(0.005)
                if ctx.attempt <= fails:
                    raise RetryAfter(0.05)

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
        producer = Producer(self.app, self.ledger, self.orders)
        async with self.app:
            self.ledger.write("ready")
            number = 0
            while not stop.is_set() and (not self.orders.count or number < self.orders.count):
                await producer.produce(f"{self.orders.kind}-{self.orders.seed}-{number}")
                self.faults.reach("promised")
                number += 1
            self.ledger.write("produced")


def _small_disk(program: Program) -> None:
    """While the file ``full`` is there, the database may not grow by a page: a full disk for those who aren't root."""
    original = ConnectionThread._transaction

    def limited(self: ConnectionThread, conn: sqlite3.Connection, operations: list[Any]) -> Any:
        pages = "1" if (program.folder / "full").exists() else "1073741823"
        conn.execute(f"PRAGMA max_page_count = {pages}")
        return original(self, conn, operations)

    ConnectionThread._transaction = limited  # type: ignore[method-assign]


def _stalled_soon() -> None:
    """What a killed worker had from BullMQ is delivered again after seconds, so that a test can wait for it."""
    from oncue.wake import bullmq

    bullmq._WORKER |= {"lockDuration": 3_000, "stalledInterval": 3_000}


def _deaf(*args: Any) -> None:
    raise OSError("no inotify in this test")


async def main() -> None:
    """Do what the orders say; SIGTERM ends it cleanly."""
    logging.basicConfig(format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s", level=logging.INFO)
    program = Program(msgspec.json.decode(sys.argv[1], type=Orders))
    _small_disk(program)
    if program.orders.wake:
        _stalled_soon()
    if program.orders.deaf:
        from oncue.wake import watch

        watch._Inotify.__init__ = _deaf  # type: ignore[method-assign,assignment]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    try:
        await getattr(program, program.orders.role)(stop)
    except (StoreUnavailable, StoreBusy, StoreReadOnly):
        if not program.orders.on_postgres:
            raise
        # The server went away while this began: its supervisor starts it anew.
        log.exception("can't begin")
        os.execv(sys.executable, [sys.executable, "-m", "tests.crash.program", sys.argv[1]])


if __name__ == "__main__":
    asyncio.run(main())
