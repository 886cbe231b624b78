"""An open application on SQLite and on PostgreSQL, with a clock that stands still, and an operator who looks at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from oncue import OnCue, Retry
from oncue.clock import SECOND
from oncue.operate import Operator
from oncue.store import Claim, WorkerRow
from oncue.testing import TestClock
from tests.databases import USUAL, Backend, database


@pytest.fixture(params=USUAL)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


def declare(app: OnCue) -> OnCue:
    """Tasks that work, fail and come back."""

    @app.task(name="note")
    async def note(text: str = "", phone: str = "") -> str:
        return text

    @app.task(name="fail", retry=Retry.never())
    async def fail(text: str = "") -> None:
        raise ValueError(f"broken {text}")

    @app.task(name="again", retry=Retry(max_attempts=3))
    async def again() -> None:
        raise ValueError("not yet")

    return app


@pytest.fixture
async def app(backend: Backend, clock: TestClock) -> AsyncIterator[OnCue]:
    made = declare(OnCue(backend.url, clock=clock))
    async with made:
        yield made


@pytest.fixture
def operator(app: OnCue) -> Operator:
    return Operator(app, "cli:ana")


async def claimed_elsewhere(app: OnCue, count: int) -> None:
    """Have a worker that is elsewhere take due jobs."""
    now = app.clock.now()
    worker, _ = await app.store.register(WorkerRow(0, "w", "elsewhere", 1, None, now, now, now + 60 * SECOND))
    found = await app.store.claim(Claim(worker, now, now, 60 * SECOND, count))
    assert len(found.jobs) == count
