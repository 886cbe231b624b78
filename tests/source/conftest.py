"""An open stage for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.source.stage import Stage


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage whose application is open; its source is declared by the test."""
    made = Stage(tmp_path / "trial.db")
    async with made.app:
        yield made
    made.db.close()
