"""The judge finds each fault that it is there to find, and excuses what the design allows: a test of the tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import pg
from tests.crash.check import EVERYBODY, judge
from tests.crash.ledger import Ledger

Act = Callable[[Ledger, Any], None]


def _ran(ledger: Ledger, token: str, *, job: int = 1, attempt: int = 1, pid: int = 7, now: int = 100) -> None:
    for event in ("start", "end"):
        ledger.write(event, token, pid=pid, now=now, job=job, attempt=attempt, due=50, group="lane")


def _all_well(ledger: Ledger, conn: Any) -> None:
    ledger.write("promised", "a", due=50)
    _ran(ledger, "a")
    ledger.write("acked", pid=7, job=1, attempt=1)


def _lost(ledger: Ledger, conn: Any) -> None:
    ledger.write("promised", "b", due=50)


def _early(ledger: Ledger, conn: Any) -> None:
    conn.execute("INSERT INTO oncue_finished VALUES (2, 1, 'completed', '{}')")
    _ran(ledger, "b", job=2, now=49)


def _overlapping(ledger: Ledger, conn: Any) -> None:
    conn.execute("INSERT INTO oncue_finished VALUES (2, 1, 'completed', '{}')")
    ledger.write("start", "b", pid=7, now=100, job=2, attempt=1, group="lane")
    ledger.write("start", "c", pid=8, now=100, job=1, attempt=1, group="lane")


def _doubled(ledger: Ledger, conn: Any) -> None:
    conn.execute("INSERT INTO oncue_attempt VALUES (1, 2, 0, 0, 'retried', 'why')")
    ledger.write("killed", pid=7)
    _ran(ledger, "a", attempt=2, pid=8)


def _doubled_without_a_death(ledger: Ledger, conn: Any) -> None:
    conn.execute("INSERT INTO oncue_attempt VALUES (9, 1, 0, 0, 'retried', 'why'), (9, 2, 0, 0, 'retried', 'why')")
    _ran(ledger, "b", job=9)
    _ran(ledger, "b", job=9, attempt=2)


def _ghosts(ledger: Ledger, conn: Any) -> None:
    conn.execute("INSERT INTO oncue_finished VALUES (2, 1, 'completed', '{}')")
    ledger.write("doomed", "b")
    _ran(ledger, "b", job=2)


def _torn(ledger: Ledger, conn: Any) -> None:
    conn.execute("CREATE TABLE note (token TEXT)")
    conn.execute("INSERT INTO note VALUES ('mine-1')")


def _silent(ledger: Ledger, conn: Any) -> None:
    _ran(ledger, "b", job=3)


def _damage(ledger: Ledger, conn: Any) -> None:
    conn.execute("INSERT INTO oncue_job VALUES (4, 'running', '{}')")


def _two_runs(ledger: Ledger, conn: Any, *, token: str = "b", taken: int | None = None) -> None:
    """Of process 7 from 1,000 on and of process 8 from 2,000 on; taken back in between where ``taken`` says when."""
    ledger.write("start", token, pid=7, at=1_000, now=100, job=9, attempt=1, group="other")
    ledger.write("end", token, pid=7, at=1_500, job=9, attempt=1)
    ledger.write("start", token, pid=8, at=2_000, now=100, job=9, attempt=2, group="other")
    ledger.write("end", token, pid=8, at=2_500, job=9, attempt=2)
    conn.execute("INSERT INTO oncue_finished VALUES (9, 2, 'completed', '{}')")
    outcome = "retried" if taken is None else "rescued"
    conn.execute(f"INSERT INTO oncue_attempt VALUES (9, 1, 900, {taken or 1_500}, '{outcome}', 'why')")


def _away(ledger: Ledger, conn: Any) -> None:
    ledger.write("away", pid=EVERYBODY, at=1_200)
    ledger.write("back", pid=EVERYBODY, at=1_300)
    _two_runs(ledger, conn)


def _stopped(ledger: Ledger, conn: Any) -> None:
    ledger.write("frozen", pid=7, at=1_200)
    _two_runs(ledger, conn)


def _another_stopped(ledger: Ledger, conn: Any) -> None:
    ledger.write("frozen", pid=8, at=1_200)
    ledger.write("thawed", pid=8, at=1_300)
    _two_runs(ledger, conn)


def _back_before(ledger: Ledger, conn: Any) -> None:
    ledger.write("away", pid=EVERYBODY, at=700)
    ledger.write("back", pid=EVERYBODY, at=800)
    _two_runs(ledger, conn)


def _away_but_recorded(ledger: Ledger, conn: Any) -> None:
    _away(ledger, conn)
    ledger.write("acked", pid=7, at=1_600, job=9, attempt=1)


def _killed_after(ledger: Ledger, conn: Any) -> None:
    _two_runs(ledger, conn)
    ledger.write("killed", pid=7, at=3_000)


def _killed_long_after_its_end(ledger: Ledger, conn: Any) -> None:
    ledger.write("killed", pid=7, at=7_000_000)
    ledger.write("start", "b", pid=8, at=8_000_000, now=100, job=9, attempt=3)
    ledger.write("start", "b", pid=7, at=1_000, now=100, job=9, attempt=2)
    ledger.write("end", "b", pid=7, at=1_500, job=9, attempt=2)
    conn.execute("INSERT INTO oncue_attempt VALUES (9, 2, 900, 7500000, 'rescued', 'why')")
    conn.execute("INSERT INTO oncue_finished VALUES (9, 3, 'completed', '{}')")


def _failed(ledger: Ledger, conn: Any) -> None:
    _two_runs(ledger, conn)
    ledger.write("failed", "b", pid=7, at=1_500, job=9, attempt=1)


def _two_jobs(ledger: Ledger, conn: Any) -> None:
    ledger.write("killed", pid=7, at=1_900)
    ledger.write("start", "b", pid=8, at=3_000, now=100, job=1, attempt=3)
    conn.execute("INSERT INTO oncue_attempt VALUES (1, 3, 0, 0, 'retried', 'why')")
    _two_runs(ledger, conn)


def _zombie(ledger: Ledger, conn: Any) -> None:
    """What it still does after its jobs were taken back is outside of what the database can hold."""
    _stopped(ledger, conn)
    conn.execute("UPDATE oncue_attempt SET outcome = 'rescued', finished_at = 950 WHERE job = 9")
    ledger.write("start", "c", pid=8, at=1_100, now=100, job=1, attempt=1, group="other")
    ledger.write("end", "c", pid=8, at=1_900, job=1, attempt=1)


def _taken_too_late(ledger: Ledger, conn: Any) -> None:
    """The same, but the other began while the claim still held."""
    _zombie(ledger, conn)
    conn.execute("UPDATE oncue_attempt SET finished_at = 1200 WHERE job = 9")


def _moved(ledger: Ledger, conn: Any) -> None:
    ledger.write("promised", "a", due=200)


def _prevented(ledger: Ledger, conn: Any) -> None:
    ledger.write("prevented", "b", at=1_100)
    _two_runs(ledger, conn)
    ledger.write("killed", pid=7, at=1_600)


def _prevented_between_attempts(ledger: Ledger, conn: Any) -> None:
    ledger.write("prevented", "a")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with pg.running().database() as made:
        yield made.dsn


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path, server: str) -> Iterator[tuple[Path | str, Any]]:
    if request.param == "sqlite":
        with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as conn:
            yield tmp_path / "db", conn
        return
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute("DROP SCHEMA IF EXISTS oncue CASCADE")
        conn.execute("CREATE SCHEMA oncue")
        conn.execute("SET search_path = oncue")
        yield server, conn


@pytest.mark.parametrize(
    ("kind", "act"),
    [
        ("", lambda *_: None),
        ("lost", _lost),
        ("early", _early),
        ("early", _moved),
        ("overlapping", _overlapping),
        ("overlapping", _taken_too_late),
        ("", _zombie),
        ("doubled", _doubled),
        ("doubled", _doubled_without_a_death),
        ("doubled", _two_runs),
        ("doubled", _another_stopped),
        ("doubled", _back_before),
        ("doubled", _away_but_recorded),
        ("doubled", _killed_after),
        ("doubled", _killed_long_after_its_end),
        ("doubled", _two_jobs),
        ("", _away),
        ("", _stopped),
        ("", _failed),
        ("ghosts", _ghosts),
        ("ghosts", _prevented),
        ("", _prevented_between_attempts),
        ("torn", _torn),
        ("silent", _silent),
        ("damage", _damage),
    ],
)
def test_the_judge_finds(tmp_path: Path, database: tuple[Path | str, Any], kind: str, act: Act) -> None:
    ledger = Ledger(tmp_path / "ledger")
    place, conn = database
    conn.execute("CREATE TABLE oncue_finished (id bigint, attempt int, state text, args text)")
    conn.execute(
        "CREATE TABLE oncue_attempt (job bigint, attempt int, started_at bigint, finished_at bigint, "
        "outcome text, reason text)"
    )
    conn.execute("CREATE TABLE oncue_job (id bigint, state text, args text)")
    conn.execute("INSERT INTO oncue_finished VALUES (1, 1, 'completed', '{\"token\": \"a\"}')")
    _all_well(ledger, conn)
    act(ledger, conn)
    assert set(judge(tmp_path / "ledger", place).wrong) == ({kind} if kind else set())
    ledger.close()
