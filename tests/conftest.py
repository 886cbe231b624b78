"""What every test shares: no settings of this machine leak in, and hypothesis has no deadline of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent

pytest_plugins = ["tests.pg", "tests.pgfaults", "tests.valkey", "tests.nodejs", "tests.browser"]

for name in ("DATABASE_URL", "REDIS_URL", "CRON_SECRET"):
    os.environ.pop(name, None)

# Two cores are shared by many tests: an example may be slow through no fault of its own.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of a folder by its name, so that `-m "not crash"` needs nothing in the tests."""
    for item in items:
        room = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
        if room in {"crash", "packaging", "docs"}:
            item.add_marker(room)
