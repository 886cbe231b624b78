"""The judge finds each fault that it is there to find: a test of the tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash.check import judge
from tests.crash.ledger import Ledger

Act = Callable[[Ledger, sqlite3.Connection], None]


def _ran(ledger: Ledger, token: str, *, job: int = 1, attempt: int = 1, pid: int = 7, now: int = 100) -> None:
    for event in ("start", "end"):
        ledger.write(event, token, pid=pid, now=now, job=job, attempt=attempt, due=50, group="lane")


def _all_well(ledger: Ledger, conn: sqlite3.Connection) -> None:
    ledger.write("promised", "a", due=50)
    _ran(ledger, "a")
    ledger.write("acked", pid=7, job=1, attempt=1)


def _lost(ledger: Ledger, conn: sqlite3.Connection) -> None:
    ledger.write("promised", "b", due=50)


def _early(ledger: Ledger, conn: sqlite3.Connection) -> None:
    conn.execute("INSERT INTO oncue_finished VALUES (2, 1, 'completed', '{}')")
    _ran(ledger, "b", job=2, now=49)


def _overlapping(ledger: Ledger, conn: sqlite3.Connection) -> None:
    conn.execute("INSERT INTO oncue_finished VALUES (2, 1, 'completed', '{}')")
    ledger.write("start", "b", pid=7, now=100, job=2, attempt=1, group="lane")
    ledger.write("start", "c", pid=8, now=100, job=1, attempt=1, group="lane")


def _doubled(ledger: Ledger, conn: sqlite3.Connection) -> None:
    conn.execute("INSERT INTO oncue_attempt VALUES (1, 2, 0, 0, 'retried', 'why')")
    ledger.write("killed", pid=7)
    _ran(ledger, "a", attempt=2, pid=8)


def _doubled_without_a_death(ledger: Ledger, conn: sqlite3.Connection) -> None:
    conn.execute("INSERT INTO oncue_attempt VALUES (9, 1, 0, 0, 'retried', 'why'), (9, 2, 0, 0, 'retried', 'why')")
    _ran(ledger, "b", job=9)
    _ran(ledger, "b", job=9, attempt=2)


def _ghosts(ledger: Ledger, conn: sqlite3.Connection) -> None:
    conn.execute("INSERT INTO oncue_finished VALUES (2, 1, 'completed', '{}')")
    ledger.write("doomed", "b")
    _ran(ledger, "b", job=2)


def _torn(ledger: Ledger, conn: sqlite3.Connection) -> None:
    conn.execute("CREATE TABLE note (token TEXT)")
    conn.execute("INSERT INTO note VALUES ('mine-1')")


def _silent(ledger: Ledger, conn: sqlite3.Connection) -> None:
    _ran(ledger, "b", job=3)


def _damage(ledger: Ledger, conn: sqlite3.Connection) -> None:
    conn.execute("INSERT INTO oncue_job VALUES (4, 'running', '{}')")


@pytest.mark.parametrize(
    ("kind", "act"),
    [
        ("", lambda *_: None),
        ("lost", _lost),
        ("early", _early),
        ("overlapping", _overlapping),
        ("doubled", _doubled),
        ("doubled", _doubled_without_a_death),
        ("ghosts", _ghosts),
        ("torn", _torn),
        ("silent", _silent),
        ("damage", _damage),
    ],
)
def test_the_judge_finds(tmp_path: Path, kind: str, act: Act) -> None:
    ledger = Ledger(tmp_path / "ledger")
    with closing(sqlite3.connect(tmp_path / "db")) as conn, conn:
        conn.execute("CREATE TABLE oncue_finished (id, attempt, state, args)")
        conn.execute("CREATE TABLE oncue_attempt (job, attempt, started_at, finished_at, outcome, reason)")
        conn.execute("CREATE TABLE oncue_job (id, state, args)")
        conn.execute("INSERT INTO oncue_finished VALUES (1, 1, 'completed', '{\"token\": \"a\"}')")
        _all_well(ledger, conn)
        act(ledger, conn)
    assert set(judge(tmp_path / "ledger", tmp_path / "db").wrong) == ({kind} if kind else set())
    ledger.close()
