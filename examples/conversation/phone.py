"""A simulated number and Ana's phone, for tests: real HTTP on this machine, and a clock that only the test moves."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

with socket.create_server(("127.0.0.1", 0)) as free:
    PORT = free.getsockname()[1]

# Before the application is imported: its channel reads them then.
os.environ |= {
    "WHATSAPP_URL": f"http://127.0.0.1:{PORT}",
    "WHATSAPP_TOKEN": "local-token",
    "WHATSAPP_APP_SECRET": "local-secret",
    "WHATSAPP_VERIFY_TOKEN": "local-verify-token",
    "WHATSAPP_PHONE_NUMBER_ID": "100000000000001",
}

import oncue.testing
from oncue import OnCue
from oncue.testing import Harness
from oncue.web import webhook_app
from oncue.whatsapp.simulator import Config, Delays, Person, Simulator, create, serving

ANA = "4915700000001"


class Phone:
    """Ana's. ``t``: the application's harness; ``simulator``: the number, its faults and its ledger."""

    def __init__(self, t: Harness, simulator: Simulator) -> None:
        self.t, self.simulator = t, simulator

    @property
    def seen(self) -> list[str]:
        """What arrived on the phone, oldest first: the truth, which the application never reads."""
        return [event["text"] for event in self.simulator.ledger.of("accepted", person=ANA)]

    async def write(self, text: str) -> None:
        """Have Ana write, and the application take that in."""
        await self._taken(f"said:{self.simulator.say(ANA, text)}")

    async def tap(self, answer: str) -> None:
        """Have Ana tap an answer of the last message that offers it."""
        await self._taken(f"said:{self.simulator.tap(ANA, answer)}")

    async def _taken(self, update: str) -> None:
        async for events in self.simulator.ledger.follow(0):
            if any(update in event.get("items", ()) for event in events):
                break
        await self.t.drain()


@asynccontextmanager
async def phone(app: OnCue) -> AsyncIterator[Phone]:
    """Run an application against the simulator within; its database is a new one."""
    async with oncue.testing.run(app) as t:
        program = create(Config(people=[Person(ANA, "Ana")], clock=t.clock, delays=Delays.none()))
        async with serving(program, PORT):
            hook = "http://bot/webhooks/whatsapp"
            await program.simulator.webhooks.subscribe(hook, "local-verify-token", webhook_app(app))
            yield Phone(t, program.simulator)
