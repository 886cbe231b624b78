"""The ASGI applications: three to mount into yours, one that ``oncue serve`` runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Lifespan

from oncue.app import OnCue
from oncue.errors import StoreError
from oncue.settings import Settings, secrets_of
from oncue.web import dashboard
from oncue.web.access import Access, Login, Refusal
from oncue.web.answers import database_trouble_text, http_error, server_error
from oncue.web.api import api_routes
from oncue.web.api.problems import api_error, failed, problem, refused
from oncue.web.cron import CRON_PATH, CronEndpoint
from oncue.web.health import Health
from oncue.web.metrics import metrics_routes
from oncue.web.webhooks import Webhooks
from oncue.worker import WorkerOptions


def cron_app(app: OnCue, *, secret: str | Sequence[str] | None = None, settings: Settings | None = None) -> Starlette:
    """Return an ASGI application with the cron route and health, to run by itself or to mount under any prefix.

    ``GET`` or ``POST /api/cron/process-scheduled`` with ``Authorization: Bearer SECRET`` does what is due and answers
    ``{"success": true, "ran", "failed", "skipped", "remaining", "next_due"}``; 401 without the secret, 400 for a bad
    ``limit`` or ``seconds`` in the query (larger ones are cut to the settings' bounds), 503 with the reason where no
    secret is set or the database can't be used. ``/health/live`` and ``/health/ready`` need no secret. Updates of the
    application's channels are taken as ``webhook_app`` does it.

    ``secret``: one, or several that are all good ("new,old" or a sequence), for rotation; default: the environment's
    ``CRON_SECRET``. ``settings`` (default: from the environment) hold the bounds. Opens the application for each
    request, so it needs no lifespan of its host; where the host keeps it open (``async with app``), that is cheaper.
    Raises ConfigError for a secret that is too short.
    """
    return _built(app, _settings(secret, settings), Health(app), Webhooks(app), None)


def webhook_app(app: OnCue) -> Starlette:
    """Return an ASGI application that takes the updates of messengers, to run by itself or to mount under any prefix.

    ``/webhooks/{channel}``, where the channel is the transport's name, such as ``whatsapp``: ``GET`` answers the
    messenger's handshake (403 for any other question). ``POST`` answers 200 once the update is stored with the jobs
    that handle it; 401 for one that the messenger did not sign, 413 for one of more than 3 MB, 503 where the database
    can't be used, so that the messenger sends it again. 404 for a channel that the application doesn't have.

    Run by itself it keeps the application open; mounted, it opens it for each request, so there it is cheaper where the
    host does (``async with app``).
    """
    webhooks = Webhooks(app)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with app, webhooks.running():
            yield

    return Starlette(routes=webhooks.routes(), exception_handlers={HTTPException: http_error}, lifespan=lifespan)


def dashboard_app(app: OnCue, *, login: Login | None = None, loopback: bool | None = None) -> Starlette:
    """Return an ASGI application with the operator's page and the HTTP API, to mount under any prefix of yours.

    The page is at the prefix itself, the API below it, under ``api/``. Who may do what: ``login`` is your own
    application's, an async function from a request to an ``Identity``, or None for somebody that it doesn't know;
    then tokens count (``oncue tokens create``). ``loopback=True``, or ``ONCUE_LOOPBACK=on``, lets in whoever sits at
    this very machine, with all roles: never behind a proxy on the same machine that adds no header.

    Opens the application for each request; where the host keeps it open (``async with app``), that is cheaper.
    """
    access = Access(app, login, loopback)
    routes = [*api_routes(app, access), *dashboard.routes()]
    return _exact(Starlette(routes=routes, exception_handlers={HTTPException: api_error, Exception: failed}))


def _exact(made: Starlette) -> Starlette:
    """A path with one slash more is another path: nobody is sent elsewhere by what they ask for."""
    made.router.redirect_slashes = False
    return made


def web_app(
    app: OnCue,
    *,
    worker: bool = True,
    options: WorkerOptions | None = None,
    secret: str | Sequence[str] | None = None,
    settings: Settings | None = None,
    login: Login | None = None,
    loopback: bool | None = None,
) -> Starlette:
    """Return what ``oncue serve`` runs: the routes of ``cron_app`` and ``dashboard_app``, ``/metrics``, and a worker in
    the same process.

    At this very machine nobody needs a token, unless ``ONCUE_LOOPBACK=off`` or ``loopback=False``; see
    ``dashboard_app`` for that and for ``login``.

    The application is open for the lifespan of the server; ``worker=False`` leaves the worker out, so that jobs run
    when the cron route is called; alerts are looked after all the same. ``/health/ready`` is 503 once the worker has
    ended. Raises ConfigError as ``cron_app`` does; a database that can't be used fails the server's start.
    """
    health, webhooks = Health(app, expects_worker=worker), Webhooks(app)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with app, webhooks.running():
            if not worker:
                # Who else is to tell that no worker is alive?
                async with app.alerts.watching():
                    yield
                return
            async with app.worker(options) as health.service:
                yield

    access = Access(app, login, loopback, default=True)
    routes = [*api_routes(app, access), *_metrics(app, access), *dashboard.routes()]
    return _built(app, _settings(secret, settings), health, webhooks, lifespan, access, routes)


def _metrics(app: OnCue, access: Access) -> list[BaseRoute]:
    (route,) = metrics_routes(app)

    async def guarded(request: Request) -> Response:
        try:
            await access.require(request, "read")
        except Refusal as error:
            return refused(error)
        except StoreError as error:
            return problem(503, database_trouble_text(error, full=access.tells(request, None)))
        return await route.endpoint(request)  # type: ignore[no-any-return]

    return [Route(route.path, guarded, methods=["GET"])]


async def _http_error(request: Request, error: Exception) -> Response:
    return await (api_error if _is_api(request) else http_error)(request, error)


async def _failed(request: Request, error: Exception) -> Response:
    return await (failed if _is_api(request) else server_error)(request, error)


def _is_api(request: Request) -> bool:
    # Under whatever prefix it is mounted.
    path: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return (path == "/api" or path.startswith("/api/")) and path != CRON_PATH


def _settings(secret: str | Sequence[str] | None, settings: Settings | None) -> Settings:
    found = settings or Settings.from_environment()
    return found if secret is None else replace(found, cron_secrets=secrets_of(secret))


def _built(
    app: OnCue,
    settings: Settings,
    health: Health,
    webhooks: Webhooks,
    lifespan: Lifespan[Starlette] | None,
    access: Access | None = None,
    more: Sequence[BaseRoute] = (),
) -> Starlette:
    cron = CronEndpoint(app, settings, access or Access(app, loopback=False))
    routes = [cron.route(), *webhooks.routes(), *health.routes(), *more]
    handlers = {HTTPException: _http_error, Exception: _failed}
    return _exact(Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan))
