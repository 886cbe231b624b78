"""The route to which messengers send their updates: ``/webhooks/{channel}``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from oncue.app import OnCue
from oncue.conversation.intake import MOST_BYTES, Heartbeat, Intake
from oncue.conversation.trouble import told
from oncue.web.answers import NO_STORE, database_trouble, problem

log = logging.getLogger("oncue.web")
WEBHOOK_PATH = "/webhooks/{channel}"


class Webhooks:
    """Answers the messengers of an application's channels."""

    def __init__(self, app: OnCue) -> None:
        self._app = app
        self._heartbeat = Heartbeat(app)
        self._intakes: dict[str, Intake] = {}

    def routes(self) -> list[Route]:
        """Return the route for the handshake (GET) and for updates (POST)."""
        route = Route(WEBHOOK_PATH, self.answer, methods=["GET", "POST"])
        # Starlette adds HEAD to GET, which no messenger asks.
        route.methods = {"GET", "POST"}
        return [route]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Say for the length of an ``async with`` block that updates are taken.

        Who mounts the routes has no such block: then it is said from the first request on, for as long as the process
        lives, also while nobody writes. Else nothing of unknown outcome would ever be sent again on a quiet bot.
        """
        async with self._heartbeat.beating():
            try:
                yield
            finally:
                await asyncio.gather(*(intake.settle() for intake in self._intakes.values()))

    async def answer(self, request: Request) -> Response:
        """Answer a messenger; see ``webhook_app``."""
        intake = self._intake(request.path_params["channel"])
        if intake is None:
            return problem(404, "Not Found", "no channel has this name")
        self._heartbeat.begin()
        if request.method == "GET":
            challenge = intake.handshake(dict(request.query_params))
            if challenge is None:
                return problem(403, "Forbidden", "this is not the question of the messenger, or not with our token")
            return PlainTextResponse(challenge, headers={**NO_STORE, "X-Content-Type-Options": "nosniff"})
        try:
            raw = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)
        if raw is None:
            return problem(413, "Content Too Large", f"an update has at most {MOST_BYTES:,} bytes")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers.raw}
        try:
            taken = await intake.take(headers, raw)
        except Exception as error:
            # Its text may quote what people write.
            log.error("the intake of an update failed; the messenger will send it again: %s", told(error))
            return JSONResponse({"error": "Internal Server Error"}, 500, headers=NO_STORE)
        if taken.error is not None:
            return database_trouble(taken.error)
        if taken.status == 401:
            return JSONResponse({"error": "Unauthorized"}, 401, headers=NO_STORE)
        await self._heartbeat.beat()
        return Response(taken.body, taken.status, headers=NO_STORE, media_type="application/json")

    def _intake(self, name: str) -> Intake | None:
        channel = self._app.channels.get(name)
        if channel is None:
            return None
        found = self._intakes.get(name)
        if found is None or found.channel is not channel:
            found = self._intakes[name] = Intake(self._app, channel)
        return found


async def _body(request: Request) -> bytes | None:
    """Return the body, or None where it is too large: no more of it than that is read."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:12]) > MOST_BYTES:
        return None
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)
