"""An application with something of everything on a real server, and clients with tokens of each role."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx
import msgspec

from oncue import OnCue, Retry
from oncue.conversation import Chat, Keyword
from oncue.conversation.intake import Intake
from oncue.operate import Operator
from oncue.operate.tokens import ROLES
from oncue.transport import Address, Batch, Inbound
from tests.conversation.engine_stage import Wire
from tests.web.conftest import serving

ACTS = {"X-OnCue": "1"}


def declared(url: str) -> OnCue:
    """An application with tasks and a schedule; ``phone`` is never shown."""
    app = OnCue(url)

    @app.task(name="note")
    async def note(n: int, phone: str = "", text: str = "") -> int:
        return n

    @app.task(name="fail", retry=Retry.never())
    async def fail(phone: str) -> None:
        raise ValueError(f"nobody answers at {phone}")

    @app.cron("30 2 * * *", timezone="Europe/Berlin", name="night")
    async def night() -> None: ...

    @app.every(timedelta(days=300), name="rare")
    async def rare() -> None: ...

    app.redact("phone")
    return app


def talking(url: str) -> OnCue:
    """The same application with a channel and a conversation on it."""
    app = declared(url)
    channel = app.channel(Wire(), quiet=None)

    @app.conversation("trial", channel=channel, start=Keyword("start"))
    async def trial(chat: Chat) -> None:
        await chat.say("welcome", "Welcome")
        await chat.ask("english", "How is your English?")

    return app


async def begin(app: OnCue, people: int) -> None:
    """Let so many people begin a conversation: some go on, some are paused, and of some a human takes care."""
    (channel,) = app.channels.values()
    now = app.clock.now()
    said = [Inbound(f"in{n}", Address(f"1650555{n:04}"), kind="text", sent_at=now, text="start") for n in range(people)]
    taken = await Intake(app, channel).take({}, msgspec.json.encode(Batch(said)))
    assert taken.status == 200
    await app.drain()
    operator = Operator(app, "cli:test")
    for number in range(1, people + 1):
        if number % 3:
            await operator.steer_talk("pause" if number % 3 == 1 else "takeover", number)


def done(work: Any) -> Any:
    """Run a coroutine to its end in a loop of its own."""
    return asyncio.run(work)


def tokens_of(app: OnCue) -> dict[str, str]:
    """Make a token for each role, and one for none of these: its name is the role's."""

    async def make() -> dict[str, str]:
        async with app:
            tokens = Operator(app, "cli:test").tokens
            return {role: await tokens.create(role, [role]) for role in ROLES}

    return done(make())  # type: ignore[no-any-return]


@contextmanager
def clients(app: OnCue, served: Any) -> Iterator[dict[str, httpx.Client]]:
    """Serve, and yield a client for each role, one for ``nobody``, and one for ``loopback``."""
    made = tokens_of(app)
    with serving(served) as loopback:
        named = {role: _with(loopback, f"Bearer {token}") for role, token in made.items()}
        named["nobody"] = _with(loopback, "Bearer oncue_wrong")
        named["loopback"] = loopback
        yield named
        for client in named.values():
            client.close()


def _with(client: httpx.Client, authorization: str) -> httpx.Client:
    headers = {"Authorization": authorization}
    return httpx.Client(base_url=client.base_url, headers=headers, timeout=60, trust_env=False)
