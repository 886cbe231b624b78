"""The pieces of work, the same for every peer. Each takes a Bench and returns plain figures."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from bench.postgres import Postgres
from bench.process import Program, wait_for
from bench.records import Reader, Record
from bench.stage import Bench, Sizes

Figures = dict[str, Any]
READY_CAP = 60.0
_NUMBER = re.compile(r"\b\d+(\.\d+)?\b")  # the trace shows bound values: one kind of statement, one line


def wait(
    bench: Bench, workers: Sequence[Program], until: Callable[[Sequence[Record]], bool], cap: float
) -> list[Record]:
    """All records, once ``until`` holds for them, or when ``cap`` seconds are over."""
    reader = Reader(bench.directory)
    wait_for(lambda: until(reader.read()), workers, cap)
    return Reader(bench.directory).read()


def _started(bench: Bench, worker: Program) -> float:
    """When the first job ran, of a worker that has one waiting."""
    records = wait(bench, [worker], lambda found: len(found) > 0, READY_CAP)
    if not records:
        raise RuntimeError(f"{bench.spec.name}: the worker ran nothing within {READY_CAP:.0f} s")
    return records[0].at


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


class _Used:
    """CPU that workers and the server use from now on, in microseconds a job."""

    def __init__(self, bench: Bench, workers: Sequence[Program] = ()) -> None:
        self._bench, self._workers = bench, workers
        self._before = self._worker(), bench.server_cpu()

    def _worker(self) -> float:
        return sum(worker.cpu_seconds() for worker in self._workers)

    def per_job(self, jobs: int) -> Figures:
        server = self._bench.server_cpu()
        return {
            "worker_us": (self._worker() - self._before[0]) / jobs * 1e6,
            "server_us": None if server is None else (server - (self._before[1] or 0.0)) / jobs * 1e6,
        }


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
        used = _Used(bench, [worker])
        if not bench.spec.inside:
            enqueue_s = bench.ask("enqueue_at", **spread)
        wanted = sizes.late_jobs + markers
        records = wait(bench, [worker], lambda found: len(found) >= wanted, sizes.late_cap_s)[markers:]
        cost = used.per_job(sizes.late_jobs)
        memory = worker.peak_memory_mb()
    finally:
        worker.stop()
    late = sorted((record.at - record.due) * 1000 for record in records)
    return {
        "p50": percentile(late, 0.5),
        "p99": percentile(late, 0.99),
        "max": late[-1],
        "early": sum(1 for value in late if value < 0),
        "missing": sizes.late_jobs - len({record.index for record in records}),
        "doubled": len(records) - len({record.index for record in records}),
        "enqueue_s": enqueue_s,
        "memory_mb": memory,
        **cost,
    }


def start_up(bench: Bench, _sizes: Sizes) -> Figures:
    """From starting the worker's process to its first job running, seconds."""
    bench.fresh()
    bench.ask("enqueue_many", count=1, delay=0, kind="noop")
    bench.settle()
    worker = bench.start_worker()
    try:
        seconds = _started(bench, worker) - worker.started_at
        return {"seconds": seconds, "cpu_s": worker.cpu_seconds(), "memory_mb": worker.peak_memory_mb()}
    finally:
        worker.stop()


def drain(bench: Bench, sizes: Sizes) -> Figures:
    """No-op jobs, due before the worker starts. ``seconds`` from its start to the last handler's end."""
    return _drain(bench, sizes.drain_jobs, "noop")


def groups(bench: Bench, sizes: Sizes) -> Figures:
    """The same with as many jobs as groups: in none, and each in a group of its own; and two in each group."""
    return {
        "none": _drain(bench, sizes.groups, "noop"),
        "one": _drain(bench, sizes.groups, f"grouped {sizes.groups}"),
        "two": _drain(bench, 2 * sizes.groups, f"grouped {sizes.groups}"),
    }


def _drain(bench: Bench, jobs: int, kind: str) -> Figures:
    bench.fresh()
    stored = bench.ask("enqueue_many", count=jobs, delay=0, kind=kind)["seconds"]
    bench.bulk_s = bench.bulk_s or stored
    bench.settle()
    used = _Used(bench)
    worker = bench.start_worker()
    try:
        records = wait(bench, [worker], lambda found: len(found) >= jobs, 300.0)
        time.sleep(0.5)  # the last acks
        memory = worker.peak_memory_mb()
        cost = used.per_job(jobs) | {"cpu_s": worker.cpu_seconds()}
    finally:
        worker.stop()
    first, last = min(r.at for r in records), max(r.at for r in records)
    return {
        "per_s": len(records) / max(last - first, 1e-9),
        "seconds": last - worker.started_at,
        "missing": jobs - len({record.index for record in records}),
        "doubled": len(records) - len({record.index for record in records}),
        "memory_mb": memory,
        **cost,
        **bench.ask("results"),
    }


def together(bench: Bench, sizes: Sizes) -> Figures:
    """No-op jobs that come due at one moment, while one worker process waits for them, and while eight do."""
    return {str(processes): _together(bench, sizes, processes) for processes in (1, sizes.fleet)}


def _together(bench: Bench, sizes: Sizes, processes: int) -> Figures:
    jobs = sizes.fleet_jobs
    if bench.bulk_s is None:
        bench.fresh()
        bench.bulk_s = bench.ask("enqueue_many", count=jobs, delay=3600, kind="noop")["seconds"]
    bench.fresh()
    due = time.time() + sizes.fleet_start_s + 1.5 * bench.bulk_s
    bench.ask("enqueue_many", count=jobs, due=due, kind="noop")
    workers = [bench.start_worker() for _ in range(processes)]
    try:
        ahead = due - time.time()
        if ahead < 1:
            raise RuntimeError(f"{bench.label}: its jobs came due before its {processes} workers ran")
        time.sleep(ahead - 0.5)
        used = _Used(bench, workers)
        records = wait(bench, workers, lambda found: len(found) >= jobs, 300.0)
        last = max(record.at for record in records)
        time.sleep(0.5)  # the last acks
        cost = used.per_job(jobs)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.stop()
    return {
        "per_s": len(records) / (last - min(record.at for record in records)),
        "since_due_per_s": len(records) / (last - due),
        "missing": jobs - len({record.index for record in records}),
        "doubled": len(records) - len({record.index for record in records}),
        **cost,
    }


def enqueue(bench: Bench, sizes: Sizes) -> Figures:
    """Jobs due in an hour, no worker: single calls by the round, and one bulk call."""
    bench.fresh()
    jobs = sizes.single_jobs
    used = _Used(bench)
    rounds = bench.ask("enqueue_single", count=jobs, rounds=sizes.enqueue_rounds, delay=3600)
    single_us = used.per_job(jobs * sizes.enqueue_rounds)["server_us"]
    bench.fresh()
    used = _Used(bench)
    bulk = bench.ask("enqueue_many", count=sizes.bulk_jobs, delay=3600, kind="noop") if bench.spec.bulk else None
    return {
        "single_per_s": jobs / median(rounds),
        "single_rounds": [jobs / seconds for seconds in rounds],
        "single_server_us": single_us,
        "bulk_per_s": sizes.bulk_jobs / bulk["seconds"] if bulk else None,
        "bulk_server_us": used.per_job(sizes.bulk_jobs)["server_us"] if bulk else None,
    }


def idle(bench: Bench, sizes: Sizes) -> Figures:
    """100 jobs a day ahead: CPU seconds of the worker's processes, and what they asked of the store."""
    bench.fresh()
    bench.ask("enqueue_many", count=100, delay=86_400, kind="noop")
    worker = bench.start_worker(trace=bench.start_counting())
    try:
        time.sleep(sizes.settle_s)
        worker.check()
        cpu, server, calls, begin = worker.cpu_seconds(), bench.server_cpu(), bench.calls(), time.time()
        time.sleep(sizes.idle_s)
        worker.check()
        cpu, calls_after, end = worker.cpu_seconds() - cpu, bench.calls(), time.time()
        server_cpu = None if server is None else (bench.server_cpu() or 0.0) - server
        memory = worker.peak_memory_mb()
    finally:
        worker.stop()
    commands = {name: n - calls.get(name, 0) for name, n in calls_after.items() if n > calls.get(name, 0)}
    statements = _counts(bench, begin, end)
    return {
        "cpu_s": cpu,
        "server_cpu_s": server_cpu,
        "seconds": end - begin,
        "statements": None if bench.spec.store == "redis" else sum(statements.values()),
        "commands": sum(commands.values()) if bench.spec.redis else None,
        "top": dict(sorted((statements | commands).items(), key=lambda item: -item[1])[:20]),
        "memory_mb": memory,
        "durability": _durability(bench),
    }


def idle_server(postgres: Postgres, sizes: Sizes) -> Figures:
    """What a PostgreSQL server uses when nobody is connected."""
    time.sleep(sizes.settle_s)
    before = postgres.cpu_seconds()
    time.sleep(sizes.idle_s)
    return {"server_cpu_s": postgres.cpu_seconds() - before, "seconds": sizes.idle_s}


def _durability(bench: Bench) -> str:
    """What the worker's connections set, as the store saw it."""
    if bench.spec.store == "redis":
        return "appendfsync everysec"
    text = "\n".join(statement for _, statement in bench.statements())
    name = "synchronous_commit" if bench.spec.store == "postgres" else "synchronous"
    modes = sorted(set(re.findall(rf"(?i)(?:pragma|set\s+(?:local|session)?)\s*{name}\s*(?:=|to)\s*(\w+)", text)))
    return f"{name}={', '.join(modes)}" if modes else f"{name} not set (the store's default: on)"


def _counts(bench: Bench, begin: float, end: float) -> dict[str, int]:
    counts: dict[str, int] = {}
    for at, statement in bench.statements():
        if begin <= at <= end:
            kind = _NUMBER.sub("?", " ".join(statement.split()))[:120]
            counts[kind] = counts.get(kind, 0) + 1
    return counts


WORK: dict[str, Callable[[Bench, Sizes], Figures]] = {
    "lateness": lateness,
    "start": start_up,
    "drain": drain,
    "enqueue": enqueue,
    "groups": groups,
    "together": together,
    "idle": idle,
}
