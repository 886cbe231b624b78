"""The Telegram Bot API as a transport: its client over httpx.

Facts by Telegram's own pages: core.telegram.org/bots/api ("the manual") and core.telegram.org/bots/faq.
"""

from __future__ import annotations

import asyncio
import hmac
import importlib
import json
import logging
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from oncue.errors import ConfigError, InvalidJob, OnCueError
from oncue.telegram import payload
from oncue.transport import Address, Answer, Batch, Capabilities, Content, Outgoing

if TYPE_CHECKING:
    import httpx

URL = "https://api.telegram.org"
LARGEST = 1 << 20
"""Bytes of an answer that are read at most; Telegram's have a thousand or two."""
TYPING_SECONDS = 5.0
SECRET_HEADER = "x-telegram-bot-api-secret-token"  # noqa: S105 - a header's name
_CHAT = re.compile("[1-9][0-9]{0,15}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}")

log = logging.getLogger("oncue.telegram")


class Telegram:
    """A Telegram bot as a channel of conversations, in private chats.

    ``token`` (TELEGRAM_TOKEN) is the bot's, by @BotFather. ``secret`` (TELEGRAM_SECRET) is a word of yours that
    Telegram sends with each update, 1 to 256 of ``A-Z a-z 0-9 _ -`` (setWebhook's ``secret_token``); an update
    without it isn't taken. ``url`` (TELEGRAM_URL) is for a Bot API server of your own. ``name`` tells this channel from
    the application's others and is stored: keep it. ``timeout``: seconds to wait for Telegram; no send takes longer
    than twice that.

    By the FAQ a bot may send about 30 messages a second (``throughput``; more by agreement with Telegram) and one a
    second to the same chat. Telegram tells nothing of what becomes of a message, echoes nothing and has no templates;
    there is no window either: who has started the bot may be written to until they block it.

    Raises ConfigError for a token, secret or URL that is missing or can't be one.
    """

    inbound_counts = False
    pair: tuple[float, float, int] | None = (1.0, 1.0, 1)
    capabilities = Capabilities(
        echo=False,
        statuses=False,
        templates=False,
        typing=True,
        window=None,
        buttons=payload.BUTTONS,
        rows=0,
        text_length=payload.TEXT_LENGTH,
    )

    def __init__(
        self,
        token: str | None = None,
        secret: str | None = None,
        *,
        name: str = "telegram",
        url: str | None = None,
        throughput: float = 30.0,
        timeout: float = 10.0,
    ) -> None:
        if not throughput > 0 or not timeout > 0:
            raise ConfigError(f"throughput and timeout are above 0, not {throughput!r} and {timeout!r}.")
        self.name = name
        self.throughput = throughput
        self._timeout = timeout
        self._token = _setting("TELEGRAM_TOKEN", token)
        self._secret = _setting("TELEGRAM_SECRET", secret)
        self._url = (url or os.environ.get("TELEGRAM_URL") or URL).rstrip("/")
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()
        self._redaction = _Redaction(self._token)
        if not re.fullmatch(r"[0-9]+:[A-Za-z0-9_-]+", self._token):
            raise ConfigError("TELEGRAM_TOKEN is no bot's token: @BotFather gives one like 123456:ABC-DEF.")
        if not _SECRET.fullmatch(self._secret):
            raise ConfigError("TELEGRAM_SECRET has 1 to 256 characters of A-Z, a-z, 0-9, _ and -.")
        if not _is_address(self._url):
            raise ConfigError(f"TELEGRAM_URL is no http:// or https:// address: {self._url!r}.")

    def __repr__(self) -> str:
        return f"Telegram(name={self.name!r}, url={self._url!r})"

    def address(self, given: str) -> Address:
        """Return the number of a private chat, which is the person's too. Raises InvalidJob for what is none."""
        number = given.strip()
        if not _CHAT.fullmatch(number):
            raise InvalidJob(
                f"{given!r} is no Telegram chat: that is a number such as 42, which comes with what a person writes to "
                "the bot. A bot can't write to a name or a phone number."
            )
        return Address(number)

    def check(self, content: Content) -> None:
        """Raise InvalidJob where Telegram would refuse this content."""
        payload.check(content)

    async def send(self, message: Outgoing) -> Answer:
        """Hand a message over, once. The echo goes nowhere: Telegram has no place for it."""
        if message.to.address is None:
            return Answer("refused", reason="this person has no chat with the bot")
        try:
            parameters = payload.message(message.to.address, message.content)
        except InvalidJob as error:
            return Answer("refused", reason=str(error))
        client = self._client()
        httpx = importlib.import_module("httpx")
        try:
            status, raw = await self._post(client, "sendMessage", parameters)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            return Answer("retry", reason=self._say(error))
        except Exception as error:
            return Answer("unknown", reason=self._say(error))
        return payload.answer(status, raw)

    async def typing(self, external_id: str) -> None:
        """Show "typing" in the chat of that message, for 5 seconds or until the next message (sendChatAction)."""
        chat = external_id.partition(":")[0]
        try:
            async with asyncio.timeout(TYPING_SECONDS):
                status, _ = await self._post(self._client(), "sendChatAction", {"chat_id": chat, "action": "typing"})
            log.debug("%s: sendChatAction: HTTP %s", self.name, status)
        except Exception as error:  # Whether the person sees it is no reason for anything to fail.
            log.debug("%s: typing was not shown: %s", self.name, self._say(error))

    def genuine(self, headers: Mapping[str, str], raw: bytes) -> bool:
        """Tell whether an update carries our secret. It isn't bound to the body: only TLS keeps it from others."""
        return hmac.compare_digest(headers.get(SECRET_HEADER, "").encode(errors="replace"), self._secret.encode())

    def handshake(self, query: Mapping[str, str]) -> str | None:
        """Telegram asks nothing."""
        return None

    def read(self, raw: bytes) -> Batch:
        """Read an update; see `payload.read`."""
        return payload.read(raw)

    def reply(self, raw: bytes) -> bytes:
        """What to answer an update with, as JSON, so that a tapped button stops waiting.

        The manual: clients show a progress bar until answerCallbackQuery is called, "even if no notification to the
        user is needed"; and a method may be given "in the reply" to the webhook's request, which costs no request.
        """
        tap = payload.tapped(raw)
        return b"" if tap is None else _json({"method": "answerCallbackQuery", "callback_query_id": tap})

    async def set_webhook(self, url: str) -> None:
        """Tell Telegram to send updates to ``url`` (https, port 443, 80, 88 or 8443), with our secret.

        To be done once, and again after a change of the secret. Raises OnCueError where Telegram refuses or can't be
        reached.
        """
        wanted = {"url": url, "secret_token": self._secret, "allowed_updates": payload.UPDATES}
        client = self._client()
        httpx = importlib.import_module("httpx")
        try:
            status, raw = await self._post(client, "setWebhook", wanted)
        except (httpx.HTTPError, TimeoutError) as error:
            raise OnCueError(f"Telegram can't be reached for setWebhook: {self._say(error)}") from None
        if status != 200:
            raise OnCueError(
                f"Telegram refused the webhook {url!r}: HTTP {status} {raw[:300].decode(errors='replace')}"
            )

    async def close(self) -> None:
        """Close the connections of this event loop. A later send opens new ones."""
        if (client := self._clients.pop(asyncio.get_running_loop(), None)) is not None:
            await client.aclose()
        if not self._clients:
            logging.getLogger("httpx").removeFilter(self._redaction)

    async def _post(self, client: httpx.AsyncClient, method: str, parameters: Mapping[str, Any]) -> tuple[int, bytes]:
        """Post, and return status and body. Raises what httpx raises, and TimeoutError."""
        url, body = f"{self._url}/bot{self._token}/{method}", _json(parameters)
        raw = bytearray()
        # Each piece of an answer may take `timeout`, and there may be any number of pieces.
        async with asyncio.timeout(2 * self._timeout):
            async with client.stream(
                "POST", url, content=body, headers={"Content-Type": "application/json"}
            ) as response:
                async for piece in response.aiter_bytes():
                    raw += piece
                    if len(raw) > LARGEST:
                        break
                return response.status_code, bytes(raw)

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if (client := self._clients.get(loop)) is None:
            try:
                httpx = importlib.import_module("httpx")
            except ModuleNotFoundError as error:
                raise ConfigError(f"Telegram needs one more package ({error}): pip install 'oncue[telegram]'") from None
            # The token is a part of every URL, and httpx logs URLs.
            logging.getLogger("httpx").addFilter(self._redaction)
            # A connection has half the time, so that it is known that nothing was sent before time is up.
            part = self._timeout / 2
            client = self._clients[loop] = httpx.AsyncClient(
                timeout=httpx.Timeout(self._timeout, connect=part, pool=part)
            )
        return client

    def _say(self, error: Exception) -> str:
        return f"{type(error).__name__}: {error}".rstrip(": ").replace(self._token, "<token>")


class _Redaction(logging.Filter):
    """Takes a token out of what is logged."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if self._token in text:
            record.msg, record.args = text.replace(self._token, "<token>"), None
        return True


def _setting(name: str, given: str | None) -> str:
    value = given or os.environ.get(name)
    if not value:
        raise ConfigError(f"{name} isn't set; set it, or give it to Telegram().")
    return value


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _json(value: Mapping[str, Any]) -> bytes:
    """As ASCII, so that no text can fail to be encoded."""
    return json.dumps(value).encode()
