"""Runs a Markdown page from top to bottom in a temporary folder: `python -m tests.docs.page README.md`.

It is a process of its own, so that a page can neither see nor spoil the tests. Exit code 1: something on it isn't so.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextlib
import doctest
import inspect
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from pathlib import Path
from queue import Empty, Queue

from tests import pg
from tests.docs.snippets import ALONE, BadPage, Block, commands, read, ready_text, with_free_ports
from tests.nodejs import FOLDER, install
from tests.valkey import VALKEY, Server

COMMAND_SECONDS = 120
READY_SECONDS = 60
STOP_SECONDS = 20
_SHOWN = 60


def prepare_environment() -> None:
    """Put the project's own commands first, and take away settings that a reader wouldn't have."""
    for name in ("DATABASE_URL", "REDIS_URL", "CRON_SECRET"):
        os.environ.pop(name, None)
    folders = [Path(sys.executable).parent, *([bin] if (bin := pg.wheel_bin()) else []), os.environ["PATH"]]
    os.environ["PATH"] = os.pathsep.join(map(str, folders))
    os.environ["PYTHONUNBUFFERED"] = "1"


class Started:
    """A long-running command of the page: it has said that it is ready, and runs until the page ends."""

    def __init__(self, block: Block, command: str) -> None:
        self.block = block
        self.lines: list[str] = []
        self._queue: Queue[str | None] = Queue()
        self.process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        self._wait_for(ready_text(block))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line)
        self._queue.put(None)

    def _wait_for(self, text: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not (self.lines and text in self.lines[-1]):
            try:
                line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                line = None
            if line is None:
                self.kill()
                raise BadPage(f"{self.block.where}: it never printed {text!r}, but:\n{''.join(self.lines)}")
            self.lines.append(line)

    def said(self) -> list[str]:
        """Return all that it has printed, once it has ended."""
        with contextlib.suppress(Empty):
            while (line := self._queue.get(timeout=STOP_SECONDS)) is not None:
                self.lines.append(line)
        return self.lines

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ask it to stop, as a supervisor would; it must, and without an error."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BadPage(f"{self.block.where}: it did not stop within {STOP_SECONDS} s of SIGTERM") from None
        if code not in {0, -signal.SIGTERM, 128 + signal.SIGTERM}:
            raise BadPage(f"{self.block.where}: it ended with code {code}:\n{''.join(self.lines)}")


class Page:
    """The namespace, the event loop and the started commands that the blocks of one page share."""

    def __init__(self, runner: asyncio.Runner) -> None:
        # A real module, since annotations are resolved and tasks are named through it.
        self.module = types.ModuleType("page")
        # `exec` adds this by itself, but an awaiting block is no `exec`, and C code that imports looks for it.
        vars(self.module)["__builtins__"] = builtins
        sys.modules["page"] = self.module
        self.runner = runner
        self.started: list[Started] = []
        # Their server ends with this process.
        self.databases = contextlib.ExitStack()

    def do(self, block: Block) -> None:
        """Do what a block says. Raises whatever shows that it isn't so."""
        if block.verb == "postgres":
            os.environ["DATABASE_URL"] = self.databases.enter_context(pg.running().database()).dsn
        elif block.verb == "redis":
            os.environ["REDIS_URL"] = self.databases.enter_context(Server(VALKEY)).url
        elif block.verb == "node":
            install()
            Path("node_modules").symlink_to(FOLDER / "node_modules")
        elif block.verb == "stop":
            self.stop()
        elif block.verb == "file":
            Path(block.argument).parent.mkdir(parents=True, exist_ok=True)
            Path(block.argument).write_text(block.text + "\n", encoding="utf-8")
        elif block.language == "python":
            self._python(block)
        elif block.verb == "starts":
            pairs = commands(block) if block.language == "console" else [(block.text, "")]
            self.started += [Started(block, command) for command, _ in pairs]
        elif block.verb == "run" and block.language == "bash":
            self._command(block, block.text, "")
        elif block.verb == "run":
            for command, shown in commands(block):
                self._command(block, command, shown)

    def stop(self) -> None:
        """Stop what was started, the latest first. Raises BadPage for what doesn't end, or ends with an error."""
        while self.started:
            self.started.pop().stop()

    def _python(self, block: Block) -> None:
        # The empty lines make tracebacks point into the page.
        source = "\n" * (block.line - (block.verb == "setup")) + block.text
        code = compile(source, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if block.verb == "skip":
            return
        if code.co_flags & inspect.CO_COROUTINE:
            self.runner.run(_awaited(types.FunctionType(code, vars(self.module))))
        else:
            exec(code, vars(self.module))

    def _command(self, block: Block, command: str, shown: str) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        if done.returncode:
            raise BadPage(f"{block.where}: `{command}` ended with code {done.returncode}:\n{done.stdout}")
        options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if shown and not doctest.OutputChecker().check_output(shown + "\n", done.stdout, options):
            raise BadPage(f"{block.where}: `{command}` printed\n{done.stdout}\nbut the page shows\n{shown}")


async def _awaited(function: types.FunctionType) -> None:
    await function()


def run(page: Path) -> int:
    """Run a page in a new temporary folder; return how many blocks were run."""
    blocks = with_free_ports(read(page.resolve()))
    prepare_environment()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), asyncio.Runner() as runner:
        sys.path.insert(0, folder)
        state = Page(runner)
        try:
            for block in blocks:
                state.do(block)
            state.stop()
        except Exception:
            for left in state.started:
                left.kill()
                print(f"{left.block.where} said:\n{''.join(left.said()[-_SHOWN:])}", file=sys.stderr)
            raise
        finally:
            for left in state.started:
                left.kill()
            state.databases.close()
    return sum(block.verb not in {"skip", *ALONE} for block in blocks)


def main() -> None:
    """Run the pages that the command line names."""
    # What was started is in sessions of its own, and would outlive a runner that is just ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for name in sys.argv[1:]:
        try:
            print(f"{name}: {run(Path(name))} blocks run")
        except BadPage as problem:
            sys.exit(str(problem))


if __name__ == "__main__":
    main()
