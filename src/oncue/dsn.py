"""The URL of a PostgreSQL database: what OnCue takes from it, and what the driver gets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from oncue.errors import ConfigError

DEFAULT_SCHEMA = "oncue"
SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg")

_EXAMPLE = "postgresql://user:password@host:5432/database?schema=oncue"
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:([0-9]*))?")
# Options of libpq and of SQLAlchemy that asyncpg doesn't know. It would hand them to the server, which refuses them.
_NOT_ASYNCPG = frozenset({
    "channel_binding", "connect_timeout", "fallback_application_name", "gssdelegation", "gssencmode", "hostaddr",
    "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts",
    "prepared_statement_cache_size", "prepared_statement_name_func", "require_auth", "requirepeer", "sslcompression",
    "sslsni", "tcp_user_timeout",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A PostgreSQL URL, taken apart."""

    dsn: str = field(repr=False)
    """What asyncpg connects by: ``postgresql://...`` without OnCue's own options. It holds the password."""
    schema: str
    """The schema of OnCue's tables, checked: a plain name that needs no quotes unless it is a key word."""
    shown: str
    """The URL for logs and errors, with ``***`` in place of a password."""
    pooled: bool = False
    """``pgbouncer=true``: a pooler in transaction mode stands between, so no state of a session may be relied on."""
    ignored: tuple[str, ...] = ()
    """Options that were left out of ``dsn`` because asyncpg doesn't know them, such as ``channel_binding``."""


def is_postgres(url: str) -> bool:
    """Tell whether a URL is of PostgreSQL, by its scheme alone."""
    return url.partition("://")[0] in SCHEMES and "://" in url


def take_apart(url: str, shown: str, example: str) -> tuple[SplitResult, list[tuple[str, str]]]:
    """Return the parts of a URL, and its options in order. Raises ConfigError with ``shown`` and the ``example``."""
    try:
        parts = urlsplit(url)
        return parts, parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ConfigError(f"{shown!r} is no usable URL: {error}. Write it as {example}.") from None


def parse(url: str) -> PostgresUrl:
    """Take a PostgreSQL URL apart. Hosts, sockets and server settings in it are left as they are.

    Raises ConfigError for another scheme, a URL that is none, a schema name that OnCue can't use, an option
    ``oncue...`` that there isn't, or one that is nearly one of OnCue's own: the server would refuse it as a setting.
    """
    shown = hide(url)
    parts, options = take_apart(url, shown, _EXAMPLE)
    _check(parts, shown)
    schema, pooled = DEFAULT_SCHEMA, False
    kept: dict[str, str] = {}
    ignored: list[str] = []
    for name, value in options:
        if name == "schema":
            schema = value
        elif name == "pgbouncer":
            if value not in ("true", "false"):
                raise ConfigError(f"{shown!r}: pgbouncer is true or false, not {value!r}.")
            pooled = value == "true"
        elif name.startswith("oncue"):
            raise ConfigError(
                f"{shown!r} has the option {name!r}, which OnCue doesn't know: it has schema and pgbouncer."
            )
        elif near := get_close_matches(name.lower(), ("schema", "pgbouncer"), n=1, cutoff=0.8):
            raise ConfigError(f"{shown!r}: unknown option {name!r} in the URL; did you mean {near[0]}?")
        elif name in _NOT_ASYNCPG:
            ignored.append(name)
        else:
            # SQLAlchemy's asyncpg dialect calls it ssl.
            kept["sslmode" if name == "ssl" else name] = value
    _check_schema(schema, shown)
    # Paths of sockets and certificates stay readable.
    query = urlencode(kept, quote_via=quote, safe="/,*:")
    dsn = f"postgresql://{parts.netloc}{parts.path}{'?' if query else ''}{query}"
    return PostgresUrl(dsn, schema, shown, pooled, tuple(ignored))


def each_host(dsn: str) -> list[str]:
    """Return a URL for each host that a URL names, in their order."""
    parts = urlsplit(dsn)
    login, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return [dsn]
    return [parts._replace(netloc=f"{login}{at}{host}").geturl() for host in hosts.split(",")]


def _check(parts: SplitResult, shown: str) -> None:
    if not is_postgres(shown):
        raise ConfigError(f"{shown!r} is no PostgreSQL URL. Write it as {_EXAMPLE}.")
    if parts.fragment or parts.netloc.count("@") > 1:
        raise ConfigError(
            f"{shown!r} has a '#' or a second '@': in a user name or password write %23 and %40 for them."
        )
    for host in parts.netloc.rpartition("@")[2].split(","):
        found = _HOST.fullmatch(host)
        if found is None or (found[3] and not 0 < int(found[3]) < 65536):
            raise ConfigError(
                f"{shown!r} names no usable host: write host or host:5432, an IPv6 address in brackets, and in a "
                "password %2F for '/'."
            )


def _check_schema(schema: str, shown: str) -> None:
    if _SCHEMA.fullmatch(schema) is None or schema.startswith("pg_") or schema == "information_schema":
        raise ConfigError(
            f"{schema!r} in {shown!r} can't be the schema of OnCue's tables: use small letters, digits and _, at most "
            "48, no digit first and not pg_ (which is PostgreSQL's own), as in schema=oncue."
        )


def hide(url: str) -> str:
    """Put *** for what may be a password, also in a URL that can't be read: rather too much than too little."""
    url = re.sub(r"(:/*[^:@/]*):.*@", r"\1:***@", url)
    return re.sub(r"([?&](?:ssl_?)?password=)[^&#]*", r"\1***", url)
