"""What the machine itself can do, in the same run: SQLite at synchronous=FULL or PostgreSQL, and asyncio."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from pathlib import Path

import asyncpg

from bench.postgres import Postgres

_BATCH = 500


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE job (id INTEGER PRIMARY KEY, due INTEGER NOT NULL, state INTEGER NOT NULL, body TEXT)")
    db.execute("CREATE INDEX job_due ON job (due) WHERE state = 0")
    return db


def _insert(db: sqlite3.Connection, count: int, batch: int) -> float:
    start = time.perf_counter()
    for first in range(0, count, batch):
        db.execute("BEGIN IMMEDIATE")
        rows = [(first + i, '{"index": 1}') for i in range(batch)]
        db.executemany("INSERT INTO job (due, state, body) VALUES (?, 0, ?)", rows)
        db.execute("COMMIT")
    return count / (time.perf_counter() - start)


def _claim_and_delete(db: sqlite3.Connection, count: int) -> float:
    claim = (
        "UPDATE job SET state = 1 WHERE id IN"
        " (SELECT id FROM job WHERE state = 0 AND due <= ? ORDER BY due LIMIT ?) RETURNING id, body"
    )
    start = time.perf_counter()
    for _ in range(0, count, _BATCH):
        db.execute("BEGIN IMMEDIATE")
        rows = db.execute(claim, (count, _BATCH)).fetchall()
        db.execute("COMMIT")
        db.execute("BEGIN IMMEDIATE")
        db.executemany("DELETE FROM job WHERE id = ? AND state = 1", [(row[0],) for row in rows])
        db.execute("COMMIT")
    return count / (time.perf_counter() - start)


def _sync(directory: Path, count: int) -> float:
    file = os.open(directory / "sync.bin", os.O_CREAT | os.O_WRONLY, 0o600)
    start = time.perf_counter()
    for _ in range(count):
        os.write(file, b"x" * 4096)
        os.fdatasync(file)
    seconds = time.perf_counter() - start
    os.close(file)
    return count / seconds


async def _tasks(count: int) -> float:
    async def nothing() -> None:
        pass

    start = time.perf_counter()
    for _ in range(0, count, _BATCH):
        await asyncio.gather(*[asyncio.create_task(nothing()) for _ in range(_BATCH)])
    return count / (time.perf_counter() - start)


def _sqlite(directory: Path) -> dict[str, float]:
    for old in directory.glob("bound.db*"):
        old.unlink()
    db = _connect(directory / "bound.db")
    found = {
        "SQLite insert, 500 a commit, rows/s": _insert(db, 50_000, _BATCH),
        "SQLite claim and delete, 500 a commit each, rows/s": _claim_and_delete(db, 50_000),
        "SQLite insert, one a commit, rows/s": _insert(db, 2_000, 1),
    }
    db.close()
    return found


_PG_TABLE = """
CREATE TABLE job (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, due bigint NOT NULL, body text, token bigint);
CREATE INDEX job_due ON job (due) WHERE token IS NULL
"""
_PG_INSERT = "INSERT INTO job (due, body) SELECT due, $2 FROM unnest($1::bigint[]) AS due"
_PG_CLAIM = """
UPDATE job SET token = 1 WHERE id = ANY(ARRAY(
    SELECT id FROM job WHERE token IS NULL AND due <= $1 ORDER BY due LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING id, body
"""
_PG_DELETE = "DELETE FROM job WHERE id = ANY($1::bigint[]) AND token = 1"
_BODY = '{"index": 1}'


async def _postgres(dsn: str) -> dict[str, float]:
    db = await asyncpg.connect(dsn)
    others = [await asyncpg.connect(dsn) for _ in range(20)]
    try:
        await db.execute(_PG_TABLE)
        start = time.perf_counter()
        for first in range(0, 50_000, _BATCH):
            await db.execute(_PG_INSERT, list(range(first, first + _BATCH)), _BODY)
        inserted = time.perf_counter()
        while rows := await db.fetch(_PG_CLAIM, 50_000, _BATCH):
            await db.execute(_PG_DELETE, [row[0] for row in rows])
        claimed = time.perf_counter()

        async def one_by_one(connection: asyncpg.Connection) -> None:
            for due in range(100):
                await connection.execute("INSERT INTO job (due, body) VALUES ($1, $2)", due, _BODY)

        await asyncio.gather(*(one_by_one(connection) for connection in others))
        single = time.perf_counter()
    finally:
        for connection in (db, *others):
            await connection.close()
    return {
        "PostgreSQL insert, 500 a commit, rows/s": 50_000 / (inserted - start),
        "PostgreSQL claim and delete, 500 a commit each, rows/s": 50_000 / (claimed - inserted),
        "PostgreSQL insert, one a commit, 20 connections, rows/s": len(others) * 100 / (single - claimed),
    }


def measure(directory: Path, runs: int, postgres: Postgres | None) -> dict[str, list[float]]:
    """Each bound in operations a second, once a run."""
    found: dict[str, list[float]] = {}
    directory.mkdir(parents=True, exist_ok=True)
    for _ in range(runs):
        if postgres:
            postgres.create("bounds")
            once = asyncio.run(_postgres(postgres.dsn("bounds")))
            postgres.drop("bounds")
        else:
            once = _sqlite(directory)
        once |= {
            "write 4 KiB and fdatasync, /s": _sync(directory, 500),
            "asyncio create_task, run and gather, /s": asyncio.run(_tasks(100_000)),
        }
        for name, value in once.items():
            found.setdefault(name, []).append(value)
    return found
