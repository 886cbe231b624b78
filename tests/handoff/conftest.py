"""A stage for each test of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import Backend, database
from tests.handoff.stage import Stage
from tests.nodejs import Node


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with database(getattr(request, "param", "sqlite"), tmp_path) as made:
        yield made


@pytest.fixture
def stage(backend: Backend, redis_url: str, tmp_path: Path, node: Node) -> Stage:
    return Stage(backend.url, redis_url, tmp_path, node)
