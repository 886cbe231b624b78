"""The benchmark of pages, in its smallest size: every filter finds what it should."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest

from bench import pages
from tests.databases import NEWEST

STORES = ("sqlite", *("postgres" for _ in NEWEST[:1]))


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
def test_every_filter_finds_what_there_is(store: str, tmp_path: Path) -> None:
    sizes = ["--jobs", "80", "--asked", "1", "--settle", "0"]
    with patch("sys.argv", ["bench.pages", "--store", store, *sizes, "--out", str(tmp_path)]):
        pages.main()
    found = json.loads((tmp_path / f"pages-{store}.json").read_text())
    items = {tuple(one["params"].items()): one["items"] for one in found["pages"] if one["path"] == "jobs"}
    assert {name: items[(name,)] for name in (("state", "completed"), ("state", "scheduled"), ("state", "late"))} == {
        ("state", "completed"): 40, ("state", "scheduled"): 40, ("state", "late"): 0,
    }  # fmt: skip
    assert (items[()], items[(("task", "noop"),)], items[(("group", "person-7"),)]) == (50, 50, 2)
    assert {one["path"] for one in found["pages"]} >= {"jobs/20", "jobs/79", "overview", "checks"}
    assert "jobs?group=person-7" in (tmp_path / f"pages-{store}.md").read_text()
