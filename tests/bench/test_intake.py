"""The benchmark of the intake, in its smallest size: every update is taken, and all that it brings is there."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest

from bench import intake
from tests.databases import NEWEST

STORES = ("sqlite", *("postgres" for _ in NEWEST[:1]))


@pytest.mark.parametrize("store", STORES)
def test_nothing_that_was_sent_is_missing(store: str, tmp_path: Path) -> None:
    sizes = ["--singles", "6", "--batches", "2", "--batch", "3", "--rate", "200"]
    with patch("sys.argv", ["bench.intake", "--store", store, *sizes, "--out", str(tmp_path)]):
        assert intake.main() == 0
    found = json.loads((tmp_path / f"intake-{store}.json").read_text())
    assert found["found"] == {"updates": 8, "messages": 12, "handled": 12, "statuses": 6, "conversations": 12}
    assert {kind: one["answers"] for kind, one in found["kinds"].items()} == {"single": {"200": 6}, "batch": {"200": 2}}
    assert "| one message | 6 | 200: 6 |" in (tmp_path / f"intake-{store}.md").read_text()
