"""The plans of the hot statements: by an index, whatever the statistics say, and no dearer with a million far jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from oncue.store.postgres.connection import SETTINGS
from oncue.store.postgres.run import named
from tests.databases import POSTGRES, Backend, database

FAR = 1_000_000
NOW = 1_800_000_000_000_000
OPEN = {"except": "[]", "held": "[]"}
HOUR = 3_600_000_000


@pytest.fixture(scope="module", params=POSTGRES)
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A million far jobs in 100,000 groups; 5,000 due ones, 1,000 of them in groups; 500 that run. Never analysed."""
    with database(request.param, tmp_path_factory.mktemp("plans")) as made, psycopg.connect(made.url) as conn:
        conn.execute("ALTER TABLE oncue.oncue_job SET (autovacuum_enabled = off)")
        columns = "task, args, queue, priority, max_attempts, created_at, scheduled_at, eligible_at"
        rows = f"INSERT INTO oncue.oncue_job ({columns}"
        same = f"SELECT 't', '{{}}', 'default', 0, 5, {NOW}"
        conn.execute(
            f"{rows}, group_name) {same}, {NOW + HOUR} + n, {NOW + HOUR} + n, 'far' || n % 100000"
            f" FROM generate_series(1, {FAR}) n"
        )
        conn.execute(
            f"{rows}, group_name) {same}, {NOW} - n, {NOW} - n, CASE WHEN n <= 1000 THEN 'g' || n % 100 END"
            " FROM generate_series(1, 5000) n"
        )
        conn.execute(
            f"{rows}, state, attempt, worker, claimed_at) {same}, 1, 1, 'running', 1, 7, 1 FROM generate_series(1, 500)"
        )
        conn.execute(
            "INSERT INTO oncue.oncue_worker (id, name, host, pid, started_at, seen_at, lease_until)"
            f" VALUES (7, 'w', 'h', 1, 1, 1, {NOW + HOUR})"
        )
        conn.commit()
        yield made


def plan(conn: psycopg.Connection[Any], name: str, values: dict[str, Any]) -> dict[str, Any]:
    """The plan as it was carried out, by the plan that serves all arguments."""
    text, args = named(name, "oncue", values)
    conn.execute("SET plan_cache_mode = force_generic_plan")
    conn.execute(f"PREPARE asked AS {text}")
    given = f"({', '.join(literal(conn, one) for one in args)})" if args else ""
    row = conn.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE asked{given}").fetchone()
    conn.execute("DEALLOCATE asked")
    assert row is not None
    found: dict[str, Any] = row[0][0]["Plan"]
    return found


def literal(conn: psycopg.Connection[Any], value: Any) -> str:
    return psycopg.sql.Literal(value).as_string(conn)


def nodes(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield found
    for child in found.get("Plans", ()):
        yield from nodes(child)


ENDED = {"started_at": [NOW] * 200, "finished_at": [NOW] * 200, "state": ["completed"] * 200}
NOTHING: list[str | None] = [None] * 200
HOT: dict[str, dict[str, Any]] = {
    "peek": {"worker": 7, "bound": [], "unknown": []},
    "claim_plain": {
        "worker": 7, "now": NOW, "until": NOW, "count": 200, "queue": "default", "priority": 0, "bound": [],
        "unknown": [],
    },
    "lane_head": {"queue": "default", "priority": 0, "bound": [], "unknown": []},
    "candidates": {"queue": "default", "priority": 0, "until": NOW, "now": NOW, "count": 200, **OPEN},
    "next_in_lane": {"queue": "default", "priority": 0, **OPEN},
    "lane_after": {"queue": "default", "priority": 0, "until": NOW, **OPEN},
    "claim_jobs": {"worker": 7, "now": NOW, "ids": json.dumps(list(range(FAR + 2001, FAR + 2201)))},
    "group_heads": {"groups": json.dumps([f"far{n}" for n in range(200)])},
    "busy_groups": {"groups": json.dumps([f"far{n}" for n in range(200)])},
    "waiting_with_keys": {"keys": json.dumps([f"k{n}" for n in range(100)])},
    "started_with_keys": {"keys": json.dumps([f"k{n}" for n in range(100)])},
    "started_keys": {"keys": json.dumps([f"k{n}" for n in range(100)])},
    "release_heads": {"names": json.dumps([f"group:g{n}" for n in range(100)])},
    "coming": {"after": NOW, "until": NOW + 2 * HOUR, "limit": 500, "queues": None},
    "stuck_names": {},
    "workers": {},
    "prunable": {"now": NOW, "before": NOW},
    "extend_lease": {"worker": 7, "now": NOW, "until": NOW},
    "give_up": {"worker": 7, "before": 1 << 62},
    "jobs_of_worker": {"worker": 7},
    "drop_worker": {"worker": 7},
    "finish_completed": {
        "id": list(range(FAR + 5301, FAR + 5401)), "started_at": [NOW] * 100, "finished_at": [NOW] * 100,
        "retention": HOUR, "worker": 7, "attempt": 1,
    },
    "finish_jobs": {
        **ENDED, "id": list(range(FAR + 5001, FAR + 5201)), "outcome": ["completed"] * 200, "result": NOTHING,
        "error": NOTHING, "traceback": NOTHING, "reason": NOTHING, "expires_at": [NOW + HOUR] * 200, "worker": 7,
        "attempt": 1,
    },
}  # fmt: skip
# How many rows each answers with; one where nothing is said.
ROWS = {"claim_plain": 200, "claim_jobs": 0, "release_heads": 0, "extend_lease": 0, "give_up": 0, "drop_worker": 0}


@pytest.mark.slow
@pytest.mark.parametrize("statistics", ["never analysed", "fresh"])
def test_no_hot_statement_reads_the_whole_table(table: Backend, statistics: str) -> None:
    """Neither a scan of all jobs, nor work that grows with those that are not due."""
    options = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items() if name != "application_name")
    with psycopg.connect(table.url, options=options) as conn:
        if statistics == "fresh":
            conn.execute("ANALYZE oncue.oncue_job")
            conn.commit()
        for name, values in HOT.items():
            found = plan(conn, name, values)
            scans = [one for one in nodes(found) if one["Node Type"] == "Seq Scan"]
            assert not [one for one in scans if one["Relation Name"].startswith("oncue_job")], (name, scans)
            assert found["Actual Rows"] == ROWS.get(name, 1), name
            read = found["Shared Hit Blocks"] + found["Shared Read Blocks"]
            assert read < 8_000, f"{name} read {read} pages"
            conn.rollback()


def test_both_dialects_have_the_same_queries_in_the_same_order() -> None:
    """What only PostgreSQL has: statements that save round trips, and the deferred releases."""
    from oncue.store.sql import queries

    only_postgres = {
        "take_worker_ids", "insert_plain", "notify", "time", "identity", "free_jobs", "release_later", "lane_head",
        "take_releases", "claim_plain", "prunable", "finish_completed",
    }  # fmt: skip
    # Finishing is one statement on PostgreSQL.
    only_sqlite = {"drop_jobs"}
    sqlite, postgres = list(queries("sqlite")), list(queries("postgres"))
    assert only_postgres <= set(postgres)
    assert only_sqlite <= set(sqlite)
    assert [name for name in postgres if name not in only_postgres] == [
        name for name in sqlite if name not in only_sqlite
    ]
