"""A stand-in for Telegram: the Bot API by HTTP on loopback, people who write and tap, and a ledger of what they saw.

It keeps the manual's rules (core.telegram.org/bots/api): tokens, chats that must have been started, lengths, blocking.
A test asserts against `ledger`; the code under test never sees it. Faults come in the order in which they were asked
for, one to each sendMessage.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from tests.telegram.people import Person

TOKEN = "123456:stand-in"
SECRET = "stand-in_secret"

Fault = Literal[
    "reset",  # the connection breaks before anything was accepted
    "accept_reset",  # accepted, then the connection breaks
    "accept_hang",  # accepted, then silence
    "accept_trickle",  # accepted, then an answer that comes in pieces and never ends
    "accept_500",  # accepted, then an error as JSON
    "accept_502",  # accepted, then a proxy's page
    "accept_truncated",  # accepted, then half an answer
    "accept_nameless",  # accepted, with an answer that doesn't say as what
    "429",
    "429_page",  # by a proxy, not by Telegram
    "401",
    "403",
    "404_page",
    "redirect",
]


@dataclass(frozen=True, slots=True)
class Seen:
    """A message that a person has before them."""

    chat: int
    message_id: int
    text: str
    buttons: tuple[tuple[str, str], ...]
    """(title, callback_data), in order."""
    at: float

    @property
    def external_id(self) -> str:
        return f"{self.chat}:{self.message_id}"


@dataclass(slots=True)
class Call:
    """A request that came, of whatever method."""

    method: str
    parameters: Mapping[str, Any]


@dataclass(slots=True)
class Refused(Exception):
    """An error as the manual has it."""

    code: int
    description: str
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        more = {"parameters": self.parameters} if self.parameters else {}
        return json.dumps({"ok": False, "error_code": self.code, "description": self.description, **more}).encode()


class Standin:
    """The Bot API of one bot. ``async with Standin() as telegram``; then `url` is where it listens."""

    def __init__(self, token: str = TOKEN, secret: str = SECRET) -> None:
        self.token, self.secret = token, secret
        self.ledger: list[Seen] = []
        self.calls: list[Call] = []
        self.answered: list[str] = []
        """The ids of taps that stopped waiting."""
        self.webhook: dict[str, Any] = {}
        self.app: Any = None
        """An ASGI application that takes updates in place of the webhook's address."""
        self.people: dict[int, Person] = {}
        self.retry_after = 3
        self.release = asyncio.Event()
        """Ends hanging answers."""
        self._faults: deque[Fault] = deque()
        self._message_ids: dict[int, itertools.count[int]] = defaultdict(lambda: itertools.count(1))
        self._update_ids = itertools.count(900_000_001)
        self._tap_ids = itertools.count(1)
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        assert self._server is not None
        self.release.set()
        self._server.close()
        for writer in self._connections.values():
            writer.transport.abort()
        await asyncio.gather(*self._connections)
        await self._server.wait_closed()
        if self._client is not None:
            await self._client.aclose()

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    def person(self, chat: int, name: str = "Ada") -> Person:
        """Let somebody start the bot; before, nothing can be sent to them."""
        return self.people.setdefault(chat, Person(self, chat, name))

    def fault(self, *faults: Fault) -> None:
        """Let the next messages fail so, one after the other."""
        self._faults.extend(faults)

    def seen_by(self, chat: int) -> list[Seen]:
        """What one person saw, in order."""
        return [seen for seen in self.ledger if seen.chat == chat]

    async def wait_for(self, chat: int, count: int) -> list[Seen]:
        """Wait until a person has so many messages before them."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.seen_by(chat)) >= count)
        return self.seen_by(chat)

    async def asked(self, method: str, count: int) -> None:
        """Wait until a method has been called so many times, whatever came of it."""
        async with self._changed:
            await self._changed.wait_for(lambda: sum(call.method == method for call in self.calls) >= count)

    # Requests

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            del self._connections[task]

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Take one request and answer it; False: the connection ends."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path = lines[0].split(" ")[1]
        token, _, method = path.removeprefix("/bot").partition("/")
        self.calls.append(Call(method, json.loads(body)))
        fault = self._faults.popleft() if method == "sendMessage" and self._faults else None
        if fault == "reset":
            writer.transport.abort()
            return False
        try:
            answer = 200, self._perform(token, method, json.loads(body), fault)
        except Refused as error:
            answer = error.code, error.body
        async with self._changed:
            self._changed.notify_all()
        return await self._respond(writer, *answer, fault)

    async def _respond(self, writer: asyncio.StreamWriter, status: int, body: bytes, fault: Fault | None) -> bool:
        match fault:
            case "accept_reset":
                writer.transport.abort()
                return False
            case "accept_hang":
                await self.release.wait()
                return False
            case "accept_trickle":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not self.release.is_set() and not writer.is_closing():
                    writer.write(b" ")
                    await writer.drain()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.release.wait(), 0.02)
                return False
            case "accept_500":
                status, body = 500, Refused(500, "Internal Server Error").body
            case "accept_502":
                status, body = 502, b"<html><h1>502 Bad Gateway</h1></html>"
            case "404_page":
                status, body = 404, b"<html><h1>404 Not Found</h1></html>"
            case "429_page":
                status, body = 429, b"<html><h1>Too many requests</h1></html>"
            case "redirect":
                status, body = 302, b""
            case "accept_nameless":
                body = b'{"ok":true,"result":{}}'
            case _:
                pass
        length = len(body)
        body = body[: length // 2] if fault == "accept_truncated" else body
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
        location = "Location: https://elsewhere.invalid/\r\n" if fault == "redirect" else ""
        writer.write(f"{head}{location}\r\n".encode() + body)
        await writer.drain()
        return fault != "accept_truncated"

    def _perform(self, token: str, method: str, parameters: dict[str, Any], fault: Fault | None) -> bytes:
        if token != self.token or fault == "401":
            raise Refused(401, "Unauthorized")
        if fault == "403":
            raise Refused(403, "Forbidden: user is deactivated")
        if fault == "429":
            after = self.retry_after
            raise Refused(429, f"Too Many Requests: retry after {after}", {"retry_after": after})
        if fault in {"429_page", "404_page", "redirect"}:
            return b""
        match method:
            case "sendMessage":
                result: Any = self._send(parameters)
            case "sendChatAction":
                self._chat(parameters)
                result = True
            case "answerCallbackQuery":
                result = self._answer_tap(parameters)
            case "setWebhook":
                self.webhook = parameters
                result = True
            case _:
                raise Refused(404, "Not Found")
        return json.dumps({"ok": True, "result": result}).encode()

    def _chat(self, parameters: Mapping[str, Any]) -> Person:
        try:
            person = self.people[int(parameters["chat_id"])]
        except (KeyError, ValueError):
            raise Refused(400, "Bad Request: chat not found") from None
        if person.blocked:
            raise Refused(403, "Forbidden: bot was blocked by the user")
        return person

    def _send(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        person = self._chat(parameters)
        text = parameters["text"].strip()
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise Refused(400, "Bad Request: strings must be encoded in UTF-8")
        if not text:
            raise Refused(400, "Bad Request: message text is empty")
        if len(text.encode("utf-16-le")) // 2 > 4096:
            raise Refused(400, "Bad Request: message is too long")
        rows = parameters.get("reply_markup", {}).get("inline_keyboard", [])
        buttons = tuple((button["text"], button["callback_data"]) for row in rows for button in row)
        if any(not 1 <= len(data.encode()) <= 64 for _, data in buttons):
            raise Refused(400, "Bad Request: BUTTON_DATA_INVALID")
        if len(buttons) > 100:
            raise Refused(400, "Bad Request: reply markup is too long")
        seen = Seen(person.chat, next(self._message_ids[person.chat]), text, buttons, time.time())
        self.ledger.append(seen)
        return self.as_message(seen)

    def _answer_tap(self, parameters: Mapping[str, Any]) -> bool:
        tap = parameters["callback_query_id"]
        if all(tap not in person.waiting for person in self.people.values()):
            raise Refused(400, "Bad Request: query is too old and response timeout expired or query ID is invalid")
        for person in self.people.values():
            person.waiting.discard(tap)
        self.answered.append(tap)
        return True

    def as_message(self, seen: Seen) -> dict[str, Any]:
        """A message of the bot as the manual has it."""
        keyboard = [[{"text": title, "callback_data": data}] for title, data in seen.buttons]
        return {
            "message_id": seen.message_id,
            "from": {"id": int(self.token.partition(":")[0]), "is_bot": True, "first_name": "Bot"},
            "chat": {"id": seen.chat, "type": "private", "first_name": self.people[seen.chat].name},
            "date": int(seen.at),
            "text": seen.text,
            **({"reply_markup": {"inline_keyboard": keyboard}} if keyboard else {}),
        }

    # Updates

    def next_message_id(self, chat: int) -> int:
        """People's messages and the bot's are numbered together."""
        return next(self._message_ids[chat])

    def next_tap_id(self) -> str:
        return str(next(self._tap_ids) + 4382_000_000)

    def update(self, **item: Any) -> bytes:
        """An update, as it is posted."""
        return json.dumps({"update_id": next(self._update_ids), **item}).encode()

    async def deliver(self, raw: bytes, *, tries: int = 5) -> httpx.Response:
        """Post an update, again where it isn't taken; perform a method that is given in the reply."""
        if self._client is None:
            inside = None if self.app is None else httpx.ASGITransport(self.app)
            self._client = httpx.AsyncClient(transport=inside, trust_env=False)
        secret = self.webhook.get("secret_token", self.secret)
        headers = {"X-Telegram-Bot-Api-Secret-Token": secret, "Content-Type": "application/json"}
        response = await self._client.post(self.webhook["url"], content=raw, headers=headers)
        for _ in range(tries - 1):
            if response.is_success:
                break
            response = await self._client.post(self.webhook["url"], content=raw, headers=headers)
        if response.is_success and response.content:
            assert response.headers["content-type"].startswith("application/json")
            self._perform_reply(response.json())
        async with self._changed:
            self._changed.notify_all()
        return response

    def _perform_reply(self, wanted: Any) -> None:
        """A method in the reply fails in silence, as the real one does."""
        if isinstance(wanted, dict) and "method" in wanted:
            self.calls.append(Call(wanted["method"], wanted))
            with contextlib.suppress(Refused):
                self._perform(self.token, wanted["method"], wanted, None)
