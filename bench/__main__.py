"""``python -m bench``: all the work for OnCue and its peers, and the table of it in bench/results/."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from bench import bounds, report, tools
from bench.peers import SUITES
from bench.postgres import Postgres
from bench.stage import SIZES, Bench, PostgresBench, Sizes, quick
from bench.work import WORK, Figures

NAMES = {
    "sqlite": ("bounds", "lateness", "drain", "enqueue", "crash", "idle", "far"),
    "postgres": ("bounds", "lateness", "drain", "far", "together", "enqueue", "crash", "elsewhere", "idle"),
}
_TABLES = {"sqlite": "latest", "postgres": "postgres"}


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
    parser.add_argument("--runs", type=int, help="how often to repeat what is noisy (default 3)")
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

    def __init__(self, suite: str, sizes: Sizes, folder: Path) -> None:
        self.suite = suite
        self.sizes = sizes
        self.folder = folder
        self.postgres = Postgres() if suite == "postgres" else None
        self.benches: list[Bench] = []
        self.figures: dict[str, dict[str, list[Figures]]] = {}
        self.problems: dict[str, list[str]] = {}

    def add(self, name: str, far: int) -> None:
        """Set a peer's stages up, or note why it cannot run."""
        spec = SUITES[self.suite][name]
        try:
            if self.postgres is None:
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

    def measure(self, work: str, bench: Bench) -> None:
        """One piece of work for one peer, its figures kept or its failure noted."""
        started = time.monotonic()
        try:
            found = WORK[work](bench, self.sizes)
        except Exception as error:  # a peer's failure is a result: the others go on
            self.problem(bench.label, f"{work} FAILED: {error}")
            return
        self.figures.setdefault(work, {}).setdefault(bench.label, []).append(found)
        print(f"bench: {work:9} {bench.label:24} {time.monotonic() - started:6.1f} s", file=sys.stderr, flush=True)

    def repeat(self, work: str) -> None:
        """Turn by turn, so that a drift of the machine meets all of them."""
        for turn in range(self.sizes.runs):
            for bench in self.benches:
                if self._wanted(work, bench) and (turn == 0 or self._worth_repeating(work, bench)):
                    if work in ("drain", "far"):
                        self.measure("start", bench)
                    self.measure("drain" if work == "far" else work, bench)

    def _wanted(self, work: str, bench: Bench) -> bool:
        """On PostgreSQL far jobs have a part of their own; on SQLite they take part in everything."""
        if work == "far":
            return bench.far > 0
        return work in bench.spec.work and (self.postgres is None or not bench.far)

    def _worth_repeating(self, work: str, bench: Bench) -> bool:
        earlier = self.figures.get("drain" if work == "far" else work, {}).get(bench.label, [])
        return bool(earlier) and (work not in ("crash", "elsewhere") or earlier[0]["seconds"] is not None)

    def idle(self) -> None:
        """All at once: an idle worker leaves the cores free, and each is counted by its own processes."""
        able = [bench for bench in self.benches if self._wanted("idle", bench)]
        with ThreadPoolExecutor(max(1, len(able))) as pool:
            list(pool.map(lambda bench: self.measure("idle", bench), able))

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
    for name in work:
        run.repeat(name)
    if "idle" in only:
        run.idle()
    return limits


def main() -> int:
    """Measure, write the table and print it; 1 if anything failed or was missing."""
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))  # so that every worker is ended
    far = options.far if options.far is not None else (100_000 if options.quick else 1_000_000)
    machine = tools.machine()
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=tools.BENCH))
    started = time.time()
    run = Run(options.suite, _sizes(options), folder)
    try:
        if run.postgres:
            machine["PostgreSQL"] = f"{run.postgres.version()}, fsync and synchronous_commit on, default settings"
        limits = _measure_all(run, options.only, options.peers, far)
    finally:
        run.close()
        shutil.rmtree(folder, ignore_errors=True)
    result = report.Result(
        suite=options.suite,
        machine=machine | {"started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started))},
        seconds=time.time() - started,
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
