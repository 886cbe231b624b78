"""The peers of the run. Each has a file beside this one (BullMQ: ``bench/node/bullmq.mjs``)."""

from __future__ import annotations

from dataclasses import dataclass

ALL_WORK = frozenset({"lateness", "drain", "enqueue", "idle", "crash"})


@dataclass(frozen=True, slots=True)
class Spec:
    """What the runner must know of a peer before it runs it."""

    name: str
    runtime: str  # which interpreter: "own" (OnCue's), "peers" (the peers' venv) or "node"
    program: str  # module, or script for Node
    redis: bool = False
    bulk: bool = False  # has a call for many jobs at once
    inside: bool = False  # only the worker's own process can schedule while it runs
    work: frozenset[str] = ALL_WORK
    singles: str = "one after another (its API is synchronous)"
    note: str = ""


PEERS: dict[str, Spec] = {
    spec.name: spec
    for spec in (
        Spec(
            "oncue",
            "own",
            "bench.peers.oncue_sqlite",
            bulk=True,
            singles="concurrent (gather)",
            note="SQLite, synchronous=FULL, history kept",
        ),
        Spec(
            "huey-sqlite",
            "peers",
            "bench.peers.huey_sqlite",
            note="SQLite WAL, synchronous=FULL (SQLite's default), 1 thread, no history",
        ),
        Spec(
            "apscheduler-sqlite",
            "peers",
            "bench.peers.apscheduler_sqlite",
            inside=True,
            note="SQLite by SQLAlchemy, rollback journal, timers in memory, 10 threads, no history",
        ),
        Spec(
            "celery-redis",
            "peers",
            "bench.peers.celery_redis",
            redis=True,
            note="Valkey, appendfsync everysec, timers in memory, prefork pool of 2, no history",
        ),
        Spec(
            "bullmq-node",
            "node",
            "bench/node/bullmq.mjs",
            redis=True,
            bulk=True,
            singles="concurrent (Promise.all)",
            note="Valkey, appendfsync everysec, concurrency 1, history kept",
        ),
        Spec(
            "asyncio",
            "own",
            "bench.peers.asyncio_timer",
            inside=True,
            work=frozenset({"lateness"}),
            note="a bare timer in memory: the bound, not a peer",
        ),
    )
}
