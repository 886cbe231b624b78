"""The benchmark of the operator's view, in its smallest size: it loses nothing, and its page is a live one."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest

from bench import operator
from tests.databases import NEWEST

STORES = ("sqlite", *("postgres" for _ in NEWEST[:1]))


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
def test_every_way_runs_all_jobs_once_and_the_page_reads(store: str, tmp_path: Path) -> None:
    sizes = ["--jobs", "300", "--runs", "1", "--idle", "0.2", "--settle", "0"]
    command = ["bench.operator", "--store", store, *sizes, "--out", str(tmp_path)]
    with patch("sys.argv", command):
        operator.main()
    found = json.loads((tmp_path / f"operator-{store}.json").read_text())
    assert list(found["drains"]) == list(operator.WAYS)
    for way, (run,) in found["drains"].items():
        counts = {name: run[name] for name in ("missing", "doubled", "left", "completed")}
        assert counts == {"missing": 0, "doubled": 0, "left": 0, "completed": 300}, way
        assert (run["asked"] is not None) == (way == "watched")
    for asked in (found["drains"]["watched"][0]["asked"], found["idle"]["asked"]):
        assert set(asked) == {f"/api/{path}" for path in ("me", "tasks", "overview", "events", "jobs")}
    assert set(found["idle"]["cpu_s"]) == {"worker", "serve"}
    table = (tmp_path / f"operator-{store}.md").read_text()
    assert all(what in table for what in operator.WAYS.values())
