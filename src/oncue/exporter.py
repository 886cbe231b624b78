"""``oncue worker --metrics 9464``: the figures of a process that serves nothing else, for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from oncue.errors import ConfigError

if TYPE_CHECKING:
    from oncue.app import OnCue

_PATIENCE = 5.0
_MOST_HEADERS = 100
_LOOPBACK = "127.0.0.1"
_HERE = (_LOOPBACK, "localhost", "::1")


def address_of(text: str) -> tuple[str, int]:
    """Read ``PORT`` (on loopback), ``HOST:PORT`` or ``[HOST]:PORT``. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535 or (text.count(":") and not host):
        raise ConfigError(f"An address for metrics is a port such as 9464, or HOST:PORT, not {text!r}.")
    return host or _LOOPBACK, int(port)


@contextlib.asynccontextmanager
async def exporting(app: OnCue, address: tuple[str, int]) -> AsyncIterator[str]:
    """For the length of an ``async with`` block answer ``GET /metrics`` there; yields the URL.

    It tells of this process only, and asks the database nothing: the fleet's figures are those of ``oncue serve``.
    Whoever reaches the address may read it; on loopback, by its own name only. Raises ConfigError where nobody can
    listen there, or without ``oncue[metrics]``.
    """
    try:
        from prometheus_client.exposition import choose_encoder

        from oncue.exposition import Exposition
    except ModuleNotFoundError as error:
        raise ConfigError("Metrics need prometheus-client: pip install 'oncue[metrics]'.") from error

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.LimitOverrunError, ValueError):
            async with asyncio.timeout(_PATIENCE):
                asked, headers = await _read(reader)
                if host in _HERE and not _names_this_machine(headers.get("host", "")):
                    _write(writer, "403 Forbidden", "text/plain; charset=utf-8", b"Ask for localhost.\n")
                elif asked == "GET /metrics":
                    encode, kind = choose_encoder(headers.get("accept", ""))
                    _write(writer, "200 OK", kind, encode(Exposition(app)))
                else:
                    _write(writer, "404 Not Found", "text/plain; charset=utf-8", b"Ask for GET /metrics.\n")
                await writer.drain()
        writer.close()

    host, port = address
    try:
        server = await asyncio.start_server(answer, host, port, limit=8192)
    except OSError as error:
        raise ConfigError(f"Nobody can listen on {host}:{port} for metrics: {error}.") from error
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


def _names_this_machine(host: str) -> bool:
    """Tell whether a request is for this machine by its own name: a foreign page can have its own resolve to here."""
    name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
    return not host or name.lower().strip("[]") in _HERE


async def _read(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """Return method and path of a request, and its headers. Raises ValueError for what is none."""
    method, target, _ = (await reader.readline()).decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    for _ in range(_MOST_HEADERS):
        line = (await reader.readline()).decode("latin-1").strip()
        if not line:
            return f"{method} {target.partition('?')[0]}", headers
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    raise ValueError("too many headers")


def _write(writer: asyncio.StreamWriter, status: str, kind: str, body: bytes) -> None:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nCache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    writer.write(head.encode() + body)
