"""Errors over HTTP, as RFC 9457 has them: what is wrong, with which value, and what to do; nothing from inside."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from oncue.errors import (
    InvalidArguments,
    InvalidJob,
    InvalidTime,
    OnCueError,
    PayloadTooLarge,
    UnknownJob,
    UnknownPerson,
    UnknownSchedule,
    UnknownTask,
)
from oncue.operate.schedule import Reused
from oncue.web.access import Refusal

NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Problem(msgspec.Struct, frozen=True):
    """What is wrong. ``type`` is always about:blank: the status and the title tell the kind."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return an answer that says what is wrong."""
    body = msgspec.json.encode(Problem(HTTPStatus(status).phrase, status, detail))
    return Response(body, status, {**NO_STORE, **(headers or {})}, "application/problem+json")


def not_allowed(methods: Iterable[str]) -> Response:
    """Return an answer that says by which methods this path may be asked."""
    allow = ", ".join(sorted(methods))
    return problem(405, f"Ask this path by {allow}.", {"Allow": allow})


def refused(error: Refusal) -> Response:
    """Return the answer to a request that is not let in."""
    headers = {"WWW-Authenticate": 'Bearer realm="oncue"'} if error.status == 401 else None
    return problem(error.status, str(error), headers)


async def api_error(_: Request, error: Exception) -> Response:
    """Answer what the router refuses, as a problem."""
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, dict(error.headers or {}))


async def failed(_: Request, __: Exception) -> Response:
    """Answer what nobody foresaw, such as a host's login that raises, as a problem; the server logs it."""
    return problem(500, "This failed; the log has the details.")


def status_of(error: OnCueError, *, acts: bool) -> int | None:
    """Return the status for an error that is the caller's; None for any other. ``acts``: a state may be in the way."""
    found: list[tuple[type[Any] | tuple[type[Any], ...], int]] = [
        ((UnknownJob, UnknownPerson, UnknownSchedule, UnknownTask), 404),
        (Reused, 409),
        (PayloadTooLarge, 413),
        ((InvalidArguments, InvalidTime), 422),
        (InvalidJob, 409 if acts else 422),
    ]
    return next((status for kind, status in found if isinstance(error, kind)), None)
