"""``GET /api/events``: what changes, as server-sent events, with resume."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from oncue.app import OnCue
from oncue.errors import StoreError
from oncue.operate import Operator
from oncue.web.access import Access, Identity, Refusal
from oncue.web.answers import database_trouble_text
from oncue.web.api.problems import NO_STORE, not_allowed, problem, refused

_SILENCE = 15.0
_ANEW = 3.0
"""Seconds after which a stream asks anew whether its reader may still read."""


class Stream:
    """Answers the stream of events for one application."""

    def __init__(self, app: OnCue, access: Access) -> None:
        self._app, self._access = app, access

    async def answer(self, request: Request) -> Response:
        """Answer with events until the caller leaves, or may read no more: its token has ended, its login says no.

        ``Last-Event-ID`` goes on after that one.
        """
        if request.method != "GET":
            return not_allowed(["GET"])
        identity: Identity | None = None
        try:
            identity = await self._access.require(request, "read")
            async with self._app:
                pass
        except Refusal as error:
            return refused(error)
        except StoreError as error:
            return problem(503, database_trouble_text(error, full=self._access.tells(request, identity)))
        operator = Operator(self._app, identity.who)
        headers = {**NO_STORE, "X-Accel-Buffering": "no"}
        return StreamingResponse(self._lines(request, operator), headers=headers, media_type="text/event-stream")

    async def _lines(self, request: Request, operator: Operator) -> AsyncIterator[str]:
        clock = asyncio.get_running_loop().time
        async with self._app:
            watcher = operator.watcher
            events = watcher.listen(request.headers.get("last-event-id"), operator.jobs)
            waiting = asyncio.ensure_future(anext(events))
            looking = asyncio.ensure_future(watcher.looking())
            try:
                # Whoever reads how things are once this came misses nothing of what follows.
                await asyncio.wait({waiting, looking}, timeout=_SILENCE, return_when=asyncio.FIRST_COMPLETED)
                yield ": welcome\n\n"
                said, asked = clock(), clock()
                while True:
                    done, _ = await asyncio.wait({waiting}, timeout=max(0.0, asked + _ANEW - clock()))
                    # Before anything more is shown: who was let in once has not been let in for good.
                    if clock() >= asked + _ANEW:
                        if not await self._may_still(request):
                            return
                        asked = clock()
                    if done:
                        try:
                            id, event = waiting.result()
                        except StopAsyncIteration:
                            return
                        waiting = asyncio.ensure_future(anext(events))
                        yield f"id: {id}\nevent: {event.name}\ndata: {event.data}\n\n"
                        said = clock()
                    elif clock() >= said + _SILENCE:
                        yield ": nothing new\n\n"
                        said = clock()
            finally:
                looking.cancel()
                waiting.cancel()
                await asyncio.gather(looking, waiting, return_exceptions=True)
                await events.aclose()

    async def _may_still(self, request: Request) -> bool:
        try:
            await self._access.require(request, "read")
        except Refusal:
            return False
        except StoreError:
            # Nobody can tell just now, and there is nothing to tell either: all that is told comes from there.
            return True
        return True
