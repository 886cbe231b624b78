"""What goes wrong between a transport and its messenger: a server in front of a stand-in that passes requests on.

async with Front(standin_url) as front:
    transport = kind.transport(front.url)
    front.fault = "reset_after"  # from now on the stand-in takes what is sent, and the answer never comes
    front.fault = None
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Literal, Self

import httpx

from tests.pgfaults import RESET

Fault = Literal[
    "refused",  # nobody listens
    "reset",  # the connection breaks before the messenger sees the request
    "reset_after",  # the messenger took it, then the connection breaks
    "ended_after",  # the messenger took it, then the connection is closed in good order
    "hang",  # the messenger never sees it, and nothing comes
    "hang_after",  # the messenger took it, and nothing comes
    "bare_500",  # the messenger took it, and an error without any text comes
    "html_502",  # the messenger took it, and a proxy's page comes
    "truncated",  # the messenger took it, and half an answer comes
    "cut_short",  # the messenger took it, and the connection ends within the answer
    "slow",  # the messenger took it, and its answer comes a byte at a time, without end
    "flood",  # the messenger took it, and an answer comes that never ends
    "no_json",  # the messenger took it, and 200 with bytes that are no text comes
    "redirect",  # the messenger took it, and sends us elsewhere
]
TAKEN = {"refused": 0, "reset": 0, "hang": 0}
"""How many messages the messenger has taken after one send; 1 for those that aren't here."""
BYTE_SECONDS = 0.05
_PAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


class Front:
    """An HTTP/1.1 server on 127.0.0.1 that passes each request to ``target``, and breaks what a test wants broken."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._changed = asyncio.Condition()
        self._client = httpx.AsyncClient(trust_env=False, timeout=30)
        self.fault: Fault | None = None
        self.port = 0
        self.requests = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.refuse()
        await self._client.aclose()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def refuse(self) -> None:
        """Listen no more, and break what is open."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task, writer in list(self._links.items()):
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def meet(self, fault: Fault) -> None:
        """Have every request from now on meet this fault."""
        self.fault = fault
        if fault == "refused":
            await self.refuse()

    async def heal(self) -> None:
        """End the fault."""
        self.fault = None
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def quiet(self) -> None:
        """Wait until no connection is open."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._links)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links[task] = writer
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            del self._links[task]
            async with self._changed:
                self._changed.notify_all()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Take one request; False: the connection ends."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests += 1
        fault = self.fault
        if fault == "reset":
            self._reset(writer)
            return False
        if fault == "hang":
            await self._gone(reader)
            return False
        for name in ("host", "connection", "accept-encoding"):
            headers.pop(name, None)
        answer = await self._client.request(method, self._target + path, headers=headers, content=body)
        return await self._respond(reader, writer, answer.status_code, answer.content)

    async def _respond(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, body: bytes
    ) -> bool:
        more = ""
        match self.fault:
            case "reset_after":
                self._reset(writer)
                return False
            case "ended_after":
                return False
            case "hang_after":
                await self._gone(reader)
                return False
            case "slow" | "flood":
                await self._drip(writer, body)
                return False
            case "bare_500":
                status, body = 500, b""
            case "html_502":
                status, body = 502, _PAGE
            case "truncated":
                body = body[: len(body) // 2]
            case "no_json":
                body = b"\xff\xfe\x00{"
            case "redirect":
                status, body, more = 307, b"", f"Location: {self.url}/elsewhere\r\n"
            case _:
                pass
        length = len(body)
        if self.fault == "cut_short":
            body = body[: length // 2]
        head = f"HTTP/1.1 {status} Any\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        return self.fault != "cut_short"

    async def _drip(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        blank = b" " if self.fault == "slow" else b" " * 65_536
        while True:  # until the other side has had enough
            writer.write(b"%x\r\n%s\r\n" % (len(blank), blank))
            await writer.drain()
            await asyncio.sleep(BYTE_SECONDS if self.fault == "slow" else 0)

    @staticmethod
    async def _gone(reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()

    @staticmethod
    def _reset(writer: asyncio.StreamWriter) -> None:
        import socket

        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
