"""Every transport passes the same suite, against its own stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from oncue.transport import Transport
from tests.transport.front import Front
from tests.transport.kinds import Kind
from tests.transport.telegram import TelegramKind
from tests.transport.whatsapp import WhatsAppKind

KINDS: dict[str, Callable[[], Kind]] = {"whatsapp": WhatsAppKind, "telegram": TelegramKind}


@pytest.fixture(params=KINDS)
async def kind(request: pytest.FixtureRequest) -> AsyncIterator[Kind]:
    """A messenger's stand-in, running."""
    async with KINDS[request.param]() as running:
        yield running


@pytest.fixture
async def front(kind: Kind) -> AsyncIterator[Front]:
    """What stands between the transport and the stand-in."""
    async with Front(kind.url) as running:
        yield running


@pytest.fixture
async def transport(kind: Kind, front: Front) -> AsyncIterator[Transport]:
    """The transport under test, with all the time that it needs."""
    made = kind.transport(front.url)
    yield made
    await made.close()
