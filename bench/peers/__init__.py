"""The peers of the run, by suite. Each has a file beside this one (those for Node: in ``bench/node/``)."""

from __future__ import annotations

from dataclasses import dataclass

ALL_WORK = frozenset({"lateness", "drain", "enqueue", "idle", "crash", "together", "elsewhere"})
SLOW_WORK = ALL_WORK - {"together"}  # for whom that would take many minutes


@dataclass(frozen=True, slots=True)
class Spec:
    """What the runner must know of a peer before it runs it."""

    name: str
    runtime: str  # which interpreter: "own" (OnCue's), "peers" (the peers' venv) or "node"
    program: str  # module, or script for Node
    store: str = "sqlite"  # or "redis" or "postgres"
    bulk: bool = False  # has a call for many jobs at once
    inside: bool = False  # only the worker's own process can schedule while it runs
    far: bool = False  # measured with far jobs pending too
    work: frozenset[str] = ALL_WORK
    singles: str = "one after another (its API is synchronous)"
    note: str = ""


_SQLITE = (
    Spec(
        "oncue",
        "own",
        "bench.peers.oncue_sqlite",
        bulk=True,
        far=True,
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
        store="redis",
        note="Valkey, appendfsync everysec, timers in memory, prefork pool of 2, no history",
    ),
    Spec(
        "bullmq-node",
        "node",
        "bench/node/bullmq.mjs",
        store="redis",
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

_POSTGRES = (
    Spec(
        "oncue",
        "own",
        "bench.peers.oncue_postgres",
        store="postgres",
        bulk=True,
        far=True,
        singles="50 callers",
        note="history kept, 200 at a time, bulk 10,000 a call",
    ),
    Spec(
        "pg-boss",
        "node",
        "bench/node/pgboss.mjs",
        store="postgres",
        bulk=True,
        far=True,
        singles="50 callers, pool of 10",
        note="history kept, poll of 2 s, batches of 500 and no pause after a full one (default 1), bulk 10,000 a call",
    ),
    Spec(
        "graphile-worker",
        "node",
        "bench/node/graphile.mjs",
        store="postgres",
        bulk=True,
        far=True,
        singles="50 callers, pool of 10",
        note="no history, poll of 2 s, 24 at a time, local queue of 500, completions batched, bulk 10,000 a call",
    ),
    Spec(
        "pgqueuer",
        "peers",
        "bench.peers.pgqueuer_postgres",
        store="postgres",
        bulk=True,
        far=True,
        singles="50 callers, pool of 10",
        note="history kept (log table), batches of 10, no limit at a time, bulk 10,000 a call",
    ),
    Spec(
        "oban",
        "peers",
        "bench.peers.oban_postgres",
        store="postgres",
        bulk=True,
        singles="50 callers, pool of 10",
        note="history kept for a day, 10 at a time, due jobs staged once a second, bulk 1,000 a call",
    ),
    Spec(
        "procrastinate",
        "peers",
        "bench.peers.procrastinate_postgres",
        store="postgres",
        work=SLOW_WORK,
        bulk=True,
        singles="50 callers, pool of 4",
        note="history kept, 1 at a time, poll of 5 s for due jobs, bulk 10,000 a call",
    ),
    Spec(
        "dbos",
        "peers",
        "bench.peers.dbos_postgres",
        store="postgres",
        work=SLOW_WORK,
        singles="50 callers, pool of 20",
        note="history kept, no limit at a time, queue polled once a second, takes over what any host left behind",
    ),
)

SUITES: dict[str, dict[str, Spec]] = {
    "sqlite": {spec.name: spec for spec in _SQLITE},
    "postgres": {spec.name: spec for spec in _POSTGRES},
}
