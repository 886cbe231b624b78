"""Each test of this folder has a database, a Redis, and a program of Node that adds jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adopt.stage import Producer
from tests.databases import Backend, database
from tests.nodejs import Node, Program


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with database(getattr(request, "param", "sqlite"), tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def program(node: Node) -> Iterator[Program]:
    """A program of Node that adds jobs to any server."""
    with node.start("producer.mjs") as started:
        started.expect("ready")
        yield started


@pytest.fixture
def producer(program: Program, redis_url: str) -> Producer:
    return Producer(program, redis_url)
