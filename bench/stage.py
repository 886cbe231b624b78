"""A peer's stage: a clean folder and server, its commands, its worker, the far jobs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import tools
from bench.peers import SUITES, Spec
from bench.postgres import Postgres
from bench.process import Program, Valkey, wait_for
from bench.records import Reader

_FAR_DELAY_S = 30 * 86_400
_EARLIER = 1000


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; ``--quick`` takes less and the table says so."""

    runs: int = 3
    peer_runs: Mapping[str, int] = field(default_factory=dict)  # fewer for peers, by work; OnCue has all the runs
    slow_s: float = 45.0  # a piece of work that took longer than this is not repeated
    late_jobs: int = 1000
    late_cap_s: float = 30.0
    drain_jobs: int = 20_000
    bulk_jobs: int = 20_000
    single_jobs: int = 1000
    enqueue_rounds: int = 10
    idle_s: float = 180.0
    settle_s: float = 8.0
    crash_jobs: int = 100
    crash_cap_s: float = 30.0
    groups: int = 100_000
    fleet: int = 8
    fleet_jobs: int = 60_000  # eight processes are through with 20,000 before they have warmed up
    fleet_start_s: float = 9.0  # for eight processes to start, beside what enqueueing takes


SIZES = {
    "sqlite": Sizes(),
    "postgres": Sizes(
        # One run where the figure hangs on a poll, a timeout or many rounds of its own.
        peer_runs={"lateness": 2, "far": 2, "together": 1, "enqueue": 1, "crash": 1, "elsewhere": 1},
        single_jobs=2000,
        enqueue_rounds=5,
        crash_cap_s=60.0,
    ),
    "redis": Sizes(
        peer_runs={"lateness": 2, "drain": 2, "enqueue": 1, "crash": 1, "elsewhere": 1},
        late_cap_s=90.0,  # a minute passes before taskiq's scheduler looks
        single_jobs=2000,
        enqueue_rounds=5,
        idle_s=60.0,
        crash_cap_s=90.0,
    ),
}


def quick(sizes: Sizes) -> Sizes:
    """A look only: one run, fewer jobs, a short idle."""
    return replace(
        sizes,
        runs=1,
        drain_jobs=5_000,
        fleet_jobs=20_000,
        groups=10_000,
        bulk_jobs=5_000,
        enqueue_rounds=3,
        idle_s=60.0,
    )


def _slug(label: str) -> str:
    return re.sub(r"\W+", "-", label)


class Bench:
    """One peer on its stage, with ``far`` jobs pending that are due in a month."""

    def __init__(self, spec: Spec, work_folder: Path, far: int = 0) -> None:
        self.spec = spec
        self.far = far
        self.label = f"{spec.name} + {far:,} far" if far else spec.name
        self.directory = work_folder / _slug(self.label)
        self._template = work_folder / f"{spec.name}-template"
        self._interpreter = sys.executable if spec.name == "asyncio" else tools.interpreter(spec.runtime)
        self._server: Valkey | None = None
        self.bulk_s: float | None = None  # what storing the jobs of a drain took, once that is known
        if spec.redis:
            self._server = Valkey(tools.valkey_server(), work_folder / f"{spec.name}-valkey")

    def _environment(self, **more: str | None) -> dict[str, str]:
        environment = {**os.environ, "BENCH_DIR": str(self.directory), "PYTHONPATH": str(tools.ROOT)}
        for name in ("DATABASE_URL", "REDIS_URL", "CRON_SECRET"):
            environment.pop(name, None)
        if self._server:
            environment["BENCH_REDIS_URL"] = self._server.url
            if self.spec.wake is not None:
                environment["BENCH_WAKE"] = self._server.url + self.spec.wake
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
        """An empty folder and store, with the far jobs if there are any."""
        self._clear()
        if self.far:
            if not self._template.exists():
                self._make_template()
            shutil.copytree(self._template, self.directory)
        else:
            self.directory.mkdir(parents=True)
            self.ask("prepare")

    def _clear(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._server:
            self._server.command("FLUSHALL")

    def _make_template(self) -> None:
        self.directory.mkdir(parents=True)
        self.ask("prepare")
        self.ask("enqueue_many", count=self.far, delay=_FAR_DELAY_S, kind="noop")
        self.directory.rename(self._template)

    def settle(self) -> None:
        """The last thing before the measured worker starts, with all its jobs stored."""

    def start_worker(
        self,
        *,
        concurrency: int | None = None,
        inside: str | None = None,
        trace: Path | None = None,
        elsewhere: bool = False,
    ) -> Program:
        """Start one worker process, with default settings where nothing else is said."""
        more = {
            "BENCH_CONCURRENCY": str(concurrency) if concurrency else None,
            "BENCH_INSIDE": inside,
            "BENCH_TRACE": str(trace) if trace else None,
        }
        command = self._ask("worker_command", {}, more)
        if elsewhere:
            command, more = self._elsewhere(command, more)
        return self.start("worker", command, **more)

    def start(self, name: str, command: list[str], **more: str | None) -> Program:
        """Start a program on this stage; its log has this name."""
        return Program(command, self._environment(**more), self.directory / f"{name}.log", tools.ROOT)

    def _elsewhere(self, command: list[str], more: dict[str, str | None]) -> tuple[list[str], dict[str, str | None]]:
        """What another machine is to a worker: another host name, and other folders for what processes leave."""
        folder = self.directory / "elsewhere"
        folder.mkdir(exist_ok=True)
        places = ("TMPDIR", "HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
        own_name = ["unshare", "--uts"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--uts"]
        script = 'hostname bench-elsewhere && exec "$@"'
        return [*own_name, "sh", "-c", script, "sh", *command], more | dict.fromkeys(places, str(folder))

    def start_counting(self) -> Path:
        """Have the statements of the worker that starts next counted; the file that SQLite's drivers write them to."""
        return self.directory / "trace.sql"

    def statements(self) -> list[tuple[float, str]]:
        """When, in seconds since the epoch, and what was asked of the store since then."""
        trace = self.directory / "trace.sql"
        lines = [line.partition("\t") for line in trace.read_text().splitlines()] if trace.exists() else []
        return [(float(at), statement) for at, _, statement in lines]

    def server_cpu(self) -> float | None:
        """Seconds of CPU that the whole server has used; None without a server."""
        return self._server.cpu_seconds() if self._server else None

    def calls(self) -> dict[str, int]:
        """The server's count of commands, by name; empty without a server."""
        return self._server.calls() if self._server else {}

    def close(self) -> None:
        """Stop the server and remove the folders."""
        if self._server:
            self._server.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self._template, ignore_errors=True)


class PostgresBench(Bench):
    """A peer with a new database for each measurement; the statistics of far jobs are fresh, or stale."""

    def __init__(
        self, spec: Spec, work_folder: Path, postgres: Postgres, far: int = 0, statistics: str = "fresh"
    ) -> None:
        super().__init__(spec, work_folder, far)
        self._postgres = postgres
        self._statistics = statistics
        if far:
            self.label += f", {statistics} statistics"
        self.directory = work_folder / _slug(self.label)
        self._database = self.directory.name
        self._template_name = f"{spec.name}-{far}"

    def _environment(self, **more: str | None) -> dict[str, str]:
        return super()._environment(**more) | {"BENCH_DSN": self._postgres.dsn(self._database)}

    def fresh(self) -> None:
        """An empty folder, and a copy of the prepared database."""
        self._empty()
        if not self._postgres.exists(self._template_name):
            self._postgres.create(self._database)
            self._prepare()
            self._postgres.rename(self._database, self._template_name)
            self._empty()
        self._postgres.create(self._database, self._template_name)

    def _empty(self) -> None:
        self._clear()
        self.directory.mkdir(parents=True)

    def _prepare(self) -> None:
        """With far jobs: the statistics are of a time when a thousand jobs were due, done before the far ones came."""
        self.ask("prepare")
        if not self.far:
            return
        self._postgres.autovacuum(on=False)
        try:
            self.ask("enqueue_many", count=_EARLIER, delay=0, kind="noop")
            self._postgres.analyze(self._database)
            worker = self.start_worker()
            try:
                if not wait_for(lambda: len(Reader(self.directory).read()) >= _EARLIER, [worker], 60.0):
                    raise RuntimeError(f"{self.label}: the worker did not run {_EARLIER} jobs within 60 s")
                time.sleep(1)  # the last acks
            finally:
                worker.stop()
            self.ask("enqueue_many", count=self.far, delay=_FAR_DELAY_S, kind="noop")
        finally:
            self._postgres.autovacuum(on=True)

    def settle(self) -> None:
        """With far jobs and fresh statistics: take them now."""
        if self.far and self._statistics == "fresh":
            self._postgres.analyze(self._database)

    def start_counting(self) -> Path:
        """Have the server log what the worker that starts next asks of it."""
        self._postgres.log_statements(self._database)
        return super().start_counting()

    def statements(self) -> list[tuple[float, str]]:
        """From the server's log."""
        return self._postgres.statements(self._database)

    def server_cpu(self) -> float | None:
        """All processes of the server, whoever they worked for; and those of Redis, if that is used too."""
        return self._postgres.cpu_seconds() + (super().server_cpu() or 0.0)

    def close(self) -> None:
        """Remove the databases and the folder."""
        super().close()
        self._postgres.drop(self._database)
        self._postgres.drop(self._template_name)


def alone(store: str, folder: Path, stack: ExitStack) -> Bench:
    """OnCue alone on sqlite or postgres, with a server of its own; closed with the stack."""
    spec = SUITES[store]["oncue"]
    if store == "sqlite":
        bench = Bench(spec, folder)
    else:
        server = Postgres()
        stack.callback(server.close)
        bench = PostgresBench(spec, folder, server)
    stack.callback(bench.close)
    return bench
