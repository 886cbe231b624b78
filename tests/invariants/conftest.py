"""The invariants hold on every store: the fixtures are those of the stores' own suite."""

from __future__ import annotations

import pytest

from oncue import OnCue
from tests.databases import Backend
from tests.store.conftest import backend, bench, clock, opened

__all__ = ["backend", "bench", "clock", "opened"]


@pytest.fixture
def app(backend: Backend) -> OnCue:
    """An application on the machine's clock, or the server's; no sweep comes to help."""
    return OnCue(backend.url, sweep=3600)
