"""A folder with an application, which the command is run in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.stage import APP, Running, Stage, environment

Start = Callable[..., Running]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    (tmp_path / "trial.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'trial.db'}")
    # The module belongs to this folder: neither a test before nor one after may see it.
    before = sys.modules.pop("trial", None)
    yield Stage(tmp_path, environment(tmp_path / "trial.db"))
    sys.modules.pop("trial", None)
    if before is not None:
        sys.modules["trial"] = before


@pytest.fixture
def start(stage: Stage) -> Iterator[Start]:
    """Starts the command as a process, and ends it with the test."""
    started: list[Running] = []

    def begin(*arguments: str, **variables: str) -> Running:
        started.append(Running(stage.folder, stage.environment | variables, arguments))
        return started[-1]

    yield begin
    for one in started:
        one.close()
