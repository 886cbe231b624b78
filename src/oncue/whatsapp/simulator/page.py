"""The page like a phone at ``/``: static files of this package, under a policy that lets nothing else in."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_TYPES = {"index.html": "text/html", "phone.css": "text/css", "phone.js": "text/javascript"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def page_routes() -> list[Route]:
    """Return the routes of the page."""
    folder = files("oncue.whatsapp.simulator") / "phone"

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in _TYPES:
            return Response("There is no such page.", 404, HEADERS, "text/plain")
        return Response((folder / name).read_bytes(), headers=HEADERS, media_type=_TYPES[name])

    return [Route("/", page), Route("/{name}", page)]
