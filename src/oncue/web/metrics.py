"""``GET /metrics``: what this process counted, and how the whole fleet is, in Prometheus' text format."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oncue.app import OnCue
from oncue.errors import StoreError
from oncue.fleet import Fleet, look, look_at_finished
from oncue.web.answers import NO_STORE, problem

_AT_LEAST = 1.0
_FINISHED_AT_LEAST = 60.0
_SHARE = 20
_PATIENCE = 8.0
T = TypeVar("T")


def metrics_routes(app: OnCue) -> list[Route]:
    """Return the route ``/metrics``; whoever mounts it guards it (role ``read``).

    It answers 501 without ``oncue[metrics]``. A database that can't be used is no error of the route: then the figures
    of the fleet are missing, ``oncue_database_up`` is 0, and those of this process are there.
    """
    return [Route("/metrics", Metrics(app).answer, methods=["GET"])]


class Kept(Generic[T]):
    """An answer that is good for ``least`` seconds, and for longer where it took long to have: however often it is
    asked for, that takes no more than a twentieth of the time."""

    def __init__(self, ask: Callable[[], Awaitable[T]], least: float, clock: Callable[[], float]) -> None:
        self._ask, self._least, self._clock = ask, least, clock
        self._good_until = float("-inf")
        self._answer: T | None = None

    async def get(self) -> T | None:
        """Return the answer; None where the database can't be used."""
        if (began := self._clock()) >= self._good_until:
            share, least = _SHARE, self._least
            try:
                async with asyncio.timeout(_PATIENCE):
                    self._answer = await self._ask()
            except (StoreError, TimeoutError):
                # That it is away is to be said no longer than it is so, or an alert would tell of it for minutes.
                self._answer, share, least = None, 1, _AT_LEAST
            ended = self._clock()
            self._good_until = ended + max(least, share * (ended - began))
        return self._answer


class Metrics:
    """Answers ``/metrics`` for one application. ``clock`` tells seconds."""

    def __init__(self, app: OnCue, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._fleet = Kept(partial(self._opened, look), _AT_LEAST, clock)
        self._finished = Kept(partial(self._opened, look_at_finished), _FINISHED_AT_LEAST, clock)
        self._door = asyncio.Lock()

    async def _opened(self, ask: Callable[[OnCue], Awaitable[T]]) -> T:
        async with self._app:
            return await ask(self._app)

    async def answer(self, request: Request) -> Response:
        """Answer in the format that is asked for: Prometheus' text, or OpenMetrics."""
        try:
            from prometheus_client.exposition import choose_encoder

            from oncue.exposition import Exposition
        except ModuleNotFoundError:
            return problem(501, "Not Implemented", "metrics need prometheus-client: pip install 'oncue[metrics]'")
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        fleet = await self.fleet()
        return Response(encode(Exposition(self._app, fleet)), headers={**NO_STORE, "Content-Type": kind})

    async def fleet(self) -> Fleet | None:
        """Return what the database tells, at most a second old, and of what has ended a minute; None where it can't be
        used."""
        async with self._door:
            if (fleet := await self._fleet.get()) is None:
                return None
            return fleet._replace(finished=await self._finished.get() or {})
