"""Health: is the process alive, and is it of use?"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from oncue.app import OnCue
from oncue.errors import StoreError
from oncue.service import Service
from oncue.web.answers import NO_STORE, database_trouble, problem

_PATIENCE = 5.0


class Health:
    """Answers ``/health/live`` and ``/health/ready``. ``service`` is the worker of this process, where there is one."""

    def __init__(self, app: OnCue, *, expects_worker: bool = False) -> None:
        self._app, self._expects_worker = app, expects_worker
        self.service: Service | None = None

    def routes(self) -> list[Route]:
        """Return both routes."""
        return [Route("/health/live", self.live), Route("/health/ready", self.ready)]

    async def live(self, _: Request) -> JSONResponse:
        """Answer 200: the process serves requests. Asks nothing else, so that no database's trouble restarts it."""
        return JSONResponse({"status": "live"}, headers=NO_STORE)

    async def ready(self, _: Request) -> JSONResponse:
        """Answer 200 where the database can be read and the worker works, 503 with the reason otherwise."""
        if self._expects_worker and (self.service is None or not self.service.ready.is_set()):
            return problem(503, "Not ready", "the worker of this process does not run; the log has the details")
        try:
            async with asyncio.timeout(_PATIENCE), self._app:
                await self._app.store.schedules()
        except StoreError as error:
            return database_trouble(error)
        except TimeoutError:
            return problem(503, "Not ready", f"the database did not answer within {_PATIENCE:g} s")
        return JSONResponse({"status": "ready"}, headers=NO_STORE)
