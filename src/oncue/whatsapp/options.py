"""What a WhatsApp number needs to be told, from arguments or from the environment."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, get_args
from urllib.parse import urlsplit

from oncue.errors import ConfigError

Provider = Literal["meta", "360dialog"]
URLS: Mapping[Provider, str] = {"meta": "https://graph.facebook.com", "360dialog": "https://waba-v2.360dialog.io"}
VERSION = "v26.0"
_NEXT = "See docs/reference/whatsapp.md for where to find it."


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of a number. Nothing secret is shown by ``repr``."""

    provider: Provider
    url: str
    """Without a slash at its end, and with the version of the API where the provider has versions."""
    token: str = field(repr=False)
    number: str | None
    """The phone number id."""
    app_secrets: tuple[bytes, ...] = field(repr=False)
    verify_token: str | None = field(repr=False)
    timeout: float
    connections: int

    @classmethod
    def read(
        cls,
        token: str | None,
        number: str | None,
        app_secret: str | Sequence[str] | None,
        verify_token: str | None,
        provider: str | None,
        url: str | None,
        version: str | None,
        timeout: float,
        connections: int,
    ) -> Self:
        """Return the settings; what is None is taken from its variable. Raises ConfigError naming what is missing."""
        chosen = _provider(provider or _variable("WHATSAPP_PROVIDER") or "meta")
        token = token or _variable("WHATSAPP_TOKEN")
        number = number or _variable("WHATSAPP_PHONE_NUMBER_ID")
        url = url or _variable("WHATSAPP_URL") or URLS[chosen]
        version = version or _variable("WHATSAPP_VERSION") or VERSION
        if not token:
            what = "the number's access token" if chosen == "meta" else "the number's API key"
            raise ConfigError(f"WHATSAPP_TOKEN is not set: {what}. Set it, or give WhatsApp(token=...). {_NEXT}")
        if not number and chosen == "meta":
            raise ConfigError(
                "WHATSAPP_PHONE_NUMBER_ID is not set: the id of the number that sends (not the number itself). Set it, "
                f"or give WhatsApp(phone_number_id=...). {_NEXT}"
            )
        if not 0 < timeout < math.inf:
            raise ConfigError(f"timeout is a number of seconds above 0, not {timeout!r}.")
        if connections < 1:
            raise ConfigError(f"connections is a whole number of at least 1, not {connections!r}.")
        return cls(
            chosen,
            _address(url, version if chosen == "meta" else None, token),
            _header("WHATSAPP_TOKEN", token),
            _id(number) if number else None,
            _secrets(app_secret),
            verify_token or _variable("WHATSAPP_VERIFY_TOKEN") or None,
            float(timeout),
            connections,
        )

    @property
    def messages(self) -> str:
        """The address to which messages are posted."""
        return f"{self.url}/messages" if self.provider == "360dialog" else f"{self.url}/{self.number}/messages"

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries to be let in."""
        if self.provider == "360dialog":
            return {"D360-API-KEY": self.token}
        return {"Authorization": f"Bearer {self.token}"}


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()


def _provider(given: str) -> Provider:
    for known in get_args(Provider):
        if given == known:
            found: Provider = known
            return found
    raise ConfigError(f"WHATSAPP_PROVIDER (provider=) is one of {', '.join(get_args(Provider))}, not {given!r}.")


def _address(url: str, version: str | None, token: str) -> str:
    wrong = ConfigError(f"WHATSAPP_URL (url=) is an address like https://graph.facebook.com, not {url!r}.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise wrong
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError("WHATSAPP_URL (url=) has a user, a query or a fragment; none of them belongs into it.")
    if parts.scheme == "http" and token.startswith("EAA"):
        raise ConfigError(
            "WHATSAPP_URL (url=) starts with http:// and the token is a real one of Meta's (EAA...): it would travel "
            "in the clear. Use https://, or a made-up token for a simulator."
        )
    if version is not None and not re.fullmatch(r"v\d+\.\d+", version):
        raise ConfigError(f"WHATSAPP_VERSION (version=) is a version of the Graph API like {VERSION}, not {version!r}.")
    base = url.rstrip("/")
    return base if version is None else f"{base}/{version}"


def _header(name: str, value: str) -> str:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(f"{name} has a space, a line break or a character that no header takes. Copy it once more.")
    return value


def _id(number: str) -> str:
    if not number.isascii() or not number.isdigit():
        raise ConfigError(
            f"WHATSAPP_PHONE_NUMBER_ID (phone_number_id=) is digits only, not {number!r}: the id as shown in the app's "
            "WhatsApp settings, not the number itself."
        )
    return number


def _secrets(given: str | Sequence[str] | None) -> tuple[bytes, ...]:
    if given is None:
        given = _variable("WHATSAPP_APP_SECRET")
    parts = given.split(",") if isinstance(given, str) else given
    return tuple(part.strip().encode() for part in parts if part.strip())
