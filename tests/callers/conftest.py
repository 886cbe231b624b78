"""An application on PostgreSQL, callers of every kind, and an ear on the channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from oncue import OnCue
from tests import databases
from tests.callers.kinds import KINDS, Caller

CHANNEL = "oncue_oncue"


@pytest.fixture(params=databases.NEWEST)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with OnCue's tables, and a table of the caller's."""
    with databases.database(request.param, tmp_path) as made:
        with made.connect() as conn:
            conn.execute("CREATE TABLE mine (x integer)")
        yield made.url


def make_app(url: str) -> OnCue:
    """An application with a task."""
    app = OnCue(url)

    @app.task(name="work")
    async def work(token: str = "") -> None: ...

    return app


@pytest.fixture
async def app(url: str) -> AsyncIterator[OnCue]:
    async with make_app(url) as made:
        yield made


Opened = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def opened(app: OnCue, url: str, kind: str) -> AsyncIterator[Callable[..., Any]]:
    """Opens another connection of this kind."""
    async with AsyncExitStack() as stack:

        async def open_one(*, autocommit: bool = False, at: str = url) -> Caller:
            caller: Caller = await stack.enter_async_context(KINDS[kind](app, at, autocommit))
            return caller

        yield open_one


@pytest.fixture
async def caller(opened: Callable[..., Any]) -> Caller:
    made: Caller = await opened()
    return made


class Ear:
    """What a connection hears that listens on OnCue's channel."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._heard: asyncio.Queue[str] = asyncio.Queue()

    async def open(self) -> None:
        await self._connection.add_listener(CHANNEL, lambda *args: self._heard.put_nowait(args[3]))

    async def heard(self) -> list[str]:
        """What was sent since this was asked last. Notifications come in the order of commits, so ours is the last."""
        await self._connection.execute(f"SELECT pg_notify('{CHANNEL}', 'probe:end')")
        heard: list[str] = []
        while (one := await asyncio.wait_for(self._heard.get(), 30)) != "probe:end":
            if not one.startswith("probe:"):
                heard.append(one)
        return heard


@pytest.fixture
async def ear(url: str, app: OnCue) -> AsyncIterator[Ear]:
    connection = await asyncpg.connect(url)
    made = Ear(connection)
    await made.open()
    yield made
    await connection.close()
