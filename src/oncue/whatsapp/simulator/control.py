"""The control plane ``/_sim/``: what tests and the page do, in JSON. An application has no business here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import Any, Literal, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from oncue.errors import ConfigError
from oncue.whatsapp.simulator.config import Template
from oncue.whatsapp.simulator.core import Simulator
from oncue.whatsapp.simulator.faults import Fault
from oncue.whatsapp.simulator.people import Person

W = TypeVar("W", bound="Wish")
Handler = Callable[[Request], Awaitable[Response]]


class Wish(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of a request."""


class SayWish(Wish):
    """A person writes. ``message``: anything else than a text, as in a webhook."""

    person: str
    text: str = ""
    message: dict[str, Any] | None = None
    replies_to: str | None = None
    age: float = 0


class TapWish(Wish):
    """A person taps a button or a row, by id or title."""

    person: str
    option: str
    message: str | None = None


class PersonWish(Wish):
    """Somebody to act."""

    person: str


class BlockWish(Wish):
    """A person blocks the business, or ends that."""

    person: str
    blocked: bool = True


class PreferWish(Wish):
    """A person wants marketing messages, or none."""

    person: str
    marketing: bool


class NewPerson(Wish):
    """See Person."""

    wa_id: str | None = None
    name: str = "Someone"
    user_id: str | None = None
    answers: list[str] | None = None
    pace: tuple[float, float] = (0.5, 3.0)
    ignores: list[int] = []
    fragments: int = 1
    fragment_gap: float = 0.5
    repeats: bool = False
    receipts: bool = True


class NewFault(Wish):
    """See Fault, which says what there is where a word is none of these."""

    action: str
    to: str | None = None
    type: str | None = None
    text: str | None = None
    nth: int | list[int] | None = None
    probability: float = 1
    times: int | None = None
    seed: int | None = None
    seconds: float = 30
    code: int = 130429
    status: int | None = None
    retry_after: int | None = None


class NewTemplate(Wish):
    """See Template, which says what there is where a word is none of these."""

    name: str
    language: str = "en"
    parameters: int = 0
    category: str = "utility"
    state: str = "approved"
    body: str = ""


class ClockWish(Wish):
    """Move the clock on by so many seconds."""

    advance: float


class WebhookWish(Wish):
    """An address to deliver to, after a handshake."""

    url: str
    verify_token: str


class OutageWish(Wish):
    """Deliver nothing for so many seconds; ``seconds`` 0 ends it."""

    seconds: float | Literal["on"] = "on"
    flood: bool = True


class FloodWish(Wish):
    """Deliver old messages."""

    count: int
    age: float = 3_600
    text: str = "old"


class Control:
    """The handlers."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    async def say(self, request: Request) -> Response:
        """``POST /_sim/messages``."""
        wish = await _wish(request, SayWish)
        if wish.message is None:
            found = self._simulator.say(wish.person, wish.text, replies_to=wish.replies_to, age=wish.age)
        else:
            found = self._simulator.send(wish.person, wish.message, replies_to=wish.replies_to, age=wish.age)
        return JSONResponse({"id": found})

    async def tap(self, request: Request) -> Response:
        """``POST /_sim/taps``."""
        wish = await _wish(request, TapWish)
        return JSONResponse({"id": self._simulator.tap(wish.person, wish.option, message=wish.message)})

    async def read(self, request: Request) -> Response:
        """``POST /_sim/read``."""
        self._simulator.read((await _wish(request, PersonWish)).person)
        return _done()

    async def block(self, request: Request) -> Response:
        """``POST /_sim/block``."""
        wish = await _wish(request, BlockWish)
        self._simulator.block(wish.person, wish.blocked)
        return _done()

    async def prefer(self, request: Request) -> Response:
        """``POST /_sim/preferences``."""
        wish = await _wish(request, PreferWish)
        self._simulator.prefer(wish.person, wish.marketing)
        return _done()

    async def people(self, request: Request) -> Response:
        """``GET /_sim/people``, ``POST /_sim/people`` with one or a list."""
        if request.method == "POST":
            found = await _wish(request, NewPerson, many=True)
            self._simulator.add(*(Person(**msgspec.structs.asdict(wish)) for wish in found))
        people = [
            {"person": phone.key, "name": phone.person.name, "wa_id": phone.person.wa_id,
             "user_id": phone.person.user_id, "blocked": phone.blocked, "marketing": phone.marketing,
             "scripted": phone.person.answers is not None}
            for phone in self._simulator.phones if phone.there
        ]  # fmt: skip
        return JSONResponse(people)

    async def faults(self, request: Request) -> Response:
        """``GET``, ``POST`` (one or a list) and ``DELETE /_sim/faults``."""
        if request.method == "DELETE":
            self._simulator.faults.clear()
        elif request.method == "POST":
            for wish in await _wish(request, NewFault, many=True):
                self._simulator.faults.add(_fault(wish))
        listing = self._simulator.faults.listing()
        return JSONResponse([asdict(fault) | {"matched": m, "happened": h} for fault, m, h in listing])

    async def templates(self, request: Request) -> Response:
        """``GET``, ``POST /_sim/templates``: one or a list; those with that name and language are replaced."""
        if request.method == "POST":
            for wish in await _wish(request, NewTemplate, many=True):
                self._simulator.put_template(_template(wish))
        return JSONResponse([asdict(each) for each in self._simulator.rules.templates.values()])

    async def clock(self, request: Request) -> Response:
        """``GET /_sim/clock``, ``POST /_sim/clock {"advance": seconds}``."""
        clock = self._simulator.timers.clock
        if request.method == "POST":
            wish = await _wish(request, ClockWish)
            if not hasattr(clock, "advance") or not wish.advance >= 0:
                raise ConfigError(f"This clock can't be moved by {wish.advance} seconds.")
            clock.advance(wish.advance)
        return JSONResponse({"now_us": clock.now()})

    async def webhook(self, request: Request) -> Response:
        """``GET /_sim/webhook``, ``POST /_sim/webhook {"url", "verify_token"}``: shake hands, then deliver there."""
        if request.method == "POST":
            wish = await _wish(request, WebhookWish)
            await self._simulator.webhooks.subscribe(wish.url, wish.verify_token)
        webhooks = self._simulator.webhooks
        return JSONResponse({"url": webhooks.url, "out": webhooks.out, "waiting": webhooks.waiting})

    async def outage(self, request: Request) -> Response:
        """``POST /_sim/outage {"seconds", "flood"}``."""
        wish = await _wish(request, OutageWish)
        if wish.seconds == 0:
            self._simulator.webhooks.end_outage(flood=wish.flood)
        else:
            self._simulator.outage(None if wish.seconds == "on" else wish.seconds, flood=wish.flood)
        return _done()

    async def flood(self, request: Request) -> Response:
        """``POST /_sim/flood``."""
        wish = await _wish(request, FloodWish)
        self._simulator.flood(wish.count, wish.age, wish.text)
        return _done()

    async def ledger(self, request: Request) -> Response:
        """``GET /_sim/ledger?since=N&person=P``."""
        since, person = _since(request), request.query_params.get("person")
        events = self._simulator.ledger.events[since:]
        return JSONResponse([event for event in events if person is None or event.get("person") == person])

    async def events(self, request: Request) -> Response:
        """``GET /_sim/events``: the ledger as server-sent events, from ``since`` or Last-Event-ID on."""
        since = _since(request)

        async def lines() -> AsyncIterator[str]:
            yield ": the ledger\n\n"
            async for events in self._simulator.ledger.follow(since):
                yield "".join(f"id: {event['n']}\ndata: {json.dumps(event)}\n\n" for event in events)

        return StreamingResponse(lines(), media_type="text/event-stream", headers={"cache-control": "no-store"})


def control_routes(simulator: Simulator) -> list[Route]:
    """Return the routes of the control plane."""
    control = Control(simulator)
    posts = {"messages": control.say, "taps": control.tap, "read": control.read, "block": control.block,
             "preferences": control.prefer, "outage": control.outage, "flood": control.flood}  # fmt: skip
    both = {"people": control.people, "faults": control.faults, "templates": control.templates,
            "clock": control.clock, "webhook": control.webhook}  # fmt: skip
    gets = {"ledger": control.ledger, "events": control.events}
    methods = [(posts, ["POST"]), (both, ["GET", "POST"]), (gets, ["GET"])]
    return [
        Route(f"/_sim/{name}", _explained(handler), methods=[*verbs, "DELETE"] if name == "faults" else verbs)
        for handlers, verbs in methods
        for name, handler in handlers.items()
    ]


def read_fault(raw: bytes) -> Fault:
    """Read a fault written in JSON, as ``POST /_sim/faults`` takes it. Raises ValueError."""
    return _fault(msgspec.json.decode(raw, type=NewFault))


def read_template(raw: bytes) -> Template:
    """Read a template written in JSON, as ``POST /_sim/templates`` takes it. Raises ValueError."""
    return _template(msgspec.json.decode(raw, type=NewTemplate))


def _fault(wish: NewFault) -> Fault:
    values: dict[str, Any] = msgspec.structs.asdict(wish)
    return Fault(**values)


def _template(wish: NewTemplate) -> Template:
    values: dict[str, Any] = msgspec.structs.asdict(wish)
    return Template(**values)


def _explained(handler: Handler) -> Handler:
    """Have errors answered as text for people."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except (ConfigError, msgspec.DecodeError) as error:
            return JSONResponse({"error": str(error)}, 400)

    return handle


async def _wish(request: Request, kind: type[W], *, many: bool = False) -> Any:
    raw = await request.body()
    if many and raw.lstrip()[:1] == b"[":
        return msgspec.json.decode(raw, type=list[kind])  # type: ignore[valid-type]
    found = msgspec.json.decode(raw, type=kind)
    return [found] if many else found


def _since(request: Request) -> int:
    text = request.query_params.get("since") or request.headers.get("last-event-id") or "0"
    if not text.isdecimal():
        raise ConfigError(f"since is the number of an event, not {text!r}.")
    return int(text)


def _done() -> Response:
    return JSONResponse({"success": True})
