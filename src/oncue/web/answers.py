"""Answers in JSON that tell the caller enough and give nothing away."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from oncue.errors import (
    SchemaTooNew,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

log = logging.getLogger("oncue.web")
NO_STORE = {"Cache-Control": "no-store"}
# The error's own text may name hosts, users and files: that is for the log, and for those who may read all the rest.
_REASONS: dict[type[StoreError], str] = {
    StoreUnavailable: "the database can't be reached",
    StoreBusy: "another process held the database's lock for too long",
    StoreFull: "the disk that holds the database is full",
    StoreReadOnly: "the database can't be opened or written by this process",
    StoreCorrupt: "the database is damaged, or is none",
    SchemaTooNew: "the database was written by a newer OnCue than this one",
}


def problem(status: int, error: str, reason: str) -> JSONResponse:
    """Return an answer that says what is wrong and why."""
    return JSONResponse({"error": error, "reason": reason}, status, headers=NO_STORE)


def database_trouble_text(error: StoreError, *, full: bool = False) -> str:
    """Log the error in full, and return it, or a reason that holds none of its details. No password is in either."""
    log.error("the database can't be used: %s", error)
    if full:
        return str(error)
    reason = next((text for kind, text in _REASONS.items() if isinstance(error, kind)), "the database can't be used")
    return f"{reason}; the log has the details"


def database_trouble(error: StoreError) -> JSONResponse:
    """Log the error in full, and return 503 with a reason that holds none of its details."""
    return problem(503, "Database unavailable", database_trouble_text(error))


async def http_error(_: Request, error: Exception) -> JSONResponse:
    """Answer what the router refuses (404, 405) in JSON too."""
    assert isinstance(error, HTTPException)
    headers = {**NO_STORE, **(error.headers or {})}
    return JSONResponse({"error": error.detail}, error.status_code, headers=headers)


async def server_error(_: Request, __: Exception) -> JSONResponse:
    """Answer what nobody foresaw; the server logs it."""
    return JSONResponse({"error": "Internal Server Error"}, 500, headers=NO_STORE)
