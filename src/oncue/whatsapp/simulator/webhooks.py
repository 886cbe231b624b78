"""Delivers updates to the application: signed, batched, doubled, reordered, and again until they are taken."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx

from oncue.errors import ConfigError
from oncue.whatsapp.simulator.config import Config
from oncue.whatsapp.simulator.ledger import Ledger
from oncue.whatsapp.simulator.timers import Timers

SECOND = 1_000_000
_CHALLENGE = "1158201444"


@dataclass(frozen=True, slots=True)
class Update:
    """One item of a webhook. ``part``: the list of a value that it goes into (messages, statuses, ...)."""

    label: str
    item: dict[str, Any]
    part: str = "messages"
    contact: dict[str, Any] | None = None
    field_: str = "messages"


@dataclass(slots=True, eq=False)
class _Parcel:
    raw: bytes
    labels: list[str]
    began: int
    forged: bool = False
    tries: int = 0


def sign(raw: bytes, app_secret: str) -> str:
    """Return the value of ``X-Hub-Signature-256`` for these bytes."""
    # Not the client's function: a mistake in that would agree with itself.
    return "sha256=" + hmac.new(app_secret.encode(), raw, hashlib.sha256).hexdigest()


class Webhooks:
    """Everything that is on its way to the application."""

    def __init__(self, config: Config, timers: Timers, ledger: Ledger) -> None:
        self._config, self._chaos = config, config.webhooks
        self._timers, self._ledger = timers, ledger
        self._dice = Random(f"{config.seed}:webhooks")
        self.url = ""
        self._client: httpx.AsyncClient | None = None
        self._inside: Any = None
        self._waiting: list[Update] = []
        self._failed: dict[_Parcel, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots: asyncio.Semaphore | None = None
        self.out = False
        """Whether nothing gets through at present."""
        self._seen: Counter[str] = Counter()

    # -- where to -----------------------------------------------------------------------------------------------

    async def subscribe(self, url: str, verify_token: str, app: Any = None) -> None:
        """Shake hands with an application, then deliver to it; ``app``: an ASGI application in this process.

        Raises ConfigError for an address that isn't this machine's, and where the handshake fails.
        """
        if app is None:
            check_local(url)
        query = {"hub.mode": "subscribe", "hub.verify_token": verify_token, "hub.challenge": _CHALLENGE}
        await self._forget_client()
        self._inside = app
        try:
            reply = await self._http().get(url, params=query)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConfigError(f"The webhook {url} can't be reached: {str(error) or type(error).__name__}.") from error
        if reply.status_code != 200 or reply.text != _CHALLENGE:
            raise ConfigError(
                f"The webhook {url} answered the handshake with {reply.status_code} and {reply.text[:80]!r}; it "
                "answers 200 and the bare hub.challenge where hub.verify_token is its own."
            )
        self.use(url, app)

    def use(self, url: str, app: Any = None) -> None:
        """Deliver to an address without a handshake. Raises ConfigError for one that isn't this machine's."""
        if app is None:
            check_local(url)
        self.url, self._inside = url, app
        self._flush_failed()

    # -- what ---------------------------------------------------------------------------------------------------

    def send(self, update: Update) -> None:
        """Deliver an update as the configuration says: now, later, twice, with others, beside a forged one."""
        seen = self._seen[update.label]
        self._seen[update.label] += 1
        dice = Random(f"{self._config.seed}:update:{update.label}:{seen}")
        chaos = self._chaos
        # Every draw is made in each case, so that one share does not change what another one does.
        late, twice, forged = (
            dice.random() < share for share in (chaos.reordered, chaos.duplicated, chaos.bad_signature)
        )
        pause = dice.lognormvariate(0, 0.6) * chaos.held if late else 0.0
        self._hold(update, pause)
        if twice:
            self._hold(update, pause + dice.lognormvariate(0, 0.6) * chaos.held)
        if forged:
            self._post(self._forgery(update))

    async def send_now(self, update: Update) -> None:
        """Deliver an update by itself, and return when it was taken or has failed once."""
        await self._attempt(self._parcel([update]))

    def end_outage(self, *, flood: bool = True) -> None:
        """Let updates through again; ``flood``: all that waited at once and jumbled, else as their tries come up."""
        self.out = False
        self._ledger.write(self._timers.now(), "outage-ended", waiting=len(self._failed))
        if flood:
            self._flush_failed()

    @property
    def waiting(self) -> int:
        """How many POSTs have failed and will be tried again."""
        return len(self._failed)

    async def close(self) -> None:
        """Deliver nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._forget_client()

    # -- how ----------------------------------------------------------------------------------------------------

    def _hold(self, update: Update, pause: float) -> None:
        if pause > 0:
            self._timers.after(pause, lambda: self._collect(update))
        else:
            self._collect(update)

    def _collect(self, update: Update) -> None:
        if self._chaos.batch_within <= 0:
            self._post(self._parcel([update]))
            return
        self._waiting.append(update)
        if len(self._waiting) == 1:
            self._timers.after(self._chaos.batch_within, self._send_batch)
        elif len(self._waiting) >= self._chaos.batch_most:
            self._send_batch()

    def _send_batch(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._post(self._parcel(waiting))

    def _parcel(self, updates: list[Update]) -> _Parcel:
        body = {"object": "whatsapp_business_account", "entry": self._entries(updates)}
        # json escapes what isn't ASCII, as Meta does: only these bytes have this signature.
        raw = json.dumps(body, separators=(",", ":")).encode()
        return _Parcel(raw, [update.label for update in updates], self._timers.now())

    def _forgery(self, update: Update) -> _Parcel:
        forged = json.loads(json.dumps(update.item))
        if isinstance(text := forged.get("text"), dict):
            text["body"] = "forged"
        forged["id"] = f"{forged.get('id', 'wamid.')}FORGED"
        parcel = self._parcel([Update(f"forged:{update.label}", forged, update.part, update.contact, update.field_)])
        parcel.forged = True
        return parcel

    def _entries(self, updates: list[Update]) -> list[dict[str, Any]]:
        """Put each update on a random level: beside the one before, into a new change, or into a new entry."""
        entries: list[dict[str, Any]] = []
        before: Update | None = None
        for update in updates:
            level = self._dice.randrange(3)
            same = before is not None and before.field_ == update.field_ and before.part == update.part
            if before is None or level == 0:
                entries.append({"id": self._config.account, "changes": [self._change(update)]})
            elif level == 1 or not same:
                entries[-1]["changes"].append(self._change(update))
            else:
                value = entries[-1]["changes"][-1]["value"]
                value[update.part].append(update.item)
                if update.contact is not None and update.contact not in value.setdefault("contacts", []):
                    value["contacts"].append(update.contact)
            before = update
        return entries

    def _change(self, update: Update) -> dict[str, Any]:
        metadata = {"display_phone_number": self._config.display_number, "phone_number_id": self._config.number}
        value: dict[str, Any] = {"messaging_product": "whatsapp", "metadata": metadata}
        if update.contact is not None:
            value["contacts"] = [update.contact]
        return {"value": value | {update.part: [update.item]}, "field": update.field_}

    def _post(self, parcel: _Parcel) -> None:
        self._spawn(self._attempt(parcel))

    async def _attempt(self, parcel: _Parcel) -> None:
        self._failed.pop(parcel, None)
        parcel.tries += 1
        status = await self._try(parcel)
        now = self._timers.now()
        self._ledger.write(now, "webhook", items=parcel.labels, tries=parcel.tries, status=status,
                           forged=parcel.forged or None)  # fmt: skip
        if status == 200 or parcel.forged:
            return
        if now - parcel.began >= self._chaos.give_up_after * SECOND:
            self._ledger.write(now, "webhook-given-up", items=parcel.labels, tries=parcel.tries)
            return
        pause = min(self._chaos.retry_first * 2 ** (parcel.tries - 1), self._chaos.retry_most)
        self._failed[parcel] = self._timers.after(pause, lambda: self._post(parcel))

    async def _try(self, parcel: _Parcel) -> int:
        """POST it once. Returns the status, 0 where there was no answer; without an address there is none."""
        if self.out or not self.url:
            return 0
        secret = self._config.app_secret + ("?" if parcel.forged else "")
        headers = {"content-type": "application/json", "x-hub-signature-256": sign(parcel.raw, secret)}
        if self._slots is None:
            self._slots = asyncio.Semaphore(self._chaos.connections)
        try:
            async with self._slots:
                return (await self._http().post(self.url, content=parcel.raw, headers=headers)).status_code
        except Exception:
            # Also what an application in this process raises: to the messenger that is no answer.
            return 0

    def _flush_failed(self) -> None:
        parcels = list(self._failed)
        self._dice.shuffle(parcels)
        for parcel in parcels:
            self._failed.pop(parcel)()
            self._post(parcel)

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            inside = None if self._inside is None else httpx.ASGITransport(self._inside)
            self._client = httpx.AsyncClient(transport=inside, timeout=self._chaos.timeout, trust_env=False)
        return self._client

    async def _forget_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def check_local(url: str) -> None:
    """Raise ConfigError unless a URL names this machine: nobody else is to get made-up messages."""
    host = urlsplit(url).hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost" or host.endswith(".localhost")
    if not local or urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(
            f"The simulator delivers to this machine only, such as http://127.0.0.1:8000/..., not {url!r}."
        )
