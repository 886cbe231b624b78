"""The stores under test; no test knows which one it has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from oncue.store import Store, open_store
from tests.databases import KINDS, Backend, database
from tests.store.kit import Bench, HandClock


@pytest.fixture(params=KINDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def opened(backend: Backend, clock: HandClock) -> AsyncIterator[Callable[[], Awaitable[Store]]]:
    """Opens the same database once more: another process, as far as the store can tell."""
    async with AsyncExitStack() as stack:

        async def open_another() -> Store:
            store = open_store(backend.url, clock)
            await store.open()
            stack.push_async_callback(store.close)
            return store

        yield open_another


@pytest.fixture
async def bench(opened: Callable[[], Awaitable[Store]], clock: HandClock) -> AsyncIterator[Bench]:
    made = Bench(await opened(), clock)
    yield made
    for life in made.lives.values():
        life.release()
