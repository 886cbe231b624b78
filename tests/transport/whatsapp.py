"""WhatsApp: the simulator is its stand-in."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oncue.transport import Address, Choices, Option, Template, Transport
from oncue.whatsapp import WhatsApp
from oncue.whatsapp import simulator as sim
from tests.transport.kinds import Kind, Seen, Update

ANA = "4915700000001"
VERIFY = "verify-me-please"


class WhatsAppKind(Kind):
    """The Cloud API by the simulator, and Ana, who has written before."""

    secrets = ("token-of-the-suite", "secret-of-the-suite", VERIFY)
    person = Address(ANA)
    template = Template("trial_over", "en", ("Ana",))
    refused = (
        Choices("Which?", (Option("a", "x" * 25),)),
        Choices("Which?", (Option("a", "One"), Option("a", "Two"))),
        Template("Not A Name"),
        Template("trial_over", "en", ("two\nlines",)),
    )
    signs = True
    answer = "1158201444"

    def __init__(self) -> None:
        self.forged = {"x-hub-signature-256": "sha256=" + "0" * 64}
        self.question = {"hub.mode": "subscribe", "hub.verify_token": VERIFY, "hub.challenge": self.answer}
        config = sim.Config(
            token=self.secrets[0],
            app_secret=self.secrets[1],
            delays=sim.Delays.none(),
            templates=(sim.Template("trial_over", "en", parameters=1, body="Bye, {{1}}"),),
            people=(sim.Person(ANA, "Ana"),),
        )
        self._app = sim.create(config)
        self._number = config.number
        self._updates: list[Update] = []
        self._came = asyncio.Condition()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.url = await self._stack.enter_async_context(sim.serving(self._app))
        inbox = Starlette(routes=[Route("/", self._take, methods=["GET", "POST"])])
        await self._app.simulator.webhooks.subscribe("http://inbox/", VERIFY, inbox)
        await self.write("Hello")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def transport(self, url: str, *, timeout: float = 20) -> Transport:
        return WhatsApp(self.secrets[0], self._number, self.secrets[1], VERIFY, url=url, timeout=timeout)

    def seen(self) -> list[Seen]:
        messages = self._app.simulator.phone(ANA).messages
        return [
            Seen(wamid, message.text, tuple((option.id, option.title) for option in message.options))
            for wamid, message in messages.items()
            if message.kind != "received"
        ]

    async def write(self, text: str) -> Update:
        return await self._update(self._app.simulator.say(ANA, text))

    async def tap(self, title: str) -> Update:
        return await self._update(self._app.simulator.tap(ANA, title))

    async def others(self) -> list[Update]:
        contents: list[dict[str, Any]] = [
            {"type": "image", "image": {"id": "1", "mime_type": "image/jpeg"}},
            {"type": "sticker", "sticker": {"id": "2", "mime_type": "image/webp", "animated": False}},
            {"type": "reaction", "reaction": {"message_id": "wamid.any", "emoji": "👍"}},
            {"type": "a_kind_of_next_year", "a_kind_of_next_year": {}},
        ]
        return [await self._update(self._app.simulator.send(ANA, content)) for content in contents]

    async def statuses(self, external_id: str) -> list[Update]:
        def told() -> list[Update]:
            return [update for update in self._updates if external_id.encode() in update.raw]

        async with self._came:
            await self._came.wait_for(lambda: any(b'"delivered"' in update.raw for update in told()))
        return told()

    async def _update(self, wamid: str) -> Update:
        async with self._came:
            await self._came.wait_for(lambda: any(wamid.encode() in update.raw for update in self._updates))
        return next(update for update in self._updates if wamid.encode() in update.raw)

    async def _take(self, request: Request) -> Response:
        if request.method == "GET":
            return PlainTextResponse(request.query_params["hub.challenge"])
        async with self._came:
            self._updates.append(Update(dict(request.headers), await request.body()))
            self._came.notify_all()
        return Response()
