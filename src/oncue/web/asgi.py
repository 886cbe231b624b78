"""The ASGI applications: one to mount into yours, one that ``oncue serve`` runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import Lifespan

from oncue.app import OnCue
from oncue.settings import Settings, secrets_of
from oncue.web.answers import http_error
from oncue.web.cron import CronEndpoint
from oncue.web.health import Health
from oncue.worker import WorkerOptions


def cron_app(app: OnCue, *, secret: str | Sequence[str] | None = None, settings: Settings | None = None) -> Starlette:
    """Return an ASGI application with the cron route and health, to run by itself or to mount under any prefix.

    ``GET`` or ``POST /api/cron/process-scheduled`` with ``Authorization: Bearer SECRET`` does what is due and answers
    ``{"success": true, "ran", "failed", "skipped", "remaining", "next_due"}``; 401 without the secret, 400 for a bad
    ``limit`` or ``seconds`` in the query (larger ones are cut to the settings' bounds), 503 with the reason where no
    secret is set or the database can't be used. ``/health/live`` and ``/health/ready`` need no secret.

    ``secret``: one, or several that are all good ("new,old" or a sequence), for rotation; default: the environment's
    ``CRON_SECRET``. ``settings`` (default: from the environment) hold the bounds. Opens the application for each
    request, so it needs no lifespan of its host; where the host keeps it open (``async with app``), that is cheaper.
    Raises ConfigError for a secret that is too short.
    """
    return _built(app, _settings(secret, settings), Health(app), None)


def web_app(
    app: OnCue,
    *,
    worker: bool = True,
    options: WorkerOptions | None = None,
    secret: str | Sequence[str] | None = None,
    settings: Settings | None = None,
) -> Starlette:
    """Return what ``oncue serve`` runs: the routes of ``cron_app``, with a worker in the same process.

    The application is open for the lifespan of the server; ``worker=False`` leaves the worker out, so that jobs run
    when the cron route is called. ``/health/ready`` is 503 once the worker has ended. Raises ConfigError as
    ``cron_app`` does; a database that can't be used fails the server's start.
    """
    health = Health(app, expects_worker=worker)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with app:
            if not worker:
                yield
                return
            async with app.worker(options) as health.service:
                yield

    return _built(app, _settings(secret, settings), health, lifespan)


def _settings(secret: str | Sequence[str] | None, settings: Settings | None) -> Settings:
    found = settings or Settings.from_environment()
    return found if secret is None else replace(found, cron_secrets=secrets_of(secret))


def _built(app: OnCue, settings: Settings, health: Health, lifespan: Lifespan[Starlette] | None) -> Starlette:
    return Starlette(
        routes=[CronEndpoint(app, settings).route(), *health.routes()],
        exception_handlers={HTTPException: http_error},
        lifespan=lifespan,
    )
