"""The operator's page: static files of this package, under a policy that lets nothing else in."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    # Asked for anew each time, and answered by 304: a page and a module of two versions would not fit together.
    "cache-control": "no-cache",
}


def routes() -> list[BaseRoute]:
    """Return the routes of the page: ``/`` and ``/assets/{name}``, under any prefix.

    The page asks the API beside it, under ``api/``. It holds no data itself, so that everybody may load it.
    """
    return [Route("/", _page), Route("/assets/{name}", _page)]


async def _page(request: Request) -> Response:
    name = request.path_params.get("name", "index.html")
    if (found := _static().get(name)) is None:
        return Response("There is no such page.", 404, HEADERS, "text/plain")
    body, tag = found
    headers = {**HEADERS, "etag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    return Response(body, headers=headers, media_type=_TYPES[name.rpartition(".")[2]])


@cache
def _static() -> dict[str, tuple[bytes, str]]:
    """Return each file's content and entity tag, by name."""
    folder = files("oncue.web.dashboard") / "static"
    return {
        each.name: (body := each.read_bytes(), f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        for each in folder.iterdir()
        if each.name.rpartition(".")[2] in _TYPES
    }
