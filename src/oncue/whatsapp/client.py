"""The WhatsApp Cloud API as a transport of conversations, by httpx."""

from __future__ import annotations

import asyncio
import hmac
import logging
from asyncio import AbstractEventLoop
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import msgspec

from oncue.errors import ConfigError, InvalidJob
from oncue.transport import Address, Answer, Batch, Capabilities, Content, Outgoing
from oncue.whatsapp import codes, payload, reading, signature
from oncue.whatsapp.options import Options

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

WINDOW = 24 * 3600.0
LARGEST = 1 << 20
"""Bytes of an answer that are read at most; WhatsApp's have some hundreds."""
TYPING_SECONDS = 5.0


class WhatsApp:
    """A WhatsApp number: sends by the Cloud API, reads its updates. See `oncue.transport.Transport`.

    What isn't given is taken from the environment: ``token`` (``WHATSAPP_TOKEN``), ``phone_number_id``
    (``WHATSAPP_PHONE_NUMBER_ID``), ``app_secret`` (``WHATSAPP_APP_SECRET``; several, or one text with commas between
    them, are all good while one replaces another), ``verify_token`` (``WHATSAPP_VERIFY_TOKEN``), ``provider``
    (``WHATSAPP_PROVIDER``: "meta" or "360dialog"), ``url`` (``WHATSAPP_URL``), ``version`` of the Graph API
    (``WHATSAPP_VERSION``).

    ``name`` tells this channel from the application's others and is stored: keep it. ``throughput``: messages a
    second that Meta grants this number. ``timeout``: seconds to wait for Meta, for a connection as well as for the
    answer; no send takes longer than twice that. ``connections``: at most so many at once for each event loop.

    Raises ConfigError where something is missing or can't be, or httpx isn't installed.
    """

    capabilities = Capabilities(
        echo=True, statuses=True, templates=True, typing=True, window=WINDOW,
        buttons=payload.BUTTONS, rows=payload.ROWS, text_length=payload.TEXT,
    )  # fmt: skip
    inbound_counts = True
    pair: tuple[float, float, int] | None = (1, 6, 45)

    def __init__(
        self,
        token: str | None = None,
        phone_number_id: str | None = None,
        app_secret: str | Sequence[str] | None = None,
        verify_token: str | None = None,
        *,
        name: str = "whatsapp",
        provider: str | None = None,
        url: str | None = None,
        version: str | None = None,
        throughput: float = 80,
        timeout: float = 10,
        connections: int = 100,
    ) -> None:
        if not throughput > 0:
            raise ConfigError(f"throughput is a number of messages a second above 0, not {throughput!r}.")
        _httpx()
        self.name = name
        self.throughput: float = throughput
        self._options = Options.read(
            token, phone_number_id, app_secret, verify_token, provider, url, version, timeout, connections
        )
        self._clients: WeakKeyDictionary[AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    def __repr__(self) -> str:
        """Show which number this is, and nothing that is secret."""
        return f"WhatsApp(name={self.name!r}, url={self._options.messages!r})"

    def address(self, given: str) -> Address:
        """Return a phone number as its digits, or a user id as it is. Raises InvalidJob for what is neither."""
        return payload.address(given)

    def check(self, content: Content) -> None:
        """Raise InvalidJob where WhatsApp would refuse this content, saying what to change."""
        payload.check(content)

    async def send(self, message: Outgoing) -> Answer:
        """Post a message, once. Only what certainly didn't leave is "retry"; what may have arrived is "unknown"."""
        try:
            body = payload.body(message)
        except InvalidJob as error:
            return Answer("refused", reason=str(error))
        try:
            # Each piece of an answer may take `timeout`, and there may be any number of pieces.
            async with asyncio.timeout(2 * self._options.timeout):
                status, headers, raw = await self._post(body)
        except TimeoutError:
            return Answer("unknown", reason=f"no whole answer within {2 * self._options.timeout:g} s")
        except Exception as error:
            return Answer(codes.trouble(error), reason=self._hidden(f"{type(error).__name__}: {error}".rstrip(": ")))
        return self._answer(status, headers, raw)

    async def typing(self, external_id: str) -> None:
        """Mark a person's message as read and show that an answer is being written: until it comes, at most 25 s."""
        try:
            async with asyncio.timeout(min(TYPING_SECONDS, self._options.timeout)):
                status, _, raw = await self._post(payload.typing_body(external_id))
        except Exception as error:  # Whether the person sees it is no reason for anything to fail.
            logger.debug("%s: typing was not shown: %s", self.name, type(error).__name__)
            return
        if status != 200:
            problem = codes.Problem.read(_object(raw).get("error"))
            logger.debug("%s: typing was not shown: %s %s", self.name, problem.code, self._hidden(problem.reason))

    def genuine(self, headers: Mapping[str, str], raw: bytes) -> bool:
        """Tell whether an update comes from the provider.

        Meta signs with the app's secret. 360dialog doesn't sign; there, the webhook is set up with a header
        ``Authorization: Bearer`` and the verify token.
        """
        options = self._options
        if options.provider == "360dialog":
            if options.verify_token is None:
                logger.error("%s: WHATSAPP_VERIFY_TOKEN is not set, so no update can be taken.", self.name)
                return False
            return _same(headers.get("authorization", ""), f"Bearer {options.verify_token}")
        if not options.app_secrets:
            logger.error("%s: WHATSAPP_APP_SECRET is not set, so no update can be taken.", self.name)
            return False
        return signature.genuine(options.app_secrets, headers.get(signature.HEADER), raw)

    def handshake(self, query: Mapping[str, str]) -> str | None:
        """Return the challenge where Meta asks whether this is our address and knows the verify token."""
        wanted = self._options.verify_token
        if query.get("hub.mode") != "subscribe":
            return None
        if wanted is None:
            logger.error("%s: WHATSAPP_VERIFY_TOKEN is not set, so Meta's question can't be answered.", self.name)
            return None
        return query.get("hub.challenge") if _same(query.get("hub.verify_token", ""), wanted) else None

    def read(self, raw: bytes) -> Batch:
        """Read an update. What is for another number of the same account is only noted."""
        return reading.read(raw, self._options.number)

    async def close(self) -> None:
        """Close the connections of this event loop. A later send opens new ones."""
        if (client := self._clients.pop(asyncio.get_running_loop(), None)) is not None:
            await client.aclose()

    async def _post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        async with self._client().stream("POST", self._options.messages, content=body) as response:
            raw = bytearray()
            async for piece in response.aiter_bytes():
                raw += piece
                if len(raw) > LARGEST:
                    break
            return response.status_code, response.headers, bytes(raw)

    def _answer(self, status: int, headers: Mapping[str, str], raw: bytes) -> Answer:
        """Judge an answer by what it says; its HTTP status only helps people."""
        answer = _object(raw)
        if "error" in answer:
            problem = codes.Problem.read(answer["error"])
            if problem.code is not None:
                verdict = codes.verdict(problem.code, problem.subcode)
                after = codes.WAITS.get(problem.code, _seconds(headers))
                return Answer(verdict, None, problem.code, self._hidden(problem.reason), after)
        elif external_id := _external_id(answer):
            return Answer("sent", external_id, reason=_held(answer), to=_contact(answer))
        return Answer("unknown", reason=f"HTTP {status} with neither a message id nor an error code")

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if (client := self._clients.get(loop)) is None:
            httpx, seconds, most = _httpx(), self._options.timeout, self._options.connections
            client = self._clients[loop] = httpx.AsyncClient(
                headers={**self._options.headers, "Content-Type": "application/json", "User-Agent": "oncue"},
                # A connection has half the time, so that it is known that nothing was sent before time is up.
                timeout=httpx.Timeout(seconds, connect=seconds / 2, pool=seconds / 2),
                limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
                follow_redirects=False,
            )
        return client

    def _hidden(self, text: str) -> str:
        """Take the token out: Meta repeats one that it doesn't like."""
        return text.replace(self._options.token, "***")[: codes.REASON]


def _httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise ConfigError(f"WhatsApp needs one more package ({error}): pip install 'oncue[whatsapp]'") from error
    return httpx


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (ValueError, RecursionError):
        return {}


def _message(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    messages = answer.get("messages")
    return messages[0] if isinstance(messages, list) and messages and isinstance(messages[0], dict) else {}


def _external_id(answer: Mapping[str, Any]) -> str | None:
    found = _message(answer).get("id")
    return found if isinstance(found, str) and 0 < len(found) <= reading.ID else None


def _contact(answer: Mapping[str, Any]) -> Address | None:
    """Return what WhatsApp calls the person: its number may be another than the one that was written to."""
    contacts = answer.get("contacts")
    found = contacts[0] if isinstance(contacts, list) and len(contacts) == 1 else None
    if not isinstance(found, dict):
        return None
    names = [found.get(name) for name in ("wa_id", "user_id")]
    wa_id, user_id = (one if isinstance(one, str) and 0 < len(one) <= reading.ID else None for one in names)
    return None if wa_id is None and user_id is None else Address(wa_id, user_id)


def _held(answer: Mapping[str, Any]) -> str:
    status = _message(answer).get("message_status")
    return status if isinstance(status, str) and status != "accepted" else ""


def _seconds(headers: Mapping[str, str]) -> float | None:
    """Return what a Retry-After header asks for, where that is a number of seconds."""
    given = headers.get("retry-after", "").strip()
    return float(given) if given.isascii() and given.isdigit() and len(given) <= 6 else None
