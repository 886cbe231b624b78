"""Whether an external cron reaches the application: asked as cron would ask, with nothing being run."""

from __future__ import annotations

import asyncio
import os
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import click

from oncue.errors import ConfigError
from oncue.settings import secrets_of
from oncue.store.views import Check

_PATH = "/api/cron/process-scheduled"
# A budget that is refused, after the secret was looked at: whoever may call learns that, and no job runs.
_NOTHING = "?limit=0"
_TIMEOUT = 10.0
_NAME = "cron route"
_HERE = ("localhost", "127.0.0.1", "::1")


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: neither does cron, and the secret is for nobody else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Have the redirect returned as it came."""


_opener = urllib.request.build_opener(_Stay)


def address_of(url: str) -> str:
    """Return the cron route's address; ``url`` is where the application answers, or the route's own address.

    Raises UsageError.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise click.UsageError(f"--url {url!r} is not understood. Write it as https://example.com.")
    bare = url.rstrip("/")
    return bare if bare.endswith(_PATH) else bare + _PATH


async def cron_route(address: str) -> Check:
    """Call the route without a secret, and where CRON_SECRET is set here with it, and say whether cron gets through."""
    try:
        status, said = await asyncio.to_thread(_call, address, None)
        if status != 401:
            return _refused(address, status, said)
        secrets = secrets_of(os.environ.get("CRON_SECRET"), "CRON_SECRET")
        if not secrets:
            found = f"{address} answers, and asks for a secret"
            return Check(_NAME, "ok", f"{found}; CRON_SECRET is not set here, so whether it fits was not tried")
        if not _safe(address):
            remedy = "Have cron call https://. The secret was not sent."
            return Check(_NAME, "warn", f"{address} would show the secret to everybody on the way", remedy)
        return await asyncio.to_thread(_with_secrets, address, secrets)
    except (OSError, HTTPException, ConfigError) as error:
        reason = getattr(error, "reason", None) or error
        remedy = "Is the application served there, and does this machine get through? `oncue serve` serves it."
        if isinstance(reason, ssl.SSLError):
            remedy = "Mend the certificate: cron refuses it too."
        return Check(_NAME, "FAIL", f"{address} can't be reached: {reason}", remedy)


def _with_secrets(address: str, secrets: tuple[bytes, ...]) -> Check:
    answers = [_call(address, secret.decode())[0] for secret in secrets]
    if all(status == 400 for status in answers):
        return Check(_NAME, "ok", f"{address} answers, and takes the secret; nothing was run")
    if all(status in (400, 401) for status in answers):
        which = "the secret" if len(secrets) == 1 else f"{answers.count(401)} of the {len(secrets)} secrets"
        remedy = "Set the same CRON_SECRET there and where cron runs; two parted by a comma while one replaces another."
        return Check(_NAME, "FAIL", f"{address} refuses {which} of this environment", remedy)
    return _refused(address, next(status for status in answers if status not in (400, 401)), "")


def _refused(address: str, status: int, said: str) -> Check:
    found = f"{address} answered {status}"
    if status == 503 and "cron secret" in said.lower():
        return Check(
            _NAME, "FAIL", f"{found}: no CRON_SECRET is set there", "Set it there: without one it does nothing."
        )
    if 300 <= status < 400:
        return Check(_NAME, "FAIL", f"{found}, a redirect", "Name the address that it leads to: cron follows none.")
    if status == 404:
        return Check(_NAME, "FAIL", found, "Is that where the application answers? Is its route mounted elsewhere?")
    if status == 403:
        return Check(_NAME, "FAIL", found, "Something between refuses it, such as a firewall: let cron through.")
    if status in (200, 400):
        return Check(_NAME, "FAIL", f"{found} to a call without a secret", "Whatever answers there is open to anybody.")
    return Check(_NAME, "FAIL", found, "Look at the log of the application, and of what stands before it.")


def _call(address: str, secret: str | None) -> tuple[int, str]:
    headers = {"User-Agent": "oncue-doctor"} | ({} if secret is None else {"Authorization": f"Bearer {secret}"})
    request = urllib.request.Request(address + _NOTHING, method="POST", data=b"", headers=headers)  # noqa: S310
    try:
        with _opener.open(request, timeout=_TIMEOUT) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(2_000).decode(errors="replace")


def _safe(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme == "https" or parts.hostname in _HERE
