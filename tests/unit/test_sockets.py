"""Sockets of servers."""

from __future__ import annotations

import asyncio
import socket

import pytest

from oncue.sockets import listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_what_is_accepted_sends_each_piece_at_once(host: str) -> None:
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def hear(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    made = listen(host, 0)
    async with await asyncio.start_server(hear, sock=made):
        _, writer = await asyncio.open_connection(host, made.getsockname()[1])
        assert await accepted == 1
        writer.close()


def test_a_port_that_is_taken_is_refused() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", taken.getsockname()[1])
