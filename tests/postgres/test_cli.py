"""Every command of ``oncue`` with a PostgreSQL URL, and none of them tells the password in it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.stage import APP, Running, Stage, environment
from tests.postgres.conftest import PASSWORD, Base, on_the_newest

pytestmark = on_the_newest


@pytest.fixture
def url(base: Base, role: Callable[[], str]) -> str:
    """A URL with a password, of a role that may make its own schema and no more."""
    name = role()
    base.run(f"CREATE SCHEMA cue AUTHORIZATION {name}")
    return f"{base.url_of(name)}?schema=cue"


@pytest.fixture
def stage(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    (tmp_path / "trial.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", url)
    stage = Stage(tmp_path, environment(tmp_path / "none.db") | {"DATABASE_URL": url})
    assert stage.apart("migrate").returncode == 0
    yield stage
    assert not list(tmp_path.glob("*.db*"))


def schedule(stage: Stage) -> list[int]:
    names = stage.load()

    async def work() -> list[int]:
        async with names["app"] as app:
            past = datetime.now(UTC) - timedelta(minutes=1)
            made = [
                await app.schedule(names["greet"].call("Ana"), at=past, key="ana"),
                await app.schedule(names["fail"].call("luck"), at=past),
                await app.schedule(names["greet"].call("Bo"), delay=3600, queue="slow"),
            ]
            return [handle.id for handle in made]

    return asyncio.run(work())


def test_jobs_queues_schedules_and_upkeep(stage: Stage) -> None:
    ana, luck, bo = schedule(stage)
    told: list[str] = []

    def run(*arguments: str, code: int = 0) -> str:
        done = stage.apart(*arguments)
        told.append(done.stdout + done.stderr)
        assert done.returncode == code, told[-1]
        return done.stdout

    assert run("sweep", "trial:app").startswith("rescued 0, ")
    assert run("schedules", "list").startswith("nightly\t")
    run("schedules", "pause", "nightly")
    run("queues", "pause", "slow")
    assert "slow" in run("queues", "list")
    assert run("jobs", "run-now", str(bo))
    assert run("drain", "trial:app").startswith("ran 1, failed 1, ")
    assert run("jobs", "list", "--state", "discarded").startswith(f"{luck}\t")
    assert "RuntimeError: no luck" in run("jobs", "show", str(luck))
    run("jobs", "retry", str(luck))
    assert run("jobs", "cancel", str(luck)) == f"{luck}\tprevented\n"
    assert run("jobs", "cancel", "--key", "ana", code=1) == "ana\ttoo late\n"
    assert "completed\t1" in run("jobs", "counts")
    assert run("jobs", "list", "--key", "ana").startswith(f"{ana}\t")
    assert run("restored") == "1 job held\n"
    assert run("restored", "--list").startswith(f"{bo}\t")
    assert run("restored", "--release") == "1 job released\n"
    run("doctor", "trial:app", code=1)
    assert not any(PASSWORD in text for text in told)


@pytest.mark.parametrize("command", [["worker"], ["serve", "--port", "0"]], ids=["worker", "serve"])
def test_a_worker_says_where_it_works_without_the_password(stage: Stage, command: list[str]) -> None:
    running = Running(stage.folder, stage.environment, [command[0], "trial:app", *command[1:], "--name", "one"])
    try:
        ready = running.says("one ready")
        assert ":***@" in ready
        assert "schema=cue" in ready
        assert PASSWORD not in ready
        assert stage.apart("workers").stdout.split("\t")[1] == "one"
        assert running.ends(signal.SIGTERM) == 0
        assert not any(PASSWORD in line for line in running.said)
    finally:
        running.close()
