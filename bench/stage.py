"""A peer's stage: a clean folder and server, its commands, its worker, the far jobs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import tools
from bench.peers import Spec
from bench.process import Program, Valkey

_FAR_DELAY_S = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; ``--quick`` takes less and the table says so."""

    runs: int = 3
    late_jobs: int = 1000
    drain_jobs: int = 20_000
    bulk_jobs: int = 20_000
    enqueue_rounds: int = 10
    idle_s: float = 180.0
    settle_s: float = 8.0
    crash_jobs: int = 100
    crash_cap_s: float = 30.0


QUICK = Sizes(runs=1, drain_jobs=5_000, enqueue_rounds=5, idle_s=60.0)


class Bench:
    """One peer on its stage, with ``far`` jobs pending that are due in a month."""

    def __init__(self, spec: Spec, work_folder: Path, far: int = 0) -> None:
        self.spec = spec
        self.far = far
        self.label = f"{spec.name} + {far:,} far" if far else spec.name
        self.directory = work_folder / (f"{spec.name}-far" if far else spec.name)
        self._template = work_folder / f"{spec.name}-template"
        self.far_seconds: float | None = None
        self._interpreter = self._find_interpreter()
        self._server: Valkey | None = None
        shutil.rmtree(self._template, ignore_errors=True)
        if spec.redis:
            self._server = Valkey(tools.valkey_server(), work_folder / f"{spec.name}-valkey")

    def _find_interpreter(self) -> str:
        finders = {"own": tools.own_python, "peers": tools.peers_python, "node": tools.node}
        if self.spec.name == "asyncio":
            return sys.executable
        return finders[self.spec.runtime]()

    def _environment(self, **more: str | None) -> dict[str, str]:
        environment = {**os.environ, "BENCH_DIR": str(self.directory), "PYTHONPATH": str(tools.ROOT)}
        for name in ("DATABASE_URL", "REDIS_URL", "CRON_SECRET"):
            environment.pop(name, None)
        if self._server:
            environment["BENCH_REDIS_URL"] = self._server.url
        return environment | {name: value for name, value in more.items() if value is not None}

    def _program(self) -> list[str]:
        if self.spec.runtime == "node":
            return [self._interpreter, self.spec.program]
        return [self._interpreter, "-m", self.spec.program]

    def ask(self, operation: str, **options: Any) -> Any:
        """Let the peer's program carry out one operation and return its answer."""
        return self._ask(operation, options, {})

    def _ask(self, operation: str, options: dict[str, Any], more: dict[str, str | None]) -> Any:
        command = [*self._program(), operation, json.dumps(options)]
        environment = self._environment(**more)
        done = subprocess.run(command, env=environment, cwd=tools.ROOT, capture_output=True, text=True, timeout=900)
        if done.returncode != 0:
            raise RuntimeError(f"{self.label}: {operation} failed:\n{(done.stdout + done.stderr)[-2000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def fresh(self) -> None:
        """An empty folder and server, with the far jobs if there are any."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._server:
            self._server.command("FLUSHALL")
        if self.far:
            if not self._template.exists():
                self._make_template()
            shutil.copytree(self._template, self.directory)
        else:
            self.directory.mkdir(parents=True)
            self.ask("prepare")

    def _make_template(self) -> None:
        self.directory.mkdir(parents=True)
        self.ask("prepare")
        start = time.monotonic()
        self.ask("enqueue_many", count=self.far, delay=_FAR_DELAY_S, kind="noop")
        self.far_seconds = time.monotonic() - start
        self.directory.rename(self._template)

    def start_worker(
        self, *, concurrency: int | None = None, inside: str | None = None, trace: Path | None = None
    ) -> Program:
        """Start one worker process, with default settings where nothing else is said."""
        more = {
            "BENCH_CONCURRENCY": str(concurrency) if concurrency else None,
            "BENCH_INSIDE": inside,
            "BENCH_TRACE": str(trace) if trace else None,
        }
        command = self._ask("worker_command", {}, more)
        return Program(command, self._environment(**more), self.directory / "worker.log", tools.ROOT)

    def calls(self) -> dict[str, int]:
        """The server's count of commands, by name; empty without a server."""
        return self._server.calls() if self._server else {}

    def close(self) -> None:
        """Stop the server and remove the folders."""
        if self._server:
            self._server.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self._template, ignore_errors=True)
