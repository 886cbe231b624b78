"""Applications on a database of their own, with a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oncue import OnCue
from oncue.testing import TestClock
from tests.databases import USUAL, Backend, database

Make = Callable[..., OnCue]


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(params=USUAL)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def make(backend: Backend, clock: TestClock) -> Make:
    """Makes an application on this test's database. No sweep comes to help, unless a test runs one."""

    def build(**options: Any) -> OnCue:
        options.setdefault("sweep", 3600.0)
        return OnCue(backend.url, clock=clock, **options)

    return build


@pytest.fixture
def app(make: Make) -> OnCue:
    return make()
