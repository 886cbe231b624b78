"""What goes wrong between a client and PostgreSQL: a proxy that cuts, hangs or slows connections, and PgBouncer.

    def test_it(pg_database: pg.Database, pg_proxy: pgfaults.Proxy) -> None:
        dsn = pg_proxy.dsn(pg_database.dsn)  # the same database, through the proxy
        pg_proxy.silence()  # nothing moves, nothing is closed; what was sent arrives after heal()
        pg_proxy.silence("to_client")  # the server does what it is told, its answers don't come
        pg_proxy.cut()  # RST to both ends of every connection
        pg_proxy.refuse()  # new connections are refused
        pg_proxy.delay(0.05)  # each piece of data comes later by 50 ms, in each direction
        pg_proxy.heal()

Every call returns when the fault is there, and may be made from a coroutine: the proxy runs in a thread of its own.
The proxy's side of a silent connection is a healthy TCP peer: keepalive probes and TCP_USER_TIMEOUT see nothing wrong.

`pgbouncer` is a PgBouncer in transaction mode in front of the shared server; `pgbouncer.dsn(pg_database.dsn)` goes
through it. Tests that need it are skipped where it isn't installed, and the end of pytest's output says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

import pytest

from tests import pg
from tests.pgprocess import START_SECONDS, free_port, listens, make_folder, popen

Direction = Literal["to_server", "to_client"]
BOTH: tuple[Direction, Direction] = ("to_server", "to_client")

PGBOUNCER = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))

ACTION_SECONDS = 10.0
# Closing a socket with this linger sends RST.
RESET = struct.pack("ii", 1, 0)


def through(dsn: str, port: int) -> str:
    """The URL with its host and port replaced by a port of this machine."""
    parts = urlsplit(dsn)
    user = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{user}@127.0.0.1:{port}" if user else f"127.0.0.1:{port}").geturl()


class Proxy:
    """A TCP proxy on 127.0.0.1 to the server of a URL, with faults that a test turns on and off."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pg-proxy", daemon=True)
        self._open: dict[Direction, asyncio.Event] = {way: asyncio.Event() for way in BOTH}
        self._delay = 0.0
        self._listener: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        self.heal()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.refuse()
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def dsn(self, dsn: str) -> str:
        """The URL of a database of the server, by way of this proxy."""
        return through(dsn, self.port)

    @property
    def connections(self) -> int:
        """How many connections of clients are open now, silent ones too."""
        return len(self._links)

    def cut(self) -> None:
        """Reset every connection, to the client and to the server. New ones are taken."""
        self._do(self._cut)

    def silence(self, *ways: Direction) -> None:
        """Hold back what is sent, and what is closed, in these directions (both by default), on new connections too."""

        def close_gates() -> None:
            for way in ways or BOTH:
                self._open[way].clear()

        self._do(close_gates)

    def refuse(self) -> None:
        """Refuse new connections. Those that are open stay."""
        self._do(self._refuse)

    def delay(self, seconds: float) -> None:
        """Bring each piece of data, in each direction, so many seconds later."""
        self._do(lambda: setattr(self, "_delay", seconds))

    def heal(self) -> None:
        """End every fault: what was held back goes on its way, and new connections are taken."""
        self._do(self._heal)

    def _do(self, action: Callable[[], object]) -> None:
        async def act() -> None:
            result = action()
            if asyncio.iscoroutine(result):
                await result

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(ACTION_SECONDS)

    async def _cut(self) -> None:
        tasks = list(self._links)
        for task in tasks:
            for writer in self._links[task]:
                _reset(writer)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refuse(self) -> None:
        if self._listener is not None:
            # wait_closed() would wait for the open connections since Python 3.12.
            self._listener.close()
            self._listener = None

    async def _heal(self) -> None:
        self._delay = 0.0
        for gate in self._open.values():
            gate.set()
        if self._listener is None:
            self._listener = await asyncio.start_server(self._take, "127.0.0.1", self.port)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        writers = self._links[task] = [writer]
        try:
            await self._open["to_server"].wait()
            server_reader, server_writer = await asyncio.open_connection(*self._target)
            writers.append(server_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump("to_server", reader, server_writer))
                pumps.create_task(self._pump("to_client", server_reader, writer))
        except* (OSError, asyncio.CancelledError):
            for each in writers:
                _reset(each)
        finally:
            for each in writers:
                each.close()
            del self._links[task]

    async def _pump(self, way: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                data = await reader.read(65536)
            except OSError:
                await self._open[way].wait()
                raise
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._open[way].wait()
            if not data:
                break
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, whatever is still to be sent."""
    raw: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


class PgBouncer:
    """PgBouncer in front of the server of a URL, in transaction mode unless the settings say otherwise.

    LookupError when it isn't installed. As root it runs as `nobody`. It dies with this process at the latest.
    """

    def __init__(self, target: str, settings: Mapping[str, str] | None = None) -> None:
        if PGBOUNCER is None:
            raise LookupError("pgbouncer isn't installed: Debian's package pgbouncer brings it")
        parts = urlsplit(target)
        self.port = free_port()
        self.folder = make_folder("oncue-pgbouncer-")
        self.log = self.folder / "log"
        options = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": str(self.folder / "users"),
            "pool_mode": "transaction",
        } | dict(settings or {})
        (self.folder / "users").write_text(f'"{parts.username}" "{parts.password or ""}"\n')
        (self.folder / "ini").write_text(
            f"[databases]\n* = host={parts.hostname or '127.0.0.1'} port={parts.port or 5432}\n[pgbouncer]\n"
            + "".join(f"{key} = {value}\n" for key, value in options.items())
        )
        self._binary = PGBOUNCER
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # Its input ends with this process.
        script = '"$1" "$2/ini" & cat >/dev/null; kill -INT $!; wait; rm -rf "$2"'
        command = ["/bin/sh", "-c", script, "watcher", self._binary, self.folder]
        with self.log.open("ab") as log:
            self._process = popen(command, self.folder, stdin=subprocess.PIPE, output=log.fileno())
        deadline = time.monotonic() + START_SECONDS
        while not listens(self.port):
            if time.monotonic() > deadline:
                said = self.log.read_text(errors="replace")
                self.close()
                raise RuntimeError(f"PgBouncer did not start:\n{said[-3000:]}")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def dsn(self, dsn: str) -> str:
        """The URL of a database of the server, by way of PgBouncer."""
        return through(dsn, self.port)

    def close(self) -> None:
        """End it and every connection through it."""
        if self._process is not None:
            self._process.communicate()
            self._process = None


@pytest.fixture
def pg_proxy(pg_server: pg.Cluster) -> Iterator[Proxy]:
    """A proxy to the shared server, without faults yet."""
    with Proxy(pg_server.dsn()) as proxy:
        yield proxy


@pytest.fixture
def pgbouncer(pg_server: pg.Cluster) -> Iterator[PgBouncer]:
    """PgBouncer in transaction mode, in front of the shared server."""
    if PGBOUNCER is None:
        pytest.skip("PgBouncer isn't installed (Debian's package pgbouncer)")
    with PgBouncer(pg_server.dsn()) as bouncer:
        yield bouncer


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud that nothing was tested through PgBouncer."""
    if PGBOUNCER is None:
        terminalreporter.section("PgBouncer", yellow=True, bold=True)
        terminalreporter.line(
            "WARNING: PgBouncer isn't installed, so nothing was tested through it. "
            "Debian's pgbouncer package brings it.",
            yellow=True,
        )
