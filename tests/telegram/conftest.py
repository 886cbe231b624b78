"""A stand-in for Telegram, and the transport that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from oncue.telegram import Telegram
from tests.telegram.standin import SECRET, TOKEN, Standin


@pytest.fixture
async def standin() -> AsyncIterator[Standin]:
    """The Bot API on loopback."""
    async with Standin() as running:
        yield running


@pytest.fixture
async def telegram(standin: Standin) -> AsyncIterator[Telegram]:
    """The transport, pointed at the stand-in."""
    transport = Telegram(TOKEN, SECRET, url=standin.url)
    yield transport
    await transport.close()
