"""What is read from the environment, and the bounds of what an external cron may ask for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from oncue.errors import ConfigError
from oncue.words import counted

DEFAULT_URL = "sqlite:///oncue.db"
SHORTEST_SECRET = 16
CRON_LIMIT, CRON_SECONDS, CRON_GRACE = 1000, 25.0, 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a process.

    ``database_url`` (``DATABASE_URL``), ``redis_url`` (``REDIS_URL``). ``cron_secrets`` (``CRON_SECRET``; two parted
    by a comma are both good while one replaces the other): none means that the cron route refuses. One call of that
    route takes at most ``cron_limit`` jobs (``ONCUE_CRON_LIMIT``) and works for at most ``cron_seconds``
    (``ONCUE_CRON_SECONDS``); jobs that still run then have ``cron_grace`` seconds (``ONCUE_CRON_GRACE``) to end, and
    as long again to heed that they are stopped. Keep the sum below what your host allows a request to take.
    """

    database_url: str = field(default=DEFAULT_URL, repr=False)
    redis_url: str | None = field(default=None, repr=False)
    cron_secrets: tuple[bytes, ...] = field(default=(), repr=False)
    cron_limit: int = CRON_LIMIT
    cron_seconds: float = CRON_SECONDS
    cron_grace: float = CRON_GRACE

    def __post_init__(self) -> None:
        if type(self.cron_limit) is not int or self.cron_limit < 1:
            raise ConfigError(f"cron_limit is a whole number of at least 1, not {self.cron_limit!r}.")
        if not 0 < self.cron_seconds < math.inf:
            raise ConfigError(f"cron_seconds is a number above 0, not {self.cron_seconds!r}.")
        if not 0 <= self.cron_grace < math.inf:
            raise ConfigError(f"cron_grace is a number of at least 0 seconds, not {self.cron_grace!r}.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings; what is missing or empty has its default. Raises ConfigError naming the variable."""
        env = os.environ if environment is None else environment
        return cls(
            env.get("DATABASE_URL") or DEFAULT_URL,
            env.get("REDIS_URL") or None,
            secrets_of(env.get("CRON_SECRET"), "CRON_SECRET"),
            int(_number(env, "ONCUE_CRON_LIMIT", CRON_LIMIT, whole=True)),
            _number(env, "ONCUE_CRON_SECONDS", CRON_SECONDS),
            _number(env, "ONCUE_CRON_GRACE", CRON_GRACE, lowest=0.0),
        )


def unset(url: str) -> str:
    """Return a remark where an application uses the default database and the environment names none; else ''."""
    return " (DATABASE_URL is not set)" if url == DEFAULT_URL and not os.environ.get("DATABASE_URL") else ""


def secrets_of(given: str | Sequence[str] | None, name: str = "secret") -> tuple[bytes, ...]:
    """Return the secrets in ``given``: a sequence, or a text with commas between them; spaces around them don't count.

    Raises ConfigError for one that is too short to be safe or can't travel in a header; it never shows the secret.
    """
    parts = given.split(",") if isinstance(given, str) else list(given or ())
    found = [part.strip() for part in parts if part.strip()]
    for number, secret in enumerate(found, 1):
        which = name if len(found) == 1 else f"{name} (number {number} of {len(found)})"
        if len(secret) < SHORTEST_SECRET:
            length = counted(len(secret), "character")
            raise ConfigError(
                f"{which} has {length}; with fewer than {SHORTEST_SECRET} it could be guessed. Make one with: "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise ConfigError(f"{which} has a space, a control character or one beyond ASCII, which no header keeps.")
    return tuple(secret.encode() for secret in found)


def _number(
    env: Mapping[str, str], name: str, default: float, *, whole: bool = False, lowest: float | None = None
) -> float:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = math.nan
    good = value > 0 if lowest is None else value >= lowest
    if not good or value == math.inf:
        kind = "a whole number of at least 1" if whole else f"a number {'above 0' if lowest is None else 'from 0 up'}"
        raise ConfigError(f"{name} is {kind}, not {text!r}.")
    return value
