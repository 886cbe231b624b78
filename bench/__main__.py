"""``python -m bench``: all the work for OnCue and its peers, and the table of it in bench/results/."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from bench import bounds, report, tools
from bench.crash import ALONE_S, Crash
from bench.peers import SUITES
from bench.postgres import Postgres
from bench.stage import SIZES, Bench, PostgresBench, Sizes, quick
from bench.work import WORK, Figures, idle_server

NAMES = {
    "sqlite": ("bounds", "lateness", "drain", "groups", "enqueue", "crash", "idle", "far"),
    "postgres": ("bounds", "lateness", "drain", "far", "groups", "together", "enqueue", "crash", "elsewhere", "idle"),
    "redis": ("bounds", "lateness", "drain", "enqueue", "crash", "elsewhere", "idle"),
}
_TABLES = {"sqlite": "latest", "postgres": "postgres", "redis": "redis"}
_CRASHES = ("crash", "elsewhere")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--suite", choices=list(SUITES), default="sqlite", help="default: sqlite")
    for name, what in (("--only", "work"), ("--peers", "peers")):
        known = "; ".join(f"{suite}: {', '.join((NAMES if what == 'work' else SUITES)[suite])}" for suite in SUITES)
        parser.add_argument(name, help=f"{what}, by commas (default: all). {known}")
    parser.add_argument(
        "--far", type=int, help="far jobs pending in that part (default 1,000,000; with --quick 100,000)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one run each, smaller sizes, idle for 60 s: for a look only"
    )
    parser.add_argument("--runs", type=int, help="how often to repeat what is noisy (default 3; of peers less)")
    parser.add_argument("--out", type=Path, default=tools.BENCH / "results", help="folder for the table")
    options = parser.parse_args()
    options.only = _chosen(parser, options.only, NAMES[options.suite], "work")
    options.peers = _chosen(parser, options.peers, list(SUITES[options.suite]), "peer")
    return options


def _chosen(parser: argparse.ArgumentParser, text: str | None, known: Sequence[str], what: str) -> list[str]:
    chosen = text.split(",") if text else list(known)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        parser.error(f"unknown {what} {', '.join(unknown)}; known: {', '.join(known)}")
    return chosen


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = quick(SIZES[options.suite]) if options.quick else SIZES[options.suite]
    return replace(sizes, runs=options.runs) if options.runs else sizes


class Run:
    """One run: its stages, its figures by work and label, and what could not be measured."""

    def __init__(self, suite: str, peers: Sequence[str], sizes: Sizes, folder: Path) -> None:
        self.suite = suite
        self.sizes = sizes
        self.folder = folder
        self.postgres = Postgres() if any(SUITES[suite][name].store == "postgres" for name in peers) else None
        self.benches: list[Bench] = []
        self.figures: dict[str, dict[str, list[Figures]]] = {}
        self.problems: dict[str, list[str]] = {}
        self.seconds: dict[str, float] = {}
        self._took: dict[tuple[str, str], float] = {}

    def add(self, name: str, far: int) -> None:
        """Set a peer's stages up, or note why it cannot run."""
        spec = SUITES[self.suite][name]
        try:
            if self.postgres is None or spec.store != "postgres":
                made = [Bench(spec, self.folder), *([Bench(spec, self.folder, far)] if far and spec.far else [])]
            else:
                made = [PostgresBench(spec, self.folder, self.postgres)]
                if far and spec.far:
                    both = ("fresh", "stale")
                    made += [PostgresBench(spec, self.folder, self.postgres, far, kind) for kind in both]
            self.benches += made
        except (tools.Missing, RuntimeError) as error:
            self.problem(name, str(error))

    def problem(self, label: str, text: str) -> None:
        print(f"bench: {label}: {text}", file=sys.stderr, flush=True)
        self.problems.setdefault(label, []).append(text)

    def measure(self, work: str, bench: Bench, found: Callable[[], Figures] | None = None) -> None:
        """One piece of work for one peer, its figures kept or its failure noted."""
        started = time.monotonic()
        try:
            figures = found() if found else WORK[work](bench, self.sizes)
        except Exception as error:  # a peer's failure is a result: the others go on
            self.problem(bench.label, f"{work} FAILED: {error}")
            return
        self.figures.setdefault(work, {}).setdefault(bench.label, []).append(figures)
        self._took[work, bench.label] = time.monotonic() - started
        print(f"bench: {work:9} {bench.label:24} {self._took[work, bench.label]:6.1f} s", file=sys.stderr, flush=True)

    def repeat(self, work: str) -> None:
        """Turn by turn, so that a drift of the machine meets all of them."""
        measured = "drain" if work == "far" else work
        for turn in range(self.sizes.runs):
            for bench in self._due(work, turn):
                if measured == "drain" and (turn == 0 or work == "drain"):
                    self.measure("start", bench)
                self.measure(measured, bench)

    def crashes(self, work: str) -> None:
        """The same. Whose jobs don't come back at once waits for them beside the others: that costs no CPU."""
        for turn in range(self.sizes.runs):
            with ThreadPoolExecutor(max(1, len(self.benches))) as waiting:
                for bench in self._due(work, turn):
                    self._crash(work, bench, waiting)

    def _crash(self, work: str, bench: Bench, waiting: ThreadPoolExecutor) -> None:
        own = bench.spec.runtime == "own"
        try:
            crash = Crash(bench, self.sizes, elsewhere=work == "elsewhere")
            completed = crash.completed(self.sizes.crash_cap_s if own else ALONE_S)
        except Exception as error:
            self.problem(bench.label, f"{work} FAILED: {error}")
            return
        if completed:
            self.measure(work, bench, crash.figures)
        else:
            waiting.submit(self.measure, work, bench, crash.figures)

    def _able(self, work: str) -> list[Bench]:
        """On PostgreSQL far jobs have a part of their own; on SQLite they take part in everything."""
        if work == "far":
            return [bench for bench in self.benches if bench.far]
        able = [bench for bench in self.benches if work in bench.spec.work]
        return [bench for bench in able if self.suite != "postgres" or not bench.far]

    def _due(self, work: str, turn: int) -> list[Bench]:
        """Whose turn it is: in later ones not those that failed, took too long or had not come back by the cap."""
        measured = "drain" if work == "far" else work
        due = []
        for bench in self._able(work):
            earlier = self.figures.get(measured, {}).get(bench.label, [])
            runs = self.sizes.runs
            if bench.spec.name != "oncue":
                runs = min(runs, self.sizes.peer_runs.get(work, runs))
            quick = self._took.get((measured, bench.label), 0.0) <= self.sizes.slow_s
            back = work not in _CRASHES or all(figures["seconds"] is not None for figures in earlier)
            if turn == 0 or (turn < runs and earlier and quick and back):
                due.append(bench)
        return due

    def idle(self) -> None:
        """All at once: idle workers leave the cores free. Each is counted by its own processes, its server's too."""
        able = self._able("idle")
        servers: list[Postgres] = []
        apart: list[Bench] = []
        try:
            for index, bench in enumerate(able):
                if isinstance(bench, PostgresBench):
                    servers.append(Postgres())
                    apart.append(PostgresBench(bench.spec, self.folder / "idle", servers[-1]))
                    able[index] = apart[-1]
            with ThreadPoolExecutor(len(able) + 1) as pool:
                if servers:
                    servers.append(Postgres())
                nobody = [pool.submit(idle_server, server, self.sizes) for server in servers[-1:]]
                for bench in able:
                    pool.submit(self.measure, "idle", bench)
            for found in nobody:
                self.figures.setdefault("idle", {})["a server that nobody uses"] = [found.result()]
        finally:
            for bench in apart:
                bench.close()
            for server in servers:
                server.close()

    def close(self) -> None:
        for bench in self.benches:
            bench.close()
        if self.postgres:
            self.postgres.close()


def _measure_all(run: Run, only: Sequence[str], peers: Sequence[str], far: int) -> dict[str, list[float]]:
    apart = run.postgres is not None  # whether far jobs are work of their own
    work = [name for name in only if name not in ("bounds", "idle") and (apart or name != "far")]
    if only == ["far"] and not apart:
        only, work, peers = NAMES[run.suite], ["lateness", "drain", "enqueue", "crash"], ["oncue"]
    limits: dict[str, list[float]] = {}
    if "bounds" in only:
        limits = bounds.measure(run.folder / "bounds", run.sizes.runs, run.postgres)
    for name in peers:
        run.add(name, far if "far" in only else 0)
    for name in [*work, *(["idle"] if "idle" in only else [])]:
        started = time.monotonic()
        if name == "idle":
            run.idle()
        elif name in _CRASHES:
            run.crashes(name)
        else:
            run.repeat(name)
        run.seconds[name] = time.monotonic() - started
    return limits


def main() -> int:
    """Measure, write the table and print it; 1 if anything failed or was missing."""
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))  # so that every worker is ended
    far = options.far if options.far is not None else (100_000 if options.quick else 1_000_000)
    machine = tools.machine()
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=tools.BENCH))
    started = time.time()
    run = Run(options.suite, options.peers, _sizes(options), folder)
    try:
        if run.postgres:
            machine["PostgreSQL"] = f"{run.postgres.version()}, fsync and synchronous_commit on, default settings"
        if any(SUITES[options.suite][name].redis for name in options.peers):
            machine["Redis"] = f"{tools.valkey_version()}, appendonly yes, appendfsync everysec, one server a peer"
        limits = _measure_all(run, options.only, options.peers, far)
    finally:
        run.close()
        shutil.rmtree(folder, ignore_errors=True)
    result = report.Result(
        suite=options.suite,
        machine=machine | {"started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started))},
        seconds=time.time() - started,
        parts=run.seconds,
        quick=options.quick,
        far=far,
        sizes=asdict(run.sizes),
        bounds=limits,
        figures=run.figures,
        problems=run.problems,
        notes={name: SUITES[options.suite][name].note for name in options.peers},
    )
    text = report.markdown(result)
    options.out.mkdir(parents=True, exist_ok=True)
    table = options.out / _TABLES[options.suite]
    table.with_suffix(".md").write_text(text)
    table.with_suffix(".json").write_text(json.dumps(result.as_json(), indent=1) + "\n")
    print(text)
    return 1 if run.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
