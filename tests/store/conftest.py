"""The stores under test. A new store joins by a branch of ``backend``; no test knows which one it has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from oncue.store import Store, open_store
from tests.store.kit import Bench, HandClock


@dataclass(frozen=True)
class Backend:
    """A database of one test: its URL, and a connection as a user would open it for a transaction of their own."""

    url: str
    connect: Callable[[], Any]


def sqlite_backend(tmp_path: Path) -> Backend:
    import sqlite3

    path = tmp_path / "jobs.db"
    return Backend(f"sqlite:///{path}", lambda: closing(sqlite3.connect(path)))


@pytest.fixture(params=["sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return {"sqlite": sqlite_backend}[request.param](tmp_path)


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
