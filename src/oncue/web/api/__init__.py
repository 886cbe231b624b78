"""The HTTP API: the operator's view and scheduling for other languages, as routes of Starlette."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from oncue.app import OnCue
from oncue.operate import Operator
from oncue.operate.schedule import offered
from oncue.web.access import Access
from oncue.web.api.acts import ACTS
from oncue.web.api.openapi import document
from oncue.web.api.operation import Asked, Endpoint, Operation
from oncue.web.api.reads import READS
from oncue.web.api.stream import Stream

__all__ = ["OPERATIONS", "Me", "api_routes"]


class Me(msgspec.Struct, frozen=True):
    """Who asks, and what they may. ``conversations``: whether the application has any."""

    who: str
    roles: list[str]
    conversations: bool


def _me(access: Access) -> Operation:
    async def me(operator: Operator, asked: Asked) -> Me:
        identity = await access.identify(asked.request)
        roles = sorted(identity.roles) if identity is not None else []
        return Me(operator.who, roles, bool(operator.app.channels))

    return Operation("GET", "/me", "", "me", "Who asks, and what they may.", Me, me)


async def _describe(operator: Operator, asked: Asked) -> dict[str, Any]:
    # Under whatever prefix it is mounted.
    base = asked.request.url.path.removesuffix("/openapi.json")
    return document(OPERATIONS, base, offered(operator.app), operator.app.redacted)


_DESCRIPTION = Operation(
    "GET", "/openapi.json", "", "openapi", "This description.", dict[str, Any], _describe, tagged=True
)
OPERATIONS: tuple[Operation, ...] = (*READS, *ACTS, _DESCRIPTION, _me(None))  # type: ignore[arg-type]
"""All that the API offers, but for the stream of events; ``me`` is made anew for each application."""


def api_routes(app: OnCue, access: Access, prefix: str = "/api") -> list[BaseRoute]:
    """Return the routes of the API under ``prefix``, for those whom ``access`` lets in."""
    by_path: defaultdict[str, dict[str, Operation]] = defaultdict(dict)
    for one in (*OPERATIONS[:-1], _me(access)):
        by_path[one.path][one.method] = one
    routes: list[BaseRoute] = []
    # The longer ones first: /jobs/many is no job, and a name may hold slashes.
    for path in sorted(by_path, key=lambda path: (path.count("{"), -len(path))):
        endpoint = Endpoint(app, access, by_path[path])
        routes.append(_route(prefix + path.replace("{name}", "{name:path}"), endpoint.answer))
    routes.append(_route(f"{prefix}/events", Stream(app, access).answer))
    return routes


def _route(path: str, answer: Callable[[Request], Awaitable[Response]]) -> Route:
    route = Route(path, answer)
    # It answers for every method: for those that are not there, with a problem.
    route.methods = None
    return route
