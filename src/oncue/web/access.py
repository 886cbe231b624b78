"""Who may do what over HTTP: tokens with roles, the host application's own login, and whoever sits at this machine."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Awaitable, Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from starlette.requests import Request

from oncue.app import OnCue
from oncue.clock import SECOND
from oncue.errors import ConfigError
from oncue.operate.tokens import PREFIX, ROLES, Tokens, hash_of
from oncue.web.peer import is_ours

_HERE = ("localhost", "127.0.0.1", "[::1]")
# Whoever sets one of these stands between, and "loopback" is then the proxy and not the person.
_FORWARDED = ("forwarded", "via", "x-real-ip", "x-client-ip", "cf-connecting-ip", "true-client-ip")
_REMEMBERED = 3600 * SECOND
_SAFE = ("GET", "HEAD", "OPTIONS")
_NOT_HERE = " Without one is let in who asks at this very machine, directly, as the user that runs the server or root."


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody: a name for the audit, and roles among ``read``, ``operate``, ``schedule`` and ``cron``.

    ``ambient``: a browser proves who it is by itself, by a cookie or by where it runs, so that a foreign site could
    make it act; what changes anything then has to be asked for by a page of our own.
    """

    who: str
    roles: frozenset[str] = field(default_factory=frozenset)
    ambient: bool = True

    def __post_init__(self) -> None:
        # A host's login may be untyped, and a text would hold every role that stands in it.
        who, roles = cast("object", self.who), cast("object", self.roles)
        if not isinstance(who, str) or not who:
            raise ConfigError(f"An identity has a name for the audit, not {who!r}.")
        if not isinstance(roles, AbstractSet) or not roles <= frozenset(ROLES):
            raise ConfigError(f"Roles are a set of some of {', '.join(ROLES)}, not {roles!r}.")

    @classmethod
    def of(cls, who: str, roles: Iterable[str] = ROLES) -> Identity:
        """Return an identity as a host application's login gives it."""
        return cls(who, frozenset(roles))


Login = Callable[[Request], Awaitable[Identity | None]]


class Refusal(Exception):
    """A request that is not let in: the HTTP status, and what to tell."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Access:
    """Decides who a request is from, and whether they may.

    ``login``: the host application's own; what it returns counts, unless a token of OnCue's is shown, and None asks for
    one. ``loopback``: whether a
    person at this very machine is let in without a token; None leaves that to ``ONCUE_LOOPBACK`` (``on`` or ``off``),
    which is ``default`` where it isn't set.
    """

    def __init__(
        self, app: OnCue, login: Login | None = None, loopback: bool | None = None, *, default: bool = False
    ) -> None:
        self._app, self._login = app, login
        said = os.environ.get("ONCUE_LOOPBACK", "").strip().lower()
        asked = default if not said else said not in ("off", "0", "no", "false")
        self._loopback = asked if loopback is None else loopback
        self._readers: dict[str, int] = {}

    async def identify(self, request: Request) -> Identity | None:
        """Return who asks; None for nobody that is known. Opens the application's store for a token."""
        given = _given(request)
        ours = any(PREFIX.encode() in value for value in given)
        # The host's own login may stand in that header too: Basic, or a token of another kind.
        if self._login is not None and not ours and (found := await self._login(request)) is not None:
            return found
        if given:
            return await self._by_token(given)
        return Identity.of("loopback") if self._loopback and is_here(request) else None

    async def _by_token(self, given: list[bytes]) -> Identity | None:
        if (token := _bearer(given)) is None:
            return None
        async with self._app:
            row = await Tokens(self._app, "").find(token)
        self._readers.pop(name := hash_of(token), None)
        if row is None:
            return None
        if "read" in row.roles:
            until = self._app.clock.now() + _REMEMBERED
            self._readers[name] = until if row.expires_at is None else min(until, row.expires_at)
        return Identity(f"token:{row.name}", frozenset(row.roles), ambient=False)

    def tells(self, request: Request, identity: Identity | None) -> bool:
        """Whether to tell what is wrong with the database: to those who may read all that is in it.

        Where it can't be asked whose a token is (``identity`` is None), a token counts that was good within the hour.
        """
        if identity is not None:
            return "read" in identity.roles
        token = _bearer(_given(request))
        return token is not None and self._app.clock.now() < self._readers.get(hash_of(token), 0)

    async def require(self, request: Request, role: str) -> Identity:
        """Return who asks, where they may. Raises Refusal."""
        identity = await self.identify(request)
        if identity is None:
            raise Refusal(
                401,
                "Send a token: Authorization: Bearer TOKEN. `oncue tokens create NAME --role read` makes one."
                + (_NOT_HERE if self._loopback else " At this machine itself, ONCUE_LOOPBACK=on lets in without one."),
            )
        if role and role not in identity.roles:
            has = ", ".join(sorted(identity.roles)) or "none"
            raise Refusal(403, f"This needs the role {role}; {identity.who} has: {has}.")
        if identity.ambient:
            _refuse_foreign(request)
        return identity


def _given(request: Request) -> list[bytes]:
    return [value for name, value in request.headers.raw if name == b"authorization"]


def _bearer(given: list[bytes]) -> str | None:
    scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
    return token.strip().decode("latin-1") if scheme.lower() == b"bearer" else None


def _refuse_foreign(request: Request) -> None:
    """Refuse what another site makes this browser ask for. Raises Refusal."""
    headers = request.headers
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site not in (None, "same-origin", "none"):
        raise Refusal(403, "Another site asked for this. Open the page itself.")
    # What a browser says of both sites is true behind a proxy that asks by another name, too.
    if site != "same-origin" and origin is not None and _place(origin) != headers.get("host", "").lower():
        raise Refusal(403, "The page that asked for this is another one. Open the page itself.")
    if request.method not in _SAFE and headers.get("x-oncue") != "1":
        raise Refusal(403, "Send the header X-OnCue: 1 with what changes anything: no foreign page can.")


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def is_here(request: Request) -> bool:
    """Whether the user who runs this server, or root, asks at this very machine, with nothing between: not through a
    proxy, nor by a foreign name."""
    client, server = request.scope.get("client"), request.scope.get("server")
    headers = request.headers
    if client is None or server is None or not (_is_loopback(client[0]) and _is_loopback(server[0])):
        return False
    if any(name in _FORWARDED or name.startswith("x-forwarded") for name in headers):
        return False
    # Proxies that add no header speak the oldest protocol by default; no browser and no client of today does.
    if request.scope.get("http_version") == "1.0" or len(headers.getlist("host")) != 1:
        return False
    host = headers["host"].strip().lower()
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return name in _HERE and is_ours(client, server)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
