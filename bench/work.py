"""The five pieces of work, the same for every peer. Each takes a Bench and returns plain figures."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.process import Program
from bench.records import SLEEP_DONE, SLEEP_STARTED, Reader, Record
from bench.stage import Bench, Sizes

Figures = dict[str, Any]
_POLL = 0.02
_READY_CAP = 60.0
_NUMBER = re.compile(r"\b\d+(\.\d+)?\b")  # the trace shows bound values: one kind of statement, one line


def _wait(bench: Bench, worker: Program, until: Callable[[Sequence[Record]], bool], cap: float) -> list[Record]:
    """All records, once ``until`` holds for them, or when ``cap`` seconds are over."""
    reader = Reader(bench.directory)
    end = time.monotonic() + cap
    while time.monotonic() < end:
        if until(reader.read()):
            break
        worker.check()
        time.sleep(_POLL)
    return Reader(bench.directory).read()


def _started(bench: Bench, worker: Program) -> float:
    """When the first job ran, of a worker that has one waiting."""
    records = _wait(bench, worker, lambda found: len(found) > 0, _READY_CAP)
    if not records:
        raise RuntimeError(f"{bench.spec.name}: the worker ran nothing within {_READY_CAP:.0f} s")
    return records[0].at


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def lateness(bench: Bench, sizes: Sizes) -> Figures:
    """Jobs due over 2-10 s, scheduled while the worker runs: started minus due, ms."""
    spread = {"count": sizes.late_jobs, "first": 2.0, "last": 10.0}
    bench.fresh()
    timer = bench.spec.name == "asyncio"
    markers = 0 if timer else 1
    if markers:
        bench.ask("enqueue_many", count=1, delay=0, kind="noop")
    worker = bench.start_worker(inside=json.dumps(spread) if bench.spec.inside else None)
    try:
        enqueue_s = None
        if markers:
            _started(bench, worker)
        if not bench.spec.inside:
            enqueue_s = bench.ask("enqueue_at", **spread)
        wanted = sizes.late_jobs + markers
        records = _wait(bench, worker, lambda found: len(found) >= wanted, 30.0)[markers:]
        memory = worker.peak_memory_mb()
    finally:
        worker.stop()
    late = sorted((record.at - record.due) * 1000 for record in records)
    return {
        "p50": _percentile(late, 0.5),
        "p99": _percentile(late, 0.99),
        "max": late[-1],
        "early": sum(1 for value in late if value < 0),
        "missing": sizes.late_jobs - len({record.index for record in records}),
        "doubled": len(records) - len({record.index for record in records}),
        "enqueue_s": enqueue_s,
        "memory_mb": memory,
    }


def start_up(bench: Bench, _sizes: Sizes) -> Figures:
    """From starting the worker's process to its first job running, seconds."""
    bench.fresh()
    bench.ask("enqueue_many", count=1, delay=0, kind="noop")
    worker = bench.start_worker()
    try:
        return {"seconds": _started(bench, worker) - worker.started_at, "memory_mb": worker.peak_memory_mb()}
    finally:
        worker.stop()


def drain(bench: Bench, sizes: Sizes) -> Figures:
    """No-op jobs, due before the worker starts. ``seconds`` from its start to the last handler's end."""
    bench.fresh()
    bench.ask("enqueue_many", count=sizes.drain_jobs, delay=0, kind="noop")
    worker = bench.start_worker()
    try:
        records = _wait(bench, worker, lambda found: len(found) >= sizes.drain_jobs, 300.0)
        time.sleep(0.5)  # the last acks
        memory = worker.peak_memory_mb()
    finally:
        worker.stop()
    first, last = min(r.at for r in records), max(r.at for r in records)
    return {
        "per_s": len(records) / max(last - first, 1e-9),
        "seconds": last - worker.started_at,
        "missing": sizes.drain_jobs - len({record.index for record in records}),
        "doubled": len(records) - len({record.index for record in records}),
        "memory_mb": memory,
        **bench.ask("results"),
    }


def enqueue(bench: Bench, sizes: Sizes) -> Figures:
    """Jobs due in an hour, no worker: single calls, 1,000 a round, and one bulk call."""
    bench.fresh()
    rounds = bench.ask("enqueue_single", count=1000, rounds=sizes.enqueue_rounds, delay=3600)
    bulk = bench.ask("enqueue_many", count=sizes.bulk_jobs, delay=3600, kind="noop") if bench.spec.bulk else None
    return {
        "single_per_s": 1000 / median(rounds),
        "single_rounds": [1000 / seconds for seconds in rounds],
        "bulk_per_s": sizes.bulk_jobs / bulk["seconds"] if bulk else None,
    }


def idle(bench: Bench, sizes: Sizes) -> Figures:
    """100 jobs a day ahead: CPU seconds of the worker's processes, and what they asked of the store."""
    bench.fresh()
    bench.ask("enqueue_many", count=100, delay=86_400, kind="noop")
    trace = bench.directory / "trace.sql"
    worker = bench.start_worker(trace=trace)
    try:
        time.sleep(sizes.settle_s)
        worker.check()
        cpu, calls, begin = worker.cpu_seconds(), bench.calls(), time.time()
        time.sleep(sizes.idle_s)
        worker.check()
        cpu, calls_after, end = worker.cpu_seconds() - cpu, bench.calls(), time.time()
        memory = worker.peak_memory_mb()
    finally:
        worker.stop()
    durability = "appendfsync everysec" if bench.spec.redis else _synchronous(trace)
    if bench.spec.redis:
        counts = {name: n - calls.get(name, 0) for name, n in calls_after.items() if n > calls.get(name, 0)}
    else:
        counts = _statements(trace, begin, end)
    top = dict(sorted(counts.items(), key=lambda item: -item[1])[:20])
    return {
        "cpu_s": cpu,
        "seconds": end - begin,
        "statements": sum(counts.values()),
        "top": top,
        "memory_mb": memory,
        "durability": durability,
    }


def _synchronous(trace: Path) -> str:
    """The mode that the worker's connections set, as SQLite saw it."""
    text = trace.read_text() if trace.exists() else ""
    modes = sorted(set(re.findall(r"(?i)pragma synchronous\s*=\s*(\w+)", text)))
    return f"synchronous={', '.join(modes)}" if modes else "synchronous not set (SQLite's default is FULL)"


def _statements(trace: Path, begin: float, end: float) -> dict[str, int]:
    counts: dict[str, int] = {}
    for line in trace.read_text().splitlines() if trace.exists() else []:
        at, _, statement = line.partition("\t")
        if begin <= float(at) <= end:
            kind = _NUMBER.sub("?", statement)[:120]
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def crash(bench: Bench, sizes: Sizes) -> Figures:
    """100 running jobs of 1 s, SIGKILL, a new worker at once: seconds until all have completed."""
    jobs = sizes.crash_jobs
    bench.fresh()
    bench.ask("enqueue_many", count=jobs, delay=0, kind="sleep")
    worker = bench.start_worker(concurrency=jobs)
    try:
        records = _wait(bench, worker, lambda found: len(_running(found)) >= jobs or _any_done(found), _READY_CAP)
    finally:
        worker.kill()
    records = Reader(bench.directory).read()
    before = _done(records)
    running = len(_running(records) - before)
    worker = bench.start_worker(concurrency=jobs)
    try:
        records = _wait(bench, worker, lambda found: len(_done(found)) >= jobs, sizes.crash_cap_s)
        time.sleep(0.5)  # the last acks
    finally:
        worker.stop()
    done = _done(records)
    last = max((r.at for r in records if r.due == SLEEP_DONE), default=0.0)
    return {
        "running": running,
        "seconds": last - worker.started_at if len(done) == jobs else None,
        "came_back": len(done - before),
        "lost": jobs - len(done),
        "cap_s": sizes.crash_cap_s,
        **bench.ask("results"),
    }


def _running(records: Sequence[Record]) -> set[int]:
    return {record.index for record in records if record.due == SLEEP_STARTED}


def _done(records: Sequence[Record]) -> set[int]:
    return {record.index for record in records if record.due == SLEEP_DONE}


def _any_done(records: Sequence[Record]) -> bool:
    return any(record.due == SLEEP_DONE for record in records)


WORK: dict[str, Callable[[Bench, Sizes], Figures]] = {
    "lateness": lateness,
    "start": start_up,
    "drain": drain,
    "enqueue": enqueue,
    "crash": crash,
    "idle": idle,
}
