"""What takes long says on a terminal how far it is, and in a pipe nothing."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.cli.stage import COMMAND, Stage

HOLD = """
@app.task(name="hold")
def hold(gate: str) -> None:
    print("said by a handler", flush=True)
    open(gate).close()
"""
UNSEEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Watched:
    """A command whose standard error is a terminal, and its standard output a pipe."""

    def __init__(self, process: subprocess.Popen[str], terminal: int) -> None:
        self.process, self._terminal, self.shown = process, terminal, ""

    def shows(self, part: str) -> None:
        """Wait until the terminal has shown it."""
        while part not in self.shown:
            read = _read(self._terminal)
            assert read, f"it ended and never showed {part!r}: {self.shown}"
            self.shown = UNSEEN.sub("", self.shown + read.decode())

    def ends(self) -> str:
        """Wait for a good end, and return what went into the pipe."""
        while read := _read(self._terminal):
            self.shown = UNSEEN.sub("", self.shown + read.decode(errors="replace"))
        assert self.process.stdout is not None
        said = self.process.stdout.read()
        assert self.process.wait() == 0, self.shown
        return said


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the other side has closed
        return b""


@contextmanager
def watched(stage: Stage, *arguments: str) -> Iterator[Watched]:
    ours, theirs = pty.openpty()
    environment = stage.environment | {"COLUMNS": "100", "TERM": "xterm"}
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=stage.folder, env=environment, stderr=theirs, stdout=subprocess.PIPE, text=True
    ) as process:
        os.close(theirs)
        try:
            yield Watched(process, ours)
        finally:
            process.kill()
            os.close(ours)


@contextmanager
def locked(database: Path) -> Iterator[sqlite3.Connection]:
    """Keep everybody else from writing, until a commit."""
    with closing(sqlite3.connect(database, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("BEGIN IMMEDIATE")
        yield conn


@pytest.fixture
def held(stage: Stage) -> Path:
    """Three jobs that end at once, and one that ends when somebody opens the gate."""
    (stage.folder / "trial.py").write_text((stage.folder / "trial.py").read_text() + HOLD)
    gate = stage.folder / "gate"
    os.mkfifo(gate)
    names = stage.load()

    async def fill() -> None:
        async with names["app"] as app:
            await app.schedule(names["fail"].call("Ana"))
            await app.schedule(names["greet"].call("Bo"))
            await app.schedule(names["greet"].call("Cy"))
            await app.schedule(names["hold"].call(str(gate)))

    asyncio.run(fill())
    return gate


def test_a_drain_tells_how_many_jobs_are_done(stage: Stage, held: Path) -> None:
    with watched(stage, "drain", "trial:app", "--json") as drain:
        drain.shows("doing jobs")
        drain.shows("3/4")
        held.open("w").close()
        said = drain.ends()
    # What was printed by others stays where they printed it.
    assert said.startswith('said by a handler\n{\n  "ran": 3,\n  "failed": 1,')
    assert "job 1 (fail) discarded" in drain.shown


def test_a_drain_that_may_take_few_jobs_counts_up_to_those(stage: Stage, held: Path) -> None:
    names = stage.load()

    async def more() -> None:
        async with names["app"] as app:
            await app.schedule(names["greet"].call("Di"))

    asyncio.run(more())
    with watched(stage, "drain", "trial:app", "--limit", "4") as drain:
        drain.shows("3/4")
        held.open("w").close()
        assert "ran 3, failed 1, skipped 0, remaining 1" in drain.ends()


@pytest.mark.parametrize(
    ("arguments", "text", "said"),
    [
        (["migrate"], "migrating", "nothing to do"),
        (["sweep", "trial:app"], "sweeping", "rescued 0, "),
        (["restored"], "holding", "0 jobs held"),
        (["restored", "--release"], "letting go", "0 jobs released"),
    ],
    ids=["migrate", "sweep", "restored", "release"],
)
def test_what_waits_for_the_database_says_that_it_goes_on(
    stage: Stage, arguments: list[str], text: str, said: str
) -> None:
    assert stage.here("migrate").exit_code == 0
    with locked(stage.database) as conn, watched(stage, *arguments) as command:
        command.shows(text)
        conn.execute("COMMIT")
        assert said in command.ends()


def test_a_migration_counts_its_steps(stage: Stage) -> None:
    with locked(stage.database) as conn, watched(stage, "migrate") as command:
        command.shows("migrating")
        command.shows("0/")
        conn.execute("COMMIT")
        assert "migrated from version 0 to" in command.ends()


def test_a_pipe_gets_no_bar(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.cli.progress._QUICK", 0)
    for arguments in (["migrate"], ["sweep", "trial:app"], ["restored", "--release"], ["drain", "trial:app"]):
        done = stage.here(*arguments)
        assert (done.exit_code, done.stderr) == (0, ""), arguments
