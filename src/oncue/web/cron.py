"""The route that an external cron calls: whoever knows the secret has the due work done, within a budget."""

from __future__ import annotations

import hmac
import logging
import re

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from oncue.app import OnCue
from oncue.clock import iso, to_us
from oncue.errors import StoreError
from oncue.operate.tokens import PREFIX
from oncue.settings import Settings
from oncue.web.access import Access
from oncue.web.answers import NO_STORE, database_trouble, problem
from oncue.worker import WorkerOptions

log = logging.getLogger("oncue.web")
CRON_PATH = "/api/cron/process-scheduled"
_WHOLE = re.compile(r"[0-9]{1,9}", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


class BadQuery(ValueError):
    """A query parameter that can't be used; the text says which and why."""


class CronEndpoint:
    """Answers the cron route for one application."""

    def __init__(self, app: OnCue, settings: Settings, access: Access) -> None:
        self._app, self._settings, self._access = app, settings, access
        self._refusing = False

    def route(self) -> Route:
        """Return the route: GET and POST, and nothing that only looks."""
        route = Route(CRON_PATH, self.answer, methods=["GET", "POST"])
        # Starlette adds HEAD to GET; whoever only asks for headers must not start any work.
        route.methods = {"GET", "POST"}
        return route

    async def answer(self, request: Request) -> JSONResponse:
        """Drain for an authorized caller; see ``cron_app`` for the answers."""
        try:
            return await self._drained(request) if await self._has_role(request) else await self._by_secret(request)
        except StoreError as error:
            return database_trouble(error)

    async def _has_role(self, request: Request) -> bool:
        """Whether the request bears a token with the role cron."""
        given = request.headers.getlist("authorization")
        if len(given) != 1 or PREFIX not in given[0]:
            return False
        identity = await self._access.identify(request)
        return identity is not None and "cron" in identity.roles

    async def _by_secret(self, request: Request) -> JSONResponse:
        if not self._settings.cron_secrets:
            self._refused("CRON_SECRET is not set here")
            return problem(
                503,
                "No cron secret is set",
                f"Set CRON_SECRET (16 characters or more) where this runs, and send it as Authorization: Bearer "
                f"SECRET to {CRON_PATH}. Without one this route does nothing.",
            )
        if not authorized(request, self._settings.cron_secrets):
            self._refused("it bears none of the secrets that are set here")
            return JSONResponse(
                {"error": "Unauthorized"}, 401, headers={**NO_STORE, "WWW-Authenticate": 'Bearer realm="oncue"'}
            )
        return await self._drained(request)

    async def _drained(self, request: Request) -> JSONResponse:
        self._refusing = False
        try:
            limit, seconds = self._budget(request)
        except BadQuery as error:
            return problem(400, "Bad Request", str(error))
        try:
            done = await self._app.drain(
                limit=limit, seconds=seconds, options=WorkerOptions(grace=self._settings.cron_grace)
            )
        except StoreError as error:
            return database_trouble(error)
        except Exception:
            log.exception("the drain failed")
            return JSONResponse({"error": "Internal Server Error"}, 500, headers=NO_STORE)
        next_due = None if done.next_due is None else iso(to_us(done.next_due))
        counts = {"ran": done.ran, "failed": done.failed, "skipped": done.skipped, "remaining": done.remaining}
        return JSONResponse({"success": True, **counts, "next_due": next_due}, headers=NO_STORE)

    def _refused(self, reason: str) -> None:
        """Say in the log that calls do nothing: the first since one that did, so that nobody can flood it."""
        if not self._refusing:
            log.warning("a call of %s was refused: %s; the next ones are not logged", CRON_PATH, reason)
        self._refusing = True

    def _budget(self, request: Request) -> tuple[int, float]:
        limit, seconds = _single(request, "limit"), _single(request, "seconds")
        most, longest = self._settings.cron_limit, self._settings.cron_seconds
        if limit is not None and (not _WHOLE.fullmatch(limit) or int(limit) < 1):
            raise BadQuery(f"limit is a whole number of at least 1, not {limit!r}")
        if seconds is not None and (not _DECIMAL.fullmatch(seconds) or float(seconds) <= 0):
            raise BadQuery(f"seconds is a number above 0, such as 20 or 0.5, not {seconds!r}")
        return min(most, int(limit or most)), min(longest, float(seconds or longest))


def authorized(request: Request, secrets: tuple[bytes, ...]) -> bool:
    """Tell whether the request bears one of the secrets; takes the same time whichever it is or resembles."""
    given = [value for name, value in request.headers.raw if name == b"authorization"]
    scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(token.strip(), secret)
    return found and scheme.lower() == b"bearer"


def _single(request: Request, name: str) -> str | None:
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise BadQuery(f"{name} is given {len(values)} times; give it once")
    return values[0][:100] if values else None
