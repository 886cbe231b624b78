"""A real server on loopback: uvicorn in a thread, and a client with a secret."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

SECRET = "an-old-secret-of-some-length"
PATH = "/api/cron/process-scheduled"
Served = Callable[[Any], Any]


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.up.set()


@contextmanager
def serving(app: Any, headers: dict[str, str] | None = None) -> Iterator[httpx.Client]:
    """Serve an ASGI application on a free port of loopback for the length of the block."""
    server = _Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="auto", ws="none"))
    failed: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(server.serve())
        except BaseException as error:
            failed.append(error)
        finally:
            server.up.set()

    thread = threading.Thread(target=run, name="uvicorn")
    thread.start()
    try:
        assert server.up.wait(60)
        if failed or not server.started:
            raise RuntimeError(f"the server did not start: {failed}")
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
def bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRET}"}
