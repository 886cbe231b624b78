"""How soon a million jobs are looked at: ``python -m bench.pages --store sqlite`` (or ``postgres``).

Half of the jobs have run, half are due tomorrow, 100,000 groups among them. ``oncue serve`` is asked for pages of jobs
by every filter, one after the other on one connection, and for all that the page shows besides.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from bench import tools
from bench.stage import Bench, alone
from bench.work import percentile, wait

_APP = "bench.peers.oncue_peer:app"
_GROUPS = 100_000
_BAR_MS = 200.0
_REST = ("overview", "queues", "tasks", "blockers", "workers", "checks")


def main() -> int:
    """Measure, and write what was found as JSON and as a table; 1 where a page took too long."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--jobs", type=int, default=1_000_000, help="how many there are, half of them finished")
    parser.add_argument("--asked", type=int, default=30, help="how often each is asked for")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds in which what is counted beside is counted")
    parser.add_argument("--out", type=Path, default=tools.BENCH / "results", help="folder for the result")
    options = parser.parse_args()
    machine = tools.machine()
    found = {"machine": machine, "store": options.store, "jobs": options.jobs, "asked": options.asked}
    found["pages"] = measure(options.store, options.jobs, options.asked, options.settle)
    options.out.mkdir(parents=True, exist_ok=True)
    result = options.out / f"pages-{options.store}"
    result.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    result.with_suffix(".md").write_text(markdown(found))
    print(markdown(found))
    return 0 if all(one["met"] is not False for one in found["pages"]) else 1


def measure(store: str, jobs: int, asked: int, settle: float) -> list[dict[str, Any]]:
    """Make the jobs, start the server, and ask it."""
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=tools.BENCH))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        bench = alone(store, folder, stack)
        _fill(bench, jobs // 2)
        command = [sys.executable, "-m", "oncue", "serve", _APP, "--no-worker", "--port", "0"]
        serve = bench.start("serve", command)
        stack.callback(serve.stop)
        url = serve.says(r"serving (http://\S+)")[1]
        with httpx.Client(base_url=f"{url}/api/", timeout=60.0, trust_env=False) as http:
            http.get("overview").raise_for_status()
            time.sleep(settle)
            return [_page(http, path, params, asked) for path, params in _asks(jobs)]


def _fill(bench: Bench, half: int) -> None:
    """So many jobs that have run, and then as many that are due tomorrow."""
    bench.fresh()
    bench.ask("enqueue_many", count=half, delay=0, kind=f"grouped {_GROUPS}")
    command = [sys.executable, "-m", "oncue", "worker", _APP]
    worker = bench.start("worker", command, BENCH_CAPACITY=str(half + 1000))
    try:
        wait(bench, [worker], lambda records: len(records) >= half, 600.0)
    finally:
        worker.stop()
    bench.ask("enqueue_many", count=half, delay=86_400, kind=f"grouped {_GROUPS}")


def _asks(jobs: int) -> list[tuple[str, dict[str, str]]]:
    """All that is asked for: a path, and what to look for."""
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    filters: list[dict[str, str]] = [
        {}, {"cursor": str(jobs // 3)}, {"state": "completed"}, {"state": "scheduled"}, {"state": "late"},
        {"state": "discarded"}, {"state": "running"}, {"task": "noop"}, {"task": "none"}, {"queue": "none"},
        {"group": "person-7"}, {"group": "none"}, {"key": "none"}, {"due_before": soon}, {"finished_after": soon},
        {"text": "99999"}, {"text": "none"},
    ]  # fmt: skip
    pages = [("jobs", one) for one in filters]
    return [*pages, (f"jobs/{jobs // 4}", {}), (f"jobs/{jobs - 1}", {}), *((path, {}) for path in _REST)]


def _page(http: httpx.Client, path: str, params: dict[str, str], asked: int) -> dict[str, Any]:
    spans, answer = [], httpx.Response(500)
    for _ in range(asked):
        began = time.perf_counter()
        answer = http.get(path, params=params)
        spans.append((time.perf_counter() - began) * 1000)
        answer.raise_for_status()
    body = answer.json()
    spans.sort()
    p50, most = percentile(spans, 0.5), spans[-1]
    print(f"bench: {path:12} {params} {p50:8.1f} ms", file=sys.stderr, flush=True)
    return {
        "path": path,
        "params": params,
        "p50_ms": round(p50, 1),
        "max_ms": round(most, 1),
        "items": len(body["items"]) if "items" in body else None,
        "goes_on": body.get("scanned") is not None and body.get("next") is not None,
        "met": p50 < _BAR_MS if path.startswith("jobs") else None,
    }


def markdown(found: dict[str, Any]) -> str:
    """The table."""
    lines = [f"# How soon {found['jobs']:,} jobs are looked at, on {found['store']}", ""]
    lines += [f"- {name}: {value}" for name, value in found["machine"].items()]
    lines += [
        f"- asked {found['asked']} times each, one by one; aim of pages: a median below {_BAR_MS:.0f} ms",
        "",
    ]
    lines += ["| asked for | p50 ms | max ms | found | offers to go on | met |", "|---|---|---|---|---|---|"]
    for one in found["pages"]:
        params = "&".join(f"{name}={value[:16]}" for name, value in one["params"].items())
        asked = f"`{one['path']}{'?' if params else ''}{params}`"
        items, more = "-" if one["items"] is None else one["items"], "yes" if one["goes_on"] else ""
        met = {True: "yes", False: "**no**", None: ""}[one["met"]]
        lines.append(f"| {asked} | {one['p50_ms']} | {one['max_ms']} | {items} | {more} | {met} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))  # so that every process is ended
    raise SystemExit(main())
