"""What the machine itself can do, in the same run: SQLite at synchronous=FULL and asyncio."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from pathlib import Path

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


def measure(directory: Path, runs: int) -> dict[str, list[float]]:
    """Each bound in operations a second, once a run."""
    found: dict[str, list[float]] = {}

    directory.mkdir(parents=True, exist_ok=True)
    for _ in range(runs):
        for old in directory.glob("bound.db*"):
            old.unlink()
        db = _connect(directory / "bound.db")
        once = {
            "SQLite insert, 500 a commit, rows/s": _insert(db, 50_000, _BATCH),
            "SQLite claim and delete, 500 a commit each, rows/s": _claim_and_delete(db, 50_000),
            "SQLite insert, one a commit, rows/s": _insert(db, 2_000, 1),
            "write 4 KiB and fdatasync, /s": _sync(directory, 500),
            "asyncio create_task, run and gather, /s": asyncio.run(_tasks(100_000)),
        }
        db.close()
        for name, value in once.items():
            found.setdefault(name, []).append(value)
    return found
