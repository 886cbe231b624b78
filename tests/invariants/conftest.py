"""The invariants hold on every store: the fixtures are those of the stores' own suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from oncue import OnCue
from tests.store.conftest import backend, bench, clock, opened

__all__ = ["backend", "bench", "clock", "opened"]


@pytest.fixture
def app(tmp_path: Path) -> OnCue:
    """An application on the machine's clock; no sweep comes to help."""
    return OnCue(f"sqlite:///{tmp_path / 'jobs.db'}", sweep=3600)
