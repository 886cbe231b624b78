"""Applications on a database of their own: with a clock that tests move, or with the machine's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oncue import OnCue
from oncue.store.views import JobView
from tests.databases import USUAL, Backend, database
from tests.store.kit import HandClock

Make = Callable[..., OnCue]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=USUAL)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def make(backend: Backend) -> Make:
    """Makes an application on this test's database. No sweep comes to help, unless a test runs one."""

    def build(**options: Any) -> OnCue:
        options.setdefault("sweep", 3600.0)
        return OnCue(backend.url, **options)

    return build


@pytest.fixture
def app(make: Make) -> OnCue:
    return make()


@pytest.fixture
def still(make: Make, clock: HandClock) -> OnCue:
    """An application whose time stands still until the test moves ``clock``."""
    return make(clock=clock)


async def get(app: OnCue, id: int) -> JobView:
    found = await app.jobs.get(id)
    assert found is not None
    return found


async def until(app: OnCue, true: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that shows in the store: looked at after each change, so that no time is guessed."""
    changed = asyncio.Event()
    unlisten = app.wake.listen(lambda _: changed.set())
    try:
        while True:
            changed.clear()
            # A commit may be heard before it can be read: this waits for its end.
            await app.store.gone([])
            if await true():
                return
            # Where not every commit is heard, it is looked for again and again.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), None if app.wake.hears_commits else 0.02)
    finally:
        unlisten()


async def until_state(app: OnCue, id: int, state: str, attempt: int = 0) -> JobView:
    async def reached() -> bool:
        found = await get(app, id)
        return found.state == state and found.attempt >= attempt

    await until(app, reached)
    return await get(app, id)
