"""A stand-in of the WhatsApp Cloud API, for this machine only.

It takes the same request on the same path as the real one, answers with the same JSON, reports ``sent`` and
``delivered`` by signed webhook, and plays the people (people.py), whose answers arrive by signed webhook too.
Everything that it accepts goes into its **ledger**, a file of JSON lines: what a person really received, and when.
The application never reads it; the demo and the tests count in it what was lost, doubled or out of order.

Like the real one it knows no idempotency: what is sent twice arrives twice.

    python standin.py --port 8081         or        uvicorn standin:from_env --factory --port 8081
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import ipaddress
import json
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from people import Person
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class Config:
    """How the stand-in behaves. Times in seconds; ``status_delay`` are medians (sent, delivered), log-normal."""

    token: str = "local-token"
    app_secret: str = "local-secret"
    ledger: Path = Path("ledger.jsonl")
    seed: int = 1
    latency: tuple[float, float] = (0.1, 0.4)
    status_delay: tuple[float, float] = (0.3, 1.0)
    duplicates: float = 0.1  # this share of the webhooks is delivered twice, as the real one sometimes does

    def __post_init__(self) -> None:
        if self.token.startswith("EAA"):
            raise ValueError(
                "this token looks like a real one of Meta's (it starts with EAA); give the stand-in a made-up token"
            )


class Ledger:
    """The truth: one JSON line an event, written before anybody is told of it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self.events: list[dict[str, Any]] = []

    def write(self, event: str, **facts: Any) -> None:
        """Note an event now; ``at_us`` is in microseconds since the epoch, UTC."""
        line = {"at_us": time.time_ns() // 1000, "event": event, **facts}
        self.events.append(line)
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        self._file.close()


class Refused(Exception):
    """An error in the form of the Graph API; clients decide on ``code``, not on the HTTP status."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Standin:
    """The state behind the routes: the people, the ledger, and the webhooks that are under way."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ledger = Ledger(config.ledger)
        self.people: dict[str, Person] = {}
        self.webhook_url = ""
        self.client = httpx.AsyncClient(timeout=5, trust_env=False)
        self._dice = random.Random(config.seed)
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what the application calls ---------------------------------------------------------------------------

    async def messages(self, request: Request) -> Response:
        """``POST /{version}/{phone_number_id}/messages``: accept one text message."""
        raw = await request.body()
        try:
            self._check_token(request.headers.get("authorization", ""))
            to, text, echo = self._read(raw)
        except Refused as error:
            self.ledger.write("refused", code=error.code, reason=str(error))
            body = {
                "message": f"(#{error.code}) {error}",
                "type": "OAuthException",
                "code": error.code,
                "fbtrace_id": "standin",
            }
            return JSONResponse({"error": body}, status_code=error.status)
        wamid = f"wamid.{self._dice.getrandbits(96):024X}"
        self.ledger.write("accepted", wamid=wamid, to=to, name=self.people[to].name, body=text, echo=echo)
        number_id = request.path_params["phone_number_id"]
        self._spawn(self._report_statuses(number_id, to, wamid, echo))
        answer = self.people[to].reads(text, self._dice)
        if answer is not None:
            self._spawn(self._answer(number_id, to, *answer))
        await asyncio.sleep(self._dice.uniform(*self.config.latency))  # accepted already: who dies now, doesn't know it
        return JSONResponse(
            {"messaging_product": "whatsapp", "contacts": [{"input": to, "wa_id": to}], "messages": [{"id": wamid}]}
        )

    def _check_token(self, authorization: str) -> None:
        token = authorization.removeprefix("Bearer ")
        if token.startswith("EAA"):
            raise Refused(
                401,
                190,
                "This is a stand-in and refuses what looks like a real token. Renew that token.",
            )
        if not hmac.compare_digest(token.encode(), self.config.token.encode()):
            raise Refused(401, 190, "Invalid OAuth access token.")

    def _read(self, raw: bytes) -> tuple[str, str, str | None]:
        try:
            body = json.loads(raw)
            text = body["text"]["body"] if body["type"] == "text" else None
            to, product = body["to"], body["messaging_product"]
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(400, 131008, f"Required parameter is missing: {error}") from error
        if product != "whatsapp" or not isinstance(text, str) or not text:
            raise Refused(400, 100, "Invalid parameter: the stand-in takes whatsapp messages of type text.")
        if to not in self.people:
            raise Refused(400, 131026, "Message undeliverable: nobody has this number.")
        return to, text, body.get("biz_opaque_callback_data")

    # -- what the application receives ------------------------------------------------------------------------

    async def _report_statuses(self, number_id: str, to: str, wamid: str, echo: str | None) -> None:
        for status, median in zip(("sent", "delivered"), self.config.status_delay, strict=True):
            await asyncio.sleep(median * min(self._dice.lognormvariate(0, 0.3), 2.0))
            update = {"id": wamid, "status": status, "timestamp": str(int(time.time())), "recipient_id": to}
            if echo is not None:
                update["biz_opaque_callback_data"] = echo
            self._spawn(self._deliver(number_id, {"statuses": [update]}))

    async def _answer(self, number_id: str, wa_id: str, after: float, text: str) -> None:
        await asyncio.sleep(after)
        self.say(wa_id, text, number_id)

    def say(self, wa_id: str, text: str, number_id: str = "1") -> None:
        """Let a person write to the application now."""
        wamid = f"wamid.{self._dice.getrandbits(96):024X}"
        person = self.people[wa_id]
        self.ledger.write("answered", wamid=wamid, sender=wa_id, name=person.name, body=text)
        message = {
            "from": wa_id,
            "id": wamid,
            "timestamp": str(int(time.time())),
            "type": "text",
            "text": {"body": text},
        }
        contact = {"profile": {"name": person.name}, "wa_id": wa_id}
        self._spawn(self._deliver(number_id, {"contacts": [contact], "messages": [message]}))

    async def _deliver(self, number_id: str, value: dict[str, Any]) -> None:
        """POST one webhook until it is answered with 200: a dead application loses nothing."""
        value = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": number_id}, **value}
        raw = json.dumps(
            {
                "object": "whatsapp_business_account",
                "entry": [{"id": "0", "changes": [{"field": "messages", "value": value}]}],
            }
        ).encode()  # non-ASCII escaped, as Meta does: only the raw bytes have this signature
        headers = {"content-type": "application/json", "x-hub-signature-256": sign(raw, self.config.app_secret)}
        times = 2 if self._dice.random() < self.config.duplicates else 1
        pause = 0.1
        while times:
            if await self._post(raw, headers):
                times -= 1
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def _post(self, raw: bytes, headers: dict[str, str]) -> bool:
        if not self.webhook_url:
            return False
        try:
            return (await self.client.post(self.webhook_url, content=raw, headers=headers)).status_code == 200
        except httpx.HTTPError:
            return False

    # -- what only the demo and the tests call ----------------------------------------------------------------

    async def subscribe(self, request: Request) -> Response:
        """``POST /_sim/webhook {"url", "verify_token"}``: shake hands with the webhook, then deliver to it."""
        wish = await request.json()
        query = {"hub.mode": "subscribe", "hub.verify_token": wish["verify_token"], "hub.challenge": "1158201444"}
        try:
            reply = await self.client.get(wish["url"], params=query)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return JSONResponse({"error": f"the webhook can't be reached: {error}"}, status_code=400)
        if reply.status_code != 200 or reply.text != query["hub.challenge"]:
            return JSONResponse({"error": f"the handshake failed with {reply.status_code}"}, status_code=400)
        self.webhook_url = wish["url"]
        return JSONResponse({"success": True})

    async def add_people(self, request: Request) -> Response:
        """``POST /_sim/people [{"wa_id", "name", "ignores", "pace"}]``"""
        for facts in await request.json():
            person = Person(**facts)
            self.people[person.wa_id] = person
        return JSONResponse({"people": len(self.people)})

    async def let_say(self, request: Request) -> Response:
        """``POST /_sim/say {"wa_id", "text"}``"""
        wish = await request.json()
        self.say(wish["wa_id"], wish["text"])
        return JSONResponse({"success": True})

    async def read_ledger(self, _request: Request) -> Response:
        """``GET /_sim/ledger``"""
        return JSONResponse(self.ledger.events)

    # ---------------------------------------------------------------------------------------------------------

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        for task in self._tasks:
            task.cancel()
        await self.client.aclose()
        self.ledger.close()


def sign(raw: bytes, app_secret: str) -> str:
    """The value of ``X-Hub-Signature-256`` for these bytes."""
    return "sha256=" + hmac.new(app_secret.encode(), raw, hashlib.sha256).hexdigest()


class LoopbackOnly:
    """Nobody but this machine may talk to the stand-in, wherever it was bound to."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not ipaddress.ip_address(scope["client"][0]).is_loopback:
            await Response("The stand-in serves this machine only.", status_code=403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def create(config: Config) -> Starlette:
    """The stand-in as an ASGI program."""
    standin = Standin(config)
    routes = [
        Route("/{version}/{phone_number_id}/messages", standin.messages, methods=["POST"]),
        Route("/_sim/webhook", standin.subscribe, methods=["POST"]),
        Route("/_sim/people", standin.add_people, methods=["POST"]),
        Route("/_sim/say", standin.let_say, methods=["POST"]),
        Route("/_sim/ledger", standin.read_ledger),
    ]
    return Starlette(routes=routes, middleware=[Middleware(LoopbackOnly)], lifespan=standin.lifespan)


def from_env() -> Starlette:
    """The stand-in as set by STANDIN_TOKEN, STANDIN_SECRET, STANDIN_LEDGER, STANDIN_SEED and STANDIN_FAST=1."""
    env = os.environ
    config = Config(ledger=Path(env.get("STANDIN_LEDGER", "ledger.jsonl")), seed=int(env.get("STANDIN_SEED", "1")))
    config = replace(
        config,
        token=env.get("STANDIN_TOKEN", config.token),
        app_secret=env.get("STANDIN_SECRET", config.app_secret),
    )
    if env.get("STANDIN_FAST"):
        config = replace(config, latency=(0.01, 0.05), status_delay=(0.02, 0.02))
    return create(config)


def main() -> None:
    """Serve on 127.0.0.1."""
    parser = argparse.ArgumentParser(description="A stand-in of the WhatsApp Cloud API, for this machine only.")
    parser.add_argument("--port", type=int, default=8081)
    uvicorn.run(from_env(), host="127.0.0.1", port=parser.parse_args().port, log_level="warning")


if __name__ == "__main__":
    main()
