"""An application that adopts the queue of a trial's messages, and the producers in Node that fill it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import redis

from oncue import NodeJob, OnCue, Retry, Scheduled
from oncue.bridge import adopters, end
from oncue.bridge.adopt import Adopter
from oncue.store.views import JobView
from oncue.task import Call
from tests import valkey
from tests.databases import KINDS
from tests.nodejs import Program

# Each database, and each of Redis and Valkey, at least once.
SERVERS = ("given",) if os.environ.get("TEST_REDIS_URL") else valkey.KINDS
PAIRS = list(zip(KINDS, itertools.cycle(SERVERS)))
ONE = pytest.mark.parametrize("redis_url", SERVERS[:1], indirect=True)
QUEUE = "messageQueue"


class Producer:
    """A program of Node that does to queues what it is told."""

    def __init__(self, program: Program, url: str) -> None:
        self._program, self._url = program, url

    async def ask(self, action: str, *args: Any, queue: str = QUEUE) -> Any:
        """Have something done, and return Node's answer."""

        def talk() -> str:
            self._program.tell(json.dumps([self._url, queue, action, *args]))
            return self._program.expect("done")

        return json.loads(await asyncio.to_thread(talk))

    async def add(self, *jobs: tuple[str, Any, dict[str, Any]], queue: str = QUEUE) -> list[str]:
        """Add jobs (name, data, options), and return their ids."""
        return [one["id"] for one in await self.ask("add", jobs, queue=queue)]

    async def left(self) -> dict[str, int]:
        """How many jobs are in which of BullMQ's states, without those that nothing is in."""
        return {state: count for state, count in (await self.ask("states")).items() if count}


def question(trial: str, **options: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A question to add, due in an hour unless the options say otherwise."""
    return "send-question", {"trialId": trial, "messageType": "question"}, {"delay": 3_600_000, **options}


class Trial:
    """The application, what it has sent, and the jobs that it was asked about."""

    def __init__(self, database: str, redis_url: str, *, max_attempts: int = 5, **options: Any) -> None:
        self.app = OnCue(database, **options)
        self.redis_url = redis_url
        self.sent: list[str] = []
        self.seen: list[NodeJob] = []
        self.gate: asyncio.Event | None = None
        self.ledger: Path | None = None
        self.begun = asyncio.Event()
        self.wanted: Callable[[NodeJob], bool] = lambda job: True
        self._news = asyncio.Condition()
        self._roles: list[Adopter] = []

        @self.app.task(name="send_question", retry=Retry(max_attempts))
        async def send_question(trial_id: str) -> None:
            self.begun.set()
            if self.gate is not None:
                await self.gate.wait()
            if self.ledger is not None:
                with self.ledger.open("ab", buffering=0) as file:
                    file.write(f"{trial_id}\n".encode())
            async with self._news:
                self.sent.append(trial_id)
                self._news.notify_all()

        @self.app.adopt(QUEUE, redis=redis_url)
        def choose(job: NodeJob) -> Call[Any] | Scheduled | None:
            self.seen.append(job)
            if not self.wanted(job) or "question" not in (job.data.get("messageType"), job.data.get("type")):
                return None
            if "key" in job.data:
                return Scheduled(send_question.call(job.data["trialId"]), key=job.data["key"])
            return send_question.call(job.data["trialId"])

    async def wait_sent(self, count: int) -> list[str]:
        """Wait until so many questions were sent, and return them."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.sent) >= count)
        return self.sent

    def adopter(self) -> Adopter:
        """What adopts, to be run by hand; one more for each call."""
        (made,) = adopters(self.app)
        self._roles.append(made)
        return made

    async def __aenter__(self) -> Self:
        await self.app.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for role in self._roles:
            await role.close()
        await self.app.close()

    @contextlib.asynccontextmanager
    async def running(self, count: int = 1) -> AsyncIterator[list[Adopter]]:
        """Adopters that work, and have looked through the queue."""
        roles = [self.adopter() for _ in range(count)]
        tasks = [asyncio.create_task(one.run()) for one in roles]
        try:
            await asyncio.gather(*(one.scanned.wait() for one in roles))
            yield roles
        finally:
            await end(tasks)

    async def jobs(self, **filters: Any) -> list[JobView]:
        return sorted(await self.app.jobs.list(limit=1000, **filters), key=lambda job: job.id)

    async def stored(self, count: int) -> list[JobView]:
        """Wait until so many jobs are in the database, and return them; the test's own timeout ends a wait in vain."""
        while len(found := await self.jobs()) < count:  # noqa: ASYNC110 - rows send no signal
            await asyncio.sleep(0.01)
        return found

    async def adopted(self, count: int) -> None:
        """Wait until so many jobs were stored and taken out of BullMQ too, which comes later, by this application."""
        (adoption,) = self.app.adoptions.values()
        while adoption.counts.adopted < count:  # noqa: ASYNC110 - counts send no signal
            await asyncio.sleep(0.01)

    def client(self) -> redis.Redis:
        """A connection to look, and to break things with."""
        return redis.Redis.from_url(self.redis_url, decode_responses=True)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()
