"""The simulator as a server of its own, on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from oncue.errors import ConfigError
from oncue.sockets import listen
from oncue.whatsapp.simulator.app import App


@asynccontextmanager
async def serving(app: App, port: int = 0) -> AsyncIterator[str]:
    """Serve on 127.0.0.1 within; yields the address, such as ``http://127.0.0.1:8081``. ``port`` 0 takes a free one.

    Raises ConfigError where uvicorn is missing or the port is taken.
    """
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise ConfigError("The simulator needs a web server: pip install 'oncue[web]'") from error

    class Server(uvicorn.Server):
        up = asyncio.Event()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self.up.set()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            # Signals are for whoever runs this.
            yield

    config = uvicorn.Config(
        app, lifespan="on", log_config=None, access_log=False, log_level="warning", proxy_headers=False,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = Server(config)
    with _listen(port) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            ready = asyncio.create_task(server.up.wait())
            await asyncio.wait({ready, task}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            # Pages that follow the ledger would hold the server up.
            app.simulator.ledger.close()
            server.should_exit = True
            await task


def _listen(port: int) -> socket.socket:
    try:
        return listen("127.0.0.1", port)
    except OSError as error:
        raise ConfigError(f"Can't listen on 127.0.0.1:{port}: {error}. Is another process there?") from error
