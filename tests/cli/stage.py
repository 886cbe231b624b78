"""What the tests of the command line play on: a folder with an application, and the command, real or in-process."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from oncue import OnCue
from oncue.cli import main

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
"""How every face writes a time."""
_TIME = re.compile(r'"(\d{4}-\d\d-\d\dT[^"]*)"')
COMMAND = [sys.executable, "-m", "oncue"]
SECRET = "a-secret-of-some-length"
APP = """
import asyncio
import sys

from oncue import Limit, OnCue, Retry

app = OnCue()


@app.task(name="greet")
async def greet(name: str) -> str:
    return f"hello {name}"


@app.task(name="fail", retry=Retry.never())
async def fail(name: str) -> None:
    raise RuntimeError(f"no {name}")


@app.task(name="hang")
async def hang() -> None:
    print("hanging", file=sys.stderr, flush=True)
    await asyncio.sleep(3600)


@app.cron("30 2 * * *", timezone="Europe/Berlin", name="nightly")
async def nightly() -> None: ...
"""

TALK = """
from oncue import OnCue
from oncue.conversation import Keyword
from oncue.whatsapp import WhatsApp

app = OnCue()
whatsapp = WhatsApp("local-token", "1", "local-secret", "verify", url="http://127.0.0.1:9")


@app.conversation("trial", channel=whatsapp, start=Keyword("start"))
async def trial(chat):
    name = await chat.ask("name", "Who are you?")
    raise ValueError(f"no {name}")
"""
ANA = "4915700000001"
STOPPED = """
INSERT INTO oncue_channel (name, stopped, stopped_at, heard_at, disabled) VALUES
  ('whatsapp', 'the token has expired', 1, 2, '{"hello en_US": "paused for its quality", "bye de": "it is gone"}'),
  ('telegram', NULL, NULL, 2, '{}');
INSERT INTO oncue_queue (name, paused, paused_at) VALUES ('whatsapp.send', 1, 1);
"""
"""A channel that sends nothing, with two templates that were refused, and one that does."""


class Running:
    """The command as a process of its own; what it says on standard error is read line by line."""

    def __init__(self, folder: Path, environment: dict[str, str], arguments: Sequence[str]) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self, part: str) -> str:
        """Wait for a line that holds ``part``, and return it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if part in line:
                return line.rstrip()
        raise AssertionError(f"it ended with {self.process.wait()} and never said {part!r}: {''.join(self.said)}")

    def ends(self, signal: int) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(signal)
        _, rest = self.process.communicate()
        self.said.append(rest)
        return self.process.returncode

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@dataclass
class Stage:
    """A folder with ``trial.py`` and, once something made it, a database."""

    folder: Path
    environment: dict[str, str]

    @property
    def database(self) -> Path:
        return self.folder / "trial.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.database}"

    def load(self) -> dict[str, Any]:
        """The names of ``trial.py``, loaded into this process: as far as the store can tell, another one."""
        return runpy.run_path(str(self.folder / "trial.py"))

    def app(self) -> OnCue:
        """An application without tasks on the same database."""
        return OnCue(self.url)

    def here(self, *arguments: str) -> Result:
        """Run the command inside this process."""
        return CliRunner().invoke(main, list(arguments))

    def lines(self, *arguments: str) -> list[list[str]]:
        """Run a listing, which must succeed, and return the fields of its lines."""
        done = self.here(*arguments)
        assert done.exit_code == 0, done.output
        return [line.split("\t") for line in done.stdout.splitlines()]

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run the command with ``--json`` and return what it answers, in which all times have one form."""
        done = self.here(*arguments, "--json")
        assert done.exit_code == code, done.output
        assert not (wrong := [time for time in _TIME.findall(done.stdout) if not TIME.fullmatch(time)]), wrong
        return json.loads(done.stdout)

    def apart(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command as a process of its own, to its end."""
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )


def environment(database: Path) -> dict[str, str]:
    """This process's environment, with the database named."""
    return os.environ | {"DATABASE_URL": f"sqlite:///{database}"}
