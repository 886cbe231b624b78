"""``GET /api/events``: what changes, as server-sent events, with resume."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from oncue.app import OnCue
from oncue.errors import StoreError
from oncue.operate import Operator
from oncue.web.access import Access, Refusal
from oncue.web.answers import database_trouble_text
from oncue.web.api.problems import NO_STORE, not_allowed, problem, refused

_SILENCE = 15.0


class Stream:
    """Answers the stream of events for one application."""

    def __init__(self, app: OnCue, access: Access) -> None:
        self._app, self._access = app, access

    async def answer(self, request: Request) -> Response:
        """Answer with events until the caller leaves; ``Last-Event-ID`` goes on after that one."""
        if request.method != "GET":
            return not_allowed(["GET"])
        try:
            identity = await self._access.require(request, "read")
            async with self._app:
                pass
        except Refusal as error:
            return refused(error)
        except StoreError as error:
            return problem(503, database_trouble_text(error))
        operator = Operator(self._app, identity.who)
        last = request.headers.get("last-event-id")
        headers = {**NO_STORE, "X-Accel-Buffering": "no"}
        return StreamingResponse(self._lines(operator, last), headers=headers, media_type="text/event-stream")

    async def _lines(self, operator: Operator, last: str | None) -> AsyncIterator[str]:
        async with self._app:
            events = operator.watcher.listen(last, operator.jobs)
            waiting = asyncio.ensure_future(anext(events))
            try:
                # At once, so that the caller knows that it is heard.
                yield ": welcome\n\n"
                while True:
                    done, _ = await asyncio.wait({waiting}, timeout=_SILENCE)
                    if not done:
                        yield ": nothing new\n\n"
                        continue
                    id, event = waiting.result()
                    waiting = asyncio.ensure_future(anext(events))
                    yield f"id: {id}\nevent: {event.name}\ndata: {event.data}\n\n"
            finally:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                await events.aclose()
