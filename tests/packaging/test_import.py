"""`import oncue` stays light: it is paid by every process, every test and every serverless start."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("click", "rich", "starlette", "uvicorn", "httpx", "asyncpg", "redis", "bullmq", "prometheus_client", "pytest")


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE", "COV_"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    names = set(done.stdout.split())
    return names | {name.partition(".")[0] for name in names}


def test_import_oncue_loads_no_driver_and_no_command_line() -> None:
    loaded = modules_after("import oncue")
    assert "oncue" in loaded
    assert not loaded.intersection(HEAVY)


def test_whoever_looks_at_jobs_loads_nothing_of_conversations() -> None:
    """Each command of the shell would pay for it."""
    loaded = modules_after("import oncue; from oncue.operate import Operator; Operator(oncue.OnCue(), 'me')")
    assert "oncue.operate.operator" in loaded
    assert "oncue.conversation" not in loaded


@pytest.mark.parametrize("module", ["click", "httpx", "rich", "starlette"])
def test_the_measure_sees_what_is_imported(module: str) -> None:
    assert module in modules_after(f"import {module}")
