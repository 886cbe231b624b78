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
from pathlib import Path

from bench import bounds, report, tools
from bench.peers import PEERS
from bench.stage import QUICK, Bench, Sizes
from bench.work import WORK, Figures

NAMES = ("bounds", "lateness", "drain", "enqueue", "crash", "idle", "far")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default=",".join(NAMES), help=f"work, by commas: {', '.join(NAMES)} (default: all)")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"by commas: {', '.join(PEERS)} (default: all)")
    parser.add_argument(
        "--far", type=int, help="far jobs pending in the last part (default 1,000,000; with --quick 100,000)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one run each, smaller sizes, idle for 60 s: for a look only"
    )
    parser.add_argument("--runs", type=int, help="how often to repeat what is noisy (default 3)")
    parser.add_argument("--out", type=Path, default=tools.BENCH / "results", help="folder for the table")
    options = parser.parse_args()
    for chosen, known, what in ((options.only, NAMES, "work"), (options.peers, PEERS, "peer")):
        unknown = [name for name in chosen.split(",") if name not in known]
        if unknown:
            parser.error(f"unknown {what} {', '.join(unknown)}; known: {', '.join(known)}")
    return options


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = QUICK if options.quick else Sizes()
    if options.runs:
        sizes = Sizes(**{name: getattr(sizes, name) for name in Sizes.__slots__} | {"runs": options.runs})
    return sizes


class Run:
    """One run: its stages, its figures by work and label, and what could not be measured."""

    def __init__(self, sizes: Sizes, folder: Path) -> None:
        self.sizes = sizes
        self.folder = folder
        self.benches: list[Bench] = []
        self.figures: dict[str, dict[str, list[Figures]]] = {}
        self.problems: dict[str, list[str]] = {}

    def add(self, name: str, far: int = 0) -> None:
        """Set a peer's stage up, or note why it cannot run."""
        try:
            self.benches.append(Bench(PEERS[name], self.folder, far))
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
                if work in bench.spec.work and (turn == 0 or self._worth_repeating(work, bench)):
                    if work == "drain":
                        self.measure("start", bench)
                    self.measure(work, bench)

    def _worth_repeating(self, work: str, bench: Bench) -> bool:
        earlier = self.figures.get(work, {}).get(bench.label, [])
        return bool(earlier) and (work != "crash" or earlier[0]["seconds"] is not None)

    def idle(self) -> None:
        """All at once: an idle worker leaves the cores free, and each is counted by its own processes."""
        able = [bench for bench in self.benches if "idle" in bench.spec.work]
        with ThreadPoolExecutor(max(1, len(able))) as pool:
            list(pool.map(lambda bench: self.measure("idle", bench), able))


def _measure_all(run: Run, only: Sequence[str], peers: Sequence[str], far: int) -> dict[str, list[float]]:
    work = [name for name in only if name in ("lateness", "drain", "enqueue", "crash")]
    if "far" in only and len(only) == 1:
        only, work, peers = NAMES, ["lateness", "drain", "enqueue", "crash"], ["oncue"]
    limits = bounds.measure(run.folder / "bounds", run.sizes.runs) if "bounds" in only else {}
    for name in peers:
        run.add(name)
        if name == "oncue" and "far" in only and far:
            run.add(name, far)
    try:
        for name in work:
            run.repeat(name)
        if "idle" in only:
            run.idle()
    finally:
        for bench in run.benches:
            bench.close()
    return limits


def main() -> int:
    """Measure, write the table and print it; 1 if anything failed or was missing."""
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))  # so that every worker is ended
    far = options.far if options.far is not None else (100_000 if options.quick else 1_000_000)
    machine = tools.machine()
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=tools.BENCH))
    run = Run(_sizes(options), folder)
    started = time.time()
    try:
        limits = _measure_all(run, options.only.split(","), options.peers.split(","), far)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result = report.Result(
        machine=machine | {"started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started))},
        seconds=time.time() - started,
        quick=options.quick,
        far=far,
        sizes={name: getattr(run.sizes, name) for name in Sizes.__slots__},
        bounds=limits,
        figures=run.figures,
        problems=run.problems,
        notes={name: PEERS[name].note for name in options.peers.split(",")},
    )
    text = report.markdown(result)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "latest.md").write_text(text)
    (options.out / "latest.json").write_text(json.dumps(result.as_json(), indent=1) + "\n")
    print(text)
    return 1 if run.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
