"""What the tests of the simulator share: a simulated number, an application that keeps its updates, a moved clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oncue.testing import TestClock
from oncue.whatsapp.signature import genuine
from oncue.whatsapp.simulator import App, Config, Delays, Person, create

ANA, BILAL = "4915700000001", "4915700000002"
PATH = "/v26.0/100000000000001/messages"
VERIFY = "local-verify-token"


class Application:
    """An application that keeps the updates it takes. ``status``: what it answers to the next ones."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.refused: list[bytes] = []
        self.status = 200
        self.tries = 0
        self.program = Starlette(routes=[Route("/hook", self._hook, methods=["GET", "POST"])])

    async def _hook(self, request: Request) -> Response:
        if request.method == "GET":
            good = request.query_params["hub.verify_token"] == VERIFY
            return PlainTextResponse(request.query_params["hub.challenge"] if good else "no", 200 if good else 403)
        self.tries += 1
        raw = await request.body()
        if not genuine((b"local-secret",), request.headers["x-hub-signature-256"], raw):
            self.refused.append(raw)
            return Response(status_code=401)
        if self.status == 200:
            self.raw.append(raw)
        return Response(status_code=self.status)

    @property
    def values(self) -> list[dict[str, Any]]:
        """The values of all levels, in their order."""
        return [
            change["value"] for raw in self.raw for entry in json.loads(raw)["entry"] for change in entry["changes"]
        ]

    @property
    def statuses(self) -> list[tuple[str, str]]:
        """The statuses that came: (name, message)."""
        return [(item["status"], item["id"]) for value in self.values for item in value.get("statuses", [])]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages that came."""
        return [item for value in self.values for item in value.get("messages", [])]


class Stage:
    """A simulated number in this process, its application, and the clock of both."""

    def __init__(self, app: App, clock: TestClock, client: httpx.AsyncClient, application: Application) -> None:
        self.app, self.clock, self.client, self.application = app, clock, client, application
        self.simulator = app.simulator

    async def post(self, body: dict[str, Any], **headers: str) -> httpx.Response:
        """Send a request as a client does."""
        headers = {"authorization": "Bearer local-token"} | headers
        return await self.client.post(PATH, json={"messaging_product": "whatsapp"} | body, headers=headers)

    async def text(self, text: str = "Hi?", to: str = ANA, echo: str | None = None) -> httpx.Response:
        """Send a text."""
        more = {} if echo is None else {"biz_opaque_callback_data": echo}
        return await self.post({"to": to, "type": "text", "text": {"body": text}} | more)

    async def advance(self, seconds: float) -> None:
        """Move the clock on, and let all come to rest that this sets off."""
        self.clock.advance(seconds)
        await self.rest()

    async def rest(self) -> None:
        """Let the loop run until nothing is ready any more; in process nothing waits for a network."""
        for _ in range(200):
            await asyncio.sleep(0)

    def code(self, response: httpx.Response) -> int:
        """The code of an error."""
        found = response.json()["error"]["code"]
        assert isinstance(found, int)
        return found


@asynccontextmanager
async def stage(*, open_window: bool = True, subscribed: bool = True, **options: Any) -> AsyncIterator[Stage]:
    """A simulated number with Ana and Bilal, their windows open; no delays unless asked."""
    clock, application = TestClock(), Application()
    people = options.pop("people", (Person(ANA, "Ana"), Person(BILAL, "Bilal", user_id="DE.22")))
    options = {"delays": Delays.none()} | options
    app = create(Config(people=people, clock=clock, **options))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://simulator") as client:
        found = Stage(app, clock, client, application)
        if subscribed:
            await app.simulator.webhooks.subscribe("http://application/hook", VERIFY, application.program)
        if open_window:
            for person in people:
                app.simulator.phone(person.key).heard_at = clock.now()
        yield found
        await app.simulator.close()
