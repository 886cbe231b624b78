"""PostgreSQL's errors as ours: what happened, and what to do."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

import asyncpg

from oncue.dsn import PostgresUrl
from oncue.errors import (
    NoDatabase,
    SchemaTooOld,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

# What asyncpg raises: the server's errors, its own, and those of the connection.
TROUBLE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
_AGAIN = {"40001", "40P01"}
_STANDBY = {"25006"}
# The server starts, stops or recovers, or has no connection left.
_AWAY = {"57P01", "57P02", "57P03", "53300"}
_BUSY = {"55P03", "57014", "25P03", "25P04", "57P05"}
_ROLE = re.compile(r'role "([^"]+)"')


def _state(error: BaseException) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def is_rolled_back(error: BaseException) -> bool:
    """Tell whether nothing came of it, so that it can be tried again: the server took the transaction back
    (serialization, deadlock), or had said goodbye already when we wanted to ask."""
    return _state(error) in _AGAIN or is_unsent(error)


def is_locked(error: BaseException) -> bool:
    """Tell whether others held a lock for longer than the server was to wait; nothing was done."""
    return _state(error) == "55P03"


def is_unsent(error: BaseException) -> bool:
    """Tell whether the connection had heard the server's last words when it was to send: asyncpg then takes itself for
    busy. It is of no use any more."""
    return isinstance(error, asyncpg.InternalClientError) and not isinstance(
        error, asyncpg.TargetServerAttributeNotMatched
    )


def is_standby(error: BaseException) -> bool:
    """Tell whether the server turned out to take no writes: after a failover the primary is elsewhere."""
    return _state(error) in _STANDBY


def is_unreachable(error: BaseException) -> bool:
    """Tell whether there was no connection, or it broke, so that waiting may help."""
    if isinstance(error, (OSError, TimeoutError)):
        return True
    state = _state(error)
    if _is_pooler(error):
        return False
    if state[:2] == "08" or state in _AWAY:
        return True
    # asyncpg's own, but those that are about a value.
    return isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError)) and not isinstance(
        error, ValueError
    )


def _is_pooler(error: BaseException) -> bool:
    """Tell whether a pooler refused our settings, or knows our prepared statements not."""
    return _state(error) in ("26000", "42P05") or "unsupported startup parameter" in str(error)


def _said(error: BaseException) -> str:
    if is_unsent(error):
        return "the server had ended the connection"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    # What follows the first line are the driver's hints, which are for its own users.
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _role(said: str, url: PostgresUrl) -> str:
    if found := _ROLE.search(said):
        return f"role {found[1]}"
    user = unquote(urlsplit(url.dsn).username or "") or os.environ.get("PGUSER")
    return f"role {user}" if user else "this role"


def _full(said: str, where: str) -> StoreUnavailable:
    """Tell whose limit of connections is reached: a role's, a database's or the server's."""
    remedy = "raise max_connections"
    for whose in ("role", "database"):
        if found := re.search(rf'too many connections for {whose} ("[^"]+")', said):
            remedy = f"ALTER {whose.upper()} {found[1]} CONNECTION LIMIT raises it, -1 lifts it"
    return StoreUnavailable(
        f"{where} has no connection left ({said}): nothing was written. A worker process needs seven: {remedy}, or put "
        "a pooler between (then add pgbouncer=true to the URL)."
    )


def translate(error: BaseException, url: PostgresUrl, *, connected: bool = True) -> StoreError:
    """Return our error for the driver's. ``connected``: there was a connection, so something may have been written."""
    state, where = _state(error), url.shown
    said = _said(error)
    if is_standby(error) or isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return StoreReadOnly(
            f"{where} takes no writes now: it is a standby, or set to read-only ({said}). After a failover, name the "
            "new primary; with several hosts in the URL it is found by itself."
        )
    if state == "53300":
        return _full(said, where)
    if _is_pooler(error):
        return StoreError(
            f"{where}: a pooler stands between us and PostgreSQL ({said}). Add pgbouncer=true to the URL."
        )
    if is_unreachable(error) and not connected:
        return StoreUnavailable(
            f"{where} can't be reached ({said}): nothing was written. Is the server running, and are host and port in "
            "DATABASE_URL right?"
        )
    if is_unreachable(error):
        return StoreUnavailable(
            f"{where}: the connection broke ({said}). What was being written may or may not be "
            "stored: with a key, scheduling it again is safe."
        )
    if state in _AGAIN or state in _BUSY:
        return StoreBusy(
            f"{where} kept us waiting too long ({said}). Look for long transactions in pg_stat_activity: "
            "`oncue doctor`, line transactions, names them."
        )
    if state in ("53100", "53200"):
        return StoreFull(f"{where} has no room left ({said}). Nothing unconfirmed was stored; free space and go on.")
    if state == "3D000":
        return NoDatabase(f"{where}: {said}. Create it (createdb), or check DATABASE_URL.")
    if state in ("42P01", "42703", "3F000"):
        return SchemaTooOld(
            f"{where} lacks something of OnCue's tables in schema {url.schema!r} ({said}). Run `oncue migrate`, or "
            "check that ?schema= is right. If a newer OnCue has just migrated them, restart this process with it."
        )
    if state == "42501":
        return StoreError(
            f"{where}: {_role(said, url)} may not do that ({said}). GRANT what docs/how-to/postgresql.md lists to it."
        )
    if state[:2] == "28":
        return StoreError(f"{where}: login refused ({said}). Check the user and password in DATABASE_URL.")
    return StoreError(f"{where}: {said}")
