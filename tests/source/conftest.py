"""An open stage for each test, on SQLite and on PostgreSQL; what PostgreSQL alone has runs on the oldest too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.databases import POSTGRES, USUAL, Backend, database
from tests.source.stage import Stage


@pytest.fixture(params=USUAL)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Backend]:
    """For what only SQLite has, or what has nothing to do with the database."""
    with database("sqlite", tmp_path) as made:
        yield made


@pytest.fixture(params=POSTGRES)
def postgres(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """For what only PostgreSQL has."""
    with database(request.param, tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def stage(backend: Backend) -> AsyncIterator[Stage]:
    """A stage whose application is open; its source is declared by the test."""
    made = Stage(backend)
    async with made.app:
        yield made
    made.db.close()
