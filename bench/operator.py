"""What the operator's view costs a worker: ``python -m bench.operator --store sqlite`` (or ``postgres``).

The same drain by three workers, in turns: one that counts nothing, one that counts for the operator as every worker
does, and one that is watched too: by ``oncue serve`` with an open page. Then both idle, with the page open.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import tools
from bench.process import Program
from bench.stage import Bench, alone
from bench.work import Figures, wait

WAYS = {
    "unrecorded": "a worker that counts nothing",
    "recorded": "a worker as it is",
    "watched": "the same, beside `oncue serve` with an open page",
}
_PAGES = {"client": "a client that reads what it reads, as often", "chromium": "Chromium"}
_APP = {"unrecorded": "bench.unrecorded:app"}
_WATCHED = "bench.peers.oncue_peer:app"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything, and who has the page open meanwhile: chromium or client."""

    jobs: int
    runs: int
    idle_s: float
    settle_s: float
    drain_page: str
    idle_page: str


@dataclass(frozen=True, slots=True)
class Watch:
    """The server of the page, and who has it open."""

    serve: Program
    page: Program


def main() -> None:
    """Measure, and write what was found as JSON and as a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.operator", description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--jobs", type=int, default=200_000, help="jobs of a drain")
    parser.add_argument("--runs", type=int, default=5, help="drains of each kind, in turns")
    parser.add_argument("--idle", type=float, default=120.0, help="seconds to idle")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds before that")
    parser.add_argument("--page", choices=list(_PAGES), help=f"who has it open (default: client; idle: {_browser()})")
    parser.add_argument("--out", type=Path, default=tools.BENCH / "results", help="folder for the result")
    options = parser.parse_args()
    pages = (options.page or "client", options.page or _browser())
    sizes = Sizes(options.jobs, options.runs, options.idle, options.settle, *pages)
    machine = tools.machine()
    found = {"machine": machine, "store": options.store, "pages": pages, **measure(options.store, sizes)}
    text = markdown(found)
    options.out.mkdir(parents=True, exist_ok=True)
    result = options.out / f"operator-{options.store}"
    result.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    result.with_suffix(".md").write_text(text)
    print(text)


def _browser() -> str:
    return "chromium" if any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))) else "client"


def measure(store: str, sizes: Sizes) -> dict[str, Any]:
    """All drains, in turns that each begin with another way, and the idle time."""
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=tools.BENCH))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        bench = alone(store, folder, stack)
        drains: dict[str, list[Figures]] = {way: [] for way in WAYS}
        for turn in range(sizes.runs):
            for place in range(len(WAYS)):
                way = list(WAYS)[(turn + place) % len(WAYS)]
                drains[way].append(_drain(bench, way, sizes))
                print(f"bench: {way:10} {drains[way][-1]['per_s']:9,.0f} jobs/s", file=sys.stderr, flush=True)
        return {"jobs": sizes.jobs, "drains": drains, "idle": _idle(bench, sizes)}


def _worker(bench: Bench, way: str, jobs: int) -> Program:
    command = [sys.executable, "-m", "oncue", "worker", _APP.get(way, _WATCHED)]
    return bench.start("worker", command, BENCH_CAPACITY=str(jobs + 1000))


@contextmanager
def _watching(bench: Bench, page: str) -> Iterator[Watch]:
    """``oncue serve`` in a process of its own, and the page of it open in another."""
    command = [sys.executable, "-m", "oncue", "serve", _WATCHED, "--no-worker", "--port", "0"]
    serve = bench.start("serve", command)
    try:
        url = serve.says(r"serving (http://\S+)")[1]
        command = [sys.executable, "-m", "bench.page", url, *(["--client"] if page == "client" else [])]
        opened = bench.start("page", command)
        try:
            opened.says("live")
            yield Watch(serve, opened)
        finally:
            opened.stop()
    finally:
        serve.stop()


def _drain(bench: Bench, way: str, sizes: Sizes) -> Figures:
    """No-op jobs that are due before the worker starts; the page is open before they are stored."""
    jobs = sizes.jobs
    bench.fresh()
    with ExitStack() as stack:
        watch = stack.enter_context(_watching(bench, sizes.drain_page)) if way == "watched" else None
        bench.ask("enqueue_many", count=jobs, delay=0, kind="noop")
        serve_before = watch.serve.cpu_seconds() if watch else 0.0
        worker = _worker(bench, way, jobs)
        try:
            records = wait(bench, [worker], lambda found: len(found) >= jobs, 300.0)
            serve_cpu = watch.serve.cpu_seconds() - serve_before if watch else None
            time.sleep(0.5)  # the last acks
            worker_cpu = worker.cpu_seconds()
        finally:
            worker.stop()
    ran = {record.index for record in records}
    seconds = max(record.at for record in records) - min(record.at for record in records)
    return {
        "per_s": len(records) / max(seconds, 1e-9),
        "worker_us": worker_cpu / jobs * 1e6,
        "serve_cpu_s": serve_cpu,
        "missing": jobs - len(ran),
        "doubled": len(records) - len(ran),
        "asked": _asked(bench) if watch else None,
        **bench.ask("results"),
    }


def _asked(bench: Bench) -> dict[str, int]:
    """How often the page asked for what; RuntimeError if it was not live to its end."""
    last = (bench.directory / "page.log").read_text().splitlines()[-1]
    if not last.startswith("{"):
        raise RuntimeError(f"the page was not live to its end: {last}")
    counts: dict[str, int] = json.loads(last)
    return {path: count for path, count in counts.items() if path.startswith("/api/")}


def _idle(bench: Bench, sizes: Sizes) -> Figures:
    """CPU of a worker and of ``oncue serve`` with an open page, while 100 jobs are a day ahead."""
    bench.fresh()
    bench.ask("enqueue_many", count=100, delay=86_400, kind="noop")
    worker = _worker(bench, "watched", 100)
    try:
        with _watching(bench, sizes.idle_page) as watch:
            programs = {"worker": worker, "serve": watch.serve}
            time.sleep(sizes.settle_s)
            before, server = {name: one.cpu_seconds() for name, one in programs.items()}, bench.server_cpu()
            began = time.monotonic()
            time.sleep(sizes.idle_s)
            for one in (worker, watch.serve, watch.page):
                one.check()
            used = {name: one.cpu_seconds() - before[name] for name, one in programs.items()}
            server_cpu = None if server is None else (bench.server_cpu() or 0.0) - server
            seconds = time.monotonic() - began
    finally:
        worker.stop()
    return {"seconds": seconds, "cpu_s": used, "server_cpu_s": server_cpu, "asked": _asked(bench)}


def markdown(found: dict[str, Any]) -> str:
    """The tables: medians, and OnCue against its aims."""
    lines = [f"# What the operator's view costs a worker, on {found['store']}", ""]
    lines += [f"- {name}: {value}" for name, value in found["machine"].items()]
    drain, idle = (_PAGES[page] for page in found["pages"])
    lines += [f"- the page is the list of jobs, open in {drain} (drain) and in {idle} (idle)"]
    lines += ["- only ratios within this one run count; what is comparable and what isn't: bench/README.md"]
    return "\n".join([*lines, "", *_drains(found), "", *_idling(found["idle"]), "", *_aims(found)]) + "\n"


def _rates(found: dict[str, Any], way: str) -> list[float]:
    return [run["per_s"] for run in found["drains"][way]]


def _drains(found: dict[str, Any]) -> list[str]:
    plain = _rates(found, "unrecorded")
    lines = [f"## Drain of {found['jobs']:,} no-op jobs, {len(plain)} of each, in turns", ""]
    lines += ["| who | jobs/s | of the first's rate (by turn) | missing / doubled | CPU a job, us: worker / serve |"]
    lines += ["|---|---|---|---|---|"]
    for way, runs in found["drains"].items():
        rates = _rates(found, way)
        ratios = [rate / first for rate, first in zip(rates, plain, strict=True)]
        serve = [run["serve_cpu_s"] / found["jobs"] * 1e6 for run in runs if run["serve_cpu_s"] is not None]
        cells = [
            WAYS[way],
            f"{median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})",
            f"{median(rates) / median(plain):.3f} ({min(ratios):.3f}-{max(ratios):.3f})",
            f"{sum(run['missing'] + run['left'] for run in runs)} / {sum(run['doubled'] for run in runs)}",
            f"{median(run['worker_us'] for run in runs):.1f} / {f'{median(serve):.1f}' if serve else '-'}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _share(idle: Figures) -> dict[str, float]:
    """Percent of a core, by program."""
    used = idle["cpu_s"] | ({} if idle["server_cpu_s"] is None else {"the database's server": idle["server_cpu_s"]})
    return {name: 100 * cpu / idle["seconds"] for name, cpu in used.items()}


def _idling(idle: Figures) -> list[str]:
    lines = [f"## Idle for {idle['seconds']:.0f} s with an open page and 100 far jobs", ""]
    lines += ["| program | CPU, % of a core |", "|---|---|"]
    return lines + [f"| {name} | {value:.2f} |" for name, value in _share(idle).items()]


def _aims(found: dict[str, Any]) -> list[str]:
    cost = 100 * (1 - median(_rates(found, "watched")) / median(_rates(found, "unrecorded")))
    idle = _share(found["idle"])
    rows = [
        ("less drain rate, with all of it", cost, 5.0),
        ("idle, worker and serve", idle["worker"] + idle["serve"], 1.0),
    ]
    lines = ["## OnCue against its aims", "", "| aim | bar | found | met |", "|---|---|---|---|"]
    met = {True: "yes", False: "**no**"}
    return lines + [f"| {what} | < {bar:.0f}% | {value:.2f}% | {met[value < bar]} |" for what, value, bar in rows]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))  # so that every process is ended
    main()
