"""`make` says what there is, and set-up on a wrong machine ends in one clear line."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = ("demo", "test", "lint", "types", "bench", "docs", "soak", "lock", "clean")


def fake_python(folder: Path, version: str) -> Path:
    """A Python of that version without ensurepip, as Debian has it before python3-venv is installed."""
    fake = folder / "python-fake"
    fake.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; *) echo {version} ;; esac\n')
    fake.chmod(0o755)
    return fake


def set_up(python: str | Path, folder: Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(ROOT / ".ci" / "venv"), str(python), str(folder / "venv"), "requirements/dev.txt"]
    environment = os.environ | ({"PATH": path} if path else {})
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_make_lists_each_target_with_a_line() -> None:
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    for target in TARGETS:
        assert re.search(rf"^make {target} +\w.+$", done.stdout, re.M), target


@pytest.mark.parametrize("version", ["3.10", "3.15", "2.7"])
def test_a_python_of_the_wrong_version_is_refused(version: str, tmp_path: Path) -> None:
    done = set_up(fake_python(tmp_path, version), tmp_path)
    assert done.returncode == 1
    assert f"needs Python 3.11 to 3.14, and '{tmp_path}/python-fake' is {version}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_python_is_named(tmp_path: Path) -> None:
    done = set_up("python-that-is-not-here", tmp_path)
    assert done.returncode == 1
    assert "there is no 'python-that-is-not-here' here" in done.stderr


def test_without_the_means_to_install_the_remedy_is_said(tmp_path: Path) -> None:
    tools = tmp_path / "bin"  # id and nothing else: there is no apt-get on this machine
    tools.mkdir()
    (tools / "id").symlink_to("/usr/bin/id")
    done = set_up(fake_python(tmp_path, "3.12"), tmp_path, path=str(tools))
    assert done.returncode == 1
    assert "Run: sudo apt-get install -y python3.12-venv" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_the_environment_of_another_tree_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "venv").symlink_to(other)
    done = set_up(fake_python(tmp_path, "3.12"), tmp_path)
    assert done.returncode == 1
    assert f"is a link to {other}" in done.stderr
    assert not list(other.iterdir())


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert script.startswith("#!/usr/bin/env bash\n")
    assert script.rstrip().endswith("make test")
    assert "make test" in (ROOT / "README.md").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
