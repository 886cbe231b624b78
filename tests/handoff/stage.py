"""An application whose images are resized in Node, and what happens to them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from oncue import OnCue, Retry
from oncue.bridge.follow import Timing
from oncue.bridge.handoff import NodeQueues, node_queues
from oncue.handle import JobHandle
from oncue.service import Service
from oncue.store.views import AttemptView, JobView
from oncue.worker import WorkerOptions
from tests import valkey
from tests.databases import KINDS
from tests.nodejs import Node, Program

# Each database, and each of Redis and Valkey, at least once.
PAIRS = list(zip(KINDS, itertools.cycle(("given",) if os.environ.get("TEST_REDIS_URL") else valkey.KINDS)))
QUEUE = "images"
QUICK = Timing(look=0.2, first_look=0.05, unknown_lock=1.0)
LOCK = 1000


class Resized(msgspec.Struct):
    """What Node answers."""

    path: str
    width: int


def make_app(url: str, redis: str, *, timeout: float | None = None, attempts: int = 3) -> OnCue:
    """The application, with one task that runs in Node. It looks often, so that tests are short."""
    app = OnCue(url)

    @app.node_task(QUEUE, redis=redis, name="resize", timeout=timeout, retry=Retry(attempts, delay=0.01))
    async def resize(image: str, width: int = 100) -> Resized:
        raise NotImplementedError

    app.providers[NodeQueues] = lambda: node_queues(None, app.node_targets, QUICK)
    return app


class Stage:
    """The application, a folder for the ledger that Node keeps, and Node."""

    def __init__(self, url: str, redis: str, folder: Path, node: Node, **options: Any) -> None:
        self.app, self.redis, self._node = make_app(url, redis, **options), redis, node
        self.ledger = folder / "ledger"
        self.ledger.touch()

    @contextlib.asynccontextmanager
    async def node(self, *, lock: int = LOCK, stalled: int = 30_000, prefix: str = "bull") -> AsyncIterator[Program]:
        """A Node worker, ready."""
        env = {"REDIS_URL": self.redis, "STALLED": str(stalled), "PREFIX": prefix}
        with self._node.start("resize.mjs", QUEUE, self.ledger, lock, env=env) as program:
            await asyncio.to_thread(program.expect, "ready")
            yield program

    def worker(self) -> contextlib.AbstractAsyncContextManager[Service]:
        """A worker in this process, which gives back at once what it can't end."""
        return self.app.worker(WorkerOptions(grace=0.2, lease=2.0))

    async def resize(self, image: str, width: int = 100, **options: Any) -> JobHandle[Any]:
        return await self.app.schedule(self.app.tasks["resize"].call(image, width), **options)

    async def job(self, handle: JobHandle[Any]) -> JobView:
        found = await self.app.jobs.get(handle.id)
        assert found is not None
        return found

    async def attempts(self, handle: JobHandle[Any]) -> list[AttemptView]:
        """The attempts before the last."""
        return await self.app.jobs.attempts(handle.id)

    async def until(self, handle: JobHandle[Any], true: Callable[[JobView], object]) -> JobView:
        """Wait for a change of the row; the test's own timeout ends a wait in vain."""
        while not true(job := await self.job(handle)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return job

    async def noted(self, what: str, times: int = 1) -> None:
        """Wait until Node has noted something so often. (What a program prints before it is ready goes unread.)"""
        while self.seen()[what] < times:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def seen(self) -> Counter[str]:
        """How often Node noted what."""
        return Counter(" ".join((line.split()[0], line.split()[2])) for line in self.ledger.read_text().splitlines())
