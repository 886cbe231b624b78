"""The peers of the run, by suite. Each has a file beside this one (those for Node: in ``bench/node/``)."""

from __future__ import annotations

from dataclasses import dataclass

ALL_WORK = frozenset({"lateness", "drain", "enqueue", "idle", "crash", "together", "elsewhere"})
OWN_WORK = ALL_WORK | {"groups"}  # which peers have no such groups for
SLOW_WORK = ALL_WORK - {"together"}  # for whom that would take many minutes
NO_HOST = ALL_WORK - {"elsewhere"}  # for whom a new worker on another host is as good as one on the same


@dataclass(frozen=True, slots=True)
class Spec:
    """What the runner must know of a peer before it runs it."""

    name: str
    runtime: str  # which interpreter: "own" (OnCue's), "node", or one of the peers' venvs (tools.py)
    program: str  # module, or script for Node
    store: str = "sqlite"  # or "redis" or "postgres"
    wake: str | None = None  # OnCue with its wake queue on Redis: the options in its URL
    bulk: bool = False  # has a call for many jobs at once
    inside: bool = False  # only the worker's own process can schedule while it runs
    far: bool = False  # measured with far jobs pending too
    work: frozenset[str] = ALL_WORK
    singles: str = "one after another (its API is synchronous)"
    note: str = ""

    @property
    def redis(self) -> bool:
        """Whether it needs a Redis server."""
        return self.store == "redis" or self.wake is not None


_ONCUE = "bench.peers.oncue_peer"
_BULLMQ_NODE = Spec(
    "bullmq-node",
    "node",
    "bench/node/bullmq.mjs",
    store="redis",
    bulk=True,
    work=NO_HOST,
    singles="concurrent (Promise.all)",
    note="Valkey, appendfsync everysec, concurrency 1, history kept",
)

_SQLITE = (
    Spec(
        "oncue",
        "own",
        _ONCUE,
        work=OWN_WORK,
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
    _BULLMQ_NODE,
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
        _ONCUE,
        work=OWN_WORK,
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


def _on_redis(name: str, wake: str, note: str, store: str = "postgres") -> Spec:
    singles = "50 callers" if store == "postgres" else "concurrent (gather)"
    return Spec(name, "own", _ONCUE, store=store, wake=wake, bulk=True, singles=singles, note=note)


_REDIS = (
    _on_redis("oncue", "", "PostgreSQL + Redis (BullMQ), history kept, 200 at a time"),
    _on_redis("oncue-timers-off", "?timers=off", "the same, but jobs run only when BullMQ delivers them"),
    _on_redis("oncue-pubsub", "?mode=pubsub", "PostgreSQL + Redis, hints alone, no BullMQ"),
    _on_redis("oncue-sqlite", "", "SQLite, synchronous=FULL, + Redis (BullMQ), history kept", store="sqlite"),
    _BULLMQ_NODE,
    Spec(
        "bullmq-python",
        "peers-redis",
        "bench.peers.bullmq_redis",
        store="redis",
        bulk=True,
        work=NO_HOST,
        singles="50 callers, one connection",
        note="1 at a time, history kept, bulk 1,000 a call",
    ),
    Spec(
        "saq",
        "peers-arq",
        "bench.peers.saq_redis",
        store="redis",
        work=NO_HOST,
        singles="50 callers, 20 at once",
        note="10 at a time, due jobs moved once a second, results kept for 10 minutes",
    ),
    Spec(
        "arq",
        "peers-arq",
        "bench.peers.arq_redis",
        store="redis",
        work=NO_HOST,
        singles="50 callers",
        note="10 at a time, poll of 0.5 s, results kept for an hour",
    ),
    Spec(
        "taskiq",
        "peers-redis",
        "bench.peers.taskiq_redis",
        store="redis",
        work=NO_HOST,
        singles="50 callers",
        note="streams, 100 at a time, schedules read once a minute by a second program, no history",
    ),
)

SUITES: dict[str, dict[str, Spec]] = {
    "sqlite": {spec.name: spec for spec in _SQLITE},
    "postgres": {spec.name: spec for spec in _POSTGRES},
    "redis": {spec.name: spec for spec in _REDIS},
}
