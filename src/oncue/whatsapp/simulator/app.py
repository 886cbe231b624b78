"""The simulator as an ASGI program: the Cloud API's path, the control plane, the page, and who may come in."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oncue.whatsapp.simulator.config import Config
from oncue.whatsapp.simulator.content import Refused, invalid
from oncue.whatsapp.simulator.control import control_routes
from oncue.whatsapp.simulator.core import Simulator
from oncue.whatsapp.simulator.faults import BEFORE, Fault
from oncue.whatsapp.simulator.page import page_routes

_PATH = re.compile(r"/(?:v\d+\.\d+/)?(?P<number>[^/]+)/messages/?")
_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_HTML_502 = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"


class Broken(Exception):
    """The connection is to break; ``how``: what the client is to see of it."""

    def __init__(self, how: Literal["reset", "hang"], seconds: float) -> None:
        super().__init__(how)
        self.how, self.seconds = how, seconds


class App:
    """The program. ``simulator`` is the simulator behind it, for use in the same process."""

    def __init__(self, config: Config) -> None:
        self.simulator = Simulator(config)
        self._messages = Messages(self.simulator)

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            await self.simulator.close()

        routes = [*control_routes(self.simulator), *page_routes()]
        self._others: ASGIApp = Starlette(routes=routes, lifespan=lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the lifespan."""
        if scope["type"] != "http":
            await self._others(scope, receive, send)
            return
        wire = getattr(getattr(send, "__self__", None), "transport", None)
        if (why := stranger(scope, served=wire is not None)) is not None:
            await PlainTextResponse(f"The simulator serves this machine only: {why}.", 403)(scope, receive, send)
            return
        found = _PATH.fullmatch(scope["path"])
        if found is None or scope["path"].startswith("/_sim/"):
            await self._others(scope, receive, send)
            return
        try:
            await self._messages(found["number"], Request(scope, receive), send)
        except Broken as broken:
            await self._break(broken, wire, receive)
        except ClientDisconnect:
            return

    async def _break(self, broken: Broken, wire: Any, receive: Receive) -> None:
        """Break the connection; in process, raise what httpx would."""
        if wire is None:
            if broken.how == "reset":
                raise httpx.ReadError("the simulator reset the connection")
            await self.simulator.timers.sleep(broken.seconds)
            raise httpx.ReadTimeout("the simulator never answered")
        if broken.how == "hang":
            gone = asyncio.ensure_future(_disconnected(receive))
            waited = asyncio.ensure_future(self.simulator.timers.sleep(broken.seconds))
            await asyncio.wait({gone, waited}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            waited.cancel()
        # Whoever waited may have hung up first.
        if (plug := wire.get_extra_info("socket")) is not None and plug.fileno() != -1:
            # Closed with a lingering time of 0, a connection is reset, not ended.
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.abort()
        await _disconnected(receive)


class Messages:
    """``POST /{version}/{number}/messages``."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    async def __call__(self, number: str, request: Request, send: Send) -> None:
        """Answer one request. Raises Broken where a fault has the connection break."""
        response = await self._answer(number, request)
        await response(request.scope, request.receive, send)

    async def _answer(self, number: str, request: Request) -> Response:
        simulator = self._simulator
        raw = await request.body()
        body: Mapping[str, Any] = {}
        try:
            self._check_sender(number, request)
            body = _read(raw)
            fault = simulator.faults.pick(body)
            if fault is not None:
                self._note(fault, body)
            if fault is not None and fault.action in BEFORE:
                return _failed(fault)
            if "status" in body:
                return JSONResponse(simulator.mark_read(body))
            answer, sent = simulator.accept(body, fault)
        except Refused as error:
            simulator.refuse(error, body)
            return error_response(error.code, error.title, error.details, error.status)
        await simulator.begin(sent)
        # Accepted already: a client that dies now doesn't know it.
        await simulator.timers.sleep(sent.dice.uniform(*simulator.config.delays.response))
        return JSONResponse(answer) if fault is None else self._spoilt(fault, answer)

    def _check_sender(self, number: str, request: Request) -> None:
        if request.method != "POST":
            raise Refused(100, "Unsupported request", f"{request.method} is not served here; POST is.", 405)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token.startswith("EAA"):
            raise Refused(190, "Invalid OAuth access token", "This is a simulator, and the token looks like a "
                          "real one. It was not kept, but it has left its application: renew it.", 401)  # fmt: skip
        if not hmac.compare_digest(token.encode(), self._simulator.config.token.encode()):
            raise Refused(190, "Invalid OAuth access token", "The simulator's --token is another.", 401)
        if number != self._simulator.config.number:
            details = f"There is no phone number id {number!r}; the simulator's is {self._simulator.config.number}."
            raise Refused(33, "Unsupported post request", details)

    def _note(self, fault: Fault, body: Mapping[str, Any]) -> None:
        person = body.get("to") or body.get("recipient")
        simulator = self._simulator
        simulator.ledger.write(
            simulator.timers.now(), "fault", action=fault.action, to=person, echo=body.get("biz_opaque_callback_data")
        )

    def _spoilt(self, fault: Fault, answer: dict[str, Any]) -> Response:
        """Return what is left of the response to an accepted message."""
        whole = json.dumps(answer).encode()
        if fault.action == "accept-reset":
            raise Broken("reset", 0)
        if fault.action == "accept-hang":
            raise Broken("hang", fault.seconds)
        if fault.action == "accept-500":
            return error_response(131000, "Something went wrong", "An unknown error occurred.", 500)
        if fault.action == "accept-html-502":
            return Response(_HTML_502, 502, media_type="text/html")
        if fault.action == "accept-truncated":
            return Response(whole[: len(whole) // 2], media_type="application/json")
        if fault.action == "slow-body":
            return _SlowResponse(whole, fault.seconds, self._simulator)
        return JSONResponse(answer)


class _SlowResponse(Response):
    """A JSON response whose bytes come one after the other, over so many seconds."""

    def __init__(self, body: bytes, seconds: float, simulator: Simulator) -> None:
        super().__init__(body, media_type="application/json")
        self._pause, self._simulator = seconds / max(1, len(body)), simulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        timers = self._simulator.timers
        began = timers.now()
        for i in range(len(self.body)):
            # From the beginning, so that a clock that jumps past many bytes' times has them sent at once.
            await timers.sleep(self._pause * (i + 1) - (timers.now() - began) / 1_000_000)
            await send({"type": "http.response.body", "body": self.body[i : i + 1], "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def create(config: Config | None = None) -> App:
    """Return the simulator as an ASGI program; ``.simulator`` is what tests in the same process use.

    In process: ``httpx.AsyncClient(transport=httpx.ASGITransport(create(config)), base_url="http://simulator")``.
    """
    return App(config or Config())


def error_response(code: int, title: str, details: str, status: int) -> JSONResponse:
    """Return an error as the Graph API writes it."""
    error = {
        "message": f"(#{code}) {title}", "type": "OAuthException", "code": code,
        "error_data": {"messaging_product": "whatsapp", "details": details}, "fbtrace_id": "simulator",
    }  # fmt: skip
    return JSONResponse({"error": error}, status)


def stranger(scope: Scope, *, served: bool) -> str | None:
    """Return why a request must not be served, or None.

    A page of another site, in a browser on this machine, also comes from a loopback address: its name for us or its
    origin gives it away. ``served``: over a socket, where the Host header means something.
    """
    try:
        client = scope["client"][0]
        if not ipaddress.ip_address(client).is_loopback:
            return f"{client} is another"
    except (KeyError, TypeError, ValueError):
        return "the client's address is unknown"
    if not served:
        return None
    headers = Headers(scope=scope)
    if urlsplit(f"//{headers.get('host', '')}").hostname not in _NAMES:
        return f"call it by localhost or 127.0.0.1, not {headers.get('host')!r}"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return f"pages of {origin} may not use it"
    return None


def _read(raw: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise invalid(f"The body is no JSON: {error}.") from error
    if not isinstance(body, Mapping):
        raise invalid("The body is no JSON object.")
    if body.get("messaging_product") != "whatsapp":
        raise invalid("Param messaging_product must be whatsapp.")
    return body


def _failed(fault: Fault) -> Response:
    """Return the response to a message that a fault keeps from being accepted."""
    if fault.action in ("reset", "hang"):
        raise Broken("reset" if fault.action == "reset" else "hang", fault.seconds)
    if fault.action == "html-502":
        return Response(_HTML_502, 502, media_type="text/html")
    response = error_response(fault.code, "A fault of the simulator", "It was asked for.", fault.http_status)
    if fault.retry_after is not None:
        response.headers["retry-after"] = str(fault.retry_after)
    return response


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
