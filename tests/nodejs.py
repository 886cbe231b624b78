"""Node for tests: scripts in tests/node/ with the npm package `bullmq`, as programs of others use it.

`node` installs the package once, where it isn't installed yet; pytest's processes wait for each other:

    def test_it(node: Node, redis_url: str) -> None:
        said = node.run("add.mjs", "messageQueue", env={"REDIS_URL": redis_url}, given="[...]")  # what it printed
        with node.start("worker.mjs", "images", env={"REDIS_URL": redis_url}) as program:
            program.expect("ready")  # the first line that begins so
            program.kill()

Scripts find the server by ``import { connection } from "./connection.mjs"``, which reads REDIS_URL. In a coroutine
use `run` and `expect` by `asyncio.to_thread`. Without Node the tests are skipped, and the end of pytest's output says
so.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "node"
NODE, NPM = shutil.which("node"), shutil.which("npm")
MISSING = " and ".join(name for name, found in (("node", NODE), ("npm", NPM)) if found is None)

INSTALL_SECONDS = 100.0
RUN_SECONDS = 60.0


@dataclass(frozen=True)
class Program:
    """A script that runs."""

    process: subprocess.Popen[str]

    def expect(self, beginning: str) -> str:
        """Wait for a line that begins so, and return the rest of it. Raises AssertionError when it ends before."""
        assert self.process.stdout is not None
        before: list[str] = []
        for line in self.process.stdout:
            if line.startswith(beginning):
                return line.removeprefix(beginning).strip()
            before.append(line)
        raise AssertionError(f"{self.process.args!r} ended without a line {beginning!r}; it said:\n{''.join(before)}")

    def tell(self, line: str) -> None:
        """Give it a line to read."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def signal(self, number: Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it by SIGKILL, and wait until it is gone."""
        self.signal(SIGKILL)
        self.process.wait()


class Node:
    """Runs scripts of tests/node/."""

    def run(self, script: str, *args: object, env: Mapping[str, str] | None = None, given: str = "") -> str:
        """Run a script to its end, with ``given`` as its input, and return what it printed."""
        done = subprocess.run(
            self._command(script, args),
            env=os.environ | dict(env or {}),
            input=given,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        assert done.returncode == 0, f"{script} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def add(self, redis_url: str, queue: str, *jobs: tuple[str, Any, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Add jobs (name, data, options) to a queue, one after the other; return the id and timestamp of each."""
        said = self.run("add.mjs", queue, env={"REDIS_URL": redis_url}, given=json.dumps(jobs))
        return [json.loads(line) for line in said.splitlines()]

    @contextlib.contextmanager
    def start(self, script: str, *args: object, env: Mapping[str, str] | None = None) -> Iterator[Program]:
        """Run a script until the block ends; its errors come among the lines that it prints."""
        with subprocess.Popen(
            self._command(script, args),
            env=os.environ | dict(env or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield Program(process)
            finally:
                process.kill()

    @staticmethod
    def _command(script: str, args: tuple[object, ...]) -> list[str]:
        return [str(NODE), str(FOLDER / script), *map(str, args)]


@pytest.fixture(scope="session")
def node() -> Node:
    """Node, with what tests/node/package.json asks for."""
    if MISSING:
        pytest.skip(f"no {MISSING} here: Debian's packages nodejs and npm, or another Node of version 20 or later")
    install()
    return Node()


def install() -> None:
    """Install what tests/node/package.json asks for, unless it is there."""
    with (FOLDER / ".install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _installed():
            done = subprocess.run(
                [str(NPM), "install", "--no-audit", "--no-fund", "--loglevel=error"],
                cwd=FOLDER,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
            )
            if done.returncode or not _installed():
                pytest.fail(f"`npm install` failed in {FOLDER}:\n{done.stdout}\n{done.stderr}")


def _installed() -> bool:
    asked = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    for name, version in asked.items():
        # npm writes this last, when every package is in place.
        listed = FOLDER / "node_modules" / ".package-lock.json"
        if not listed.exists():
            return False
        if json.loads(listed.read_text())["packages"].get(f"node_modules/{name}", {}).get("version") != version:
            return False
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud that nothing was tested with Node."""
    if MISSING:
        terminalreporter.section("Node", yellow=True, bold=True)
        terminalreporter.line(
            f"WARNING: not installed: {MISSING}. So nothing was tested with BullMQ for Node. "
            "Debian's packages nodejs and npm bring it.",
            yellow=True,
        )
