"""One operation of the API: its path, role, parameters and answer; the route and its description are made of it."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
import msgspec.inspect
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from oncue.app import OnCue
from oncue.errors import OnCueError, StoreError
from oncue.operate import Operator
from oncue.web.access import Access, Identity, Refusal
from oncue.web.answers import database_trouble_text
from oncue.web.api.problems import NO_STORE, api_error, not_allowed, problem, refused, status_of

log = logging.getLogger("oncue.web")
T = TypeVar("T")
MOST_BYTES = 1_048_576
_WHOLE = re.compile(r"-?[0-9]{1,20}", re.ASCII)


class BadRequest(Exception):
    """A request that can't be read: the status, and what is wrong with it."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked: the path's parts, the query and the body as they were declared, and the request itself."""

    path: dict[str, str]
    query: Any
    body: Any
    request: Request


@dataclass(frozen=True, slots=True)
class Operation:
    """What the API offers at a method and a path.

    ``role``: who may; '' for everybody who is known. ``answer``: what is returned, a struct or list type.
    ``query`` and ``body``: structs. ``acts``: it changes something, and 409 says that a state is in the way.
    ``tagged``: the answer has an ETag. ``statuses``: other good statuses that it may answer.
    """

    method: str
    path: str
    role: str
    name: str
    summary: str
    answer: Any
    handler: Callable[[Operator, Asked], Awaitable[Any]]
    query: type[msgspec.Struct] | None = None
    body: Any = None
    acts: bool = False
    tagged: bool = False
    status: int = 200
    headers: Sequence[str] = ()


class Endpoint:
    """Answers one path for its operations, by method."""

    def __init__(self, app: OnCue, access: Access, operations: dict[str, Operation]) -> None:
        self._app, self._access, self._operations = app, access, operations

    async def answer(self, request: Request) -> Response:
        """Let the right people in, read what they ask, and answer it. Never raises what the caller could not read."""
        operation = self._operations.get(request.method)
        if operation is None:
            return not_allowed(self._operations)
        identity: Identity | None = None
        try:
            identity = await self._access.require(request, operation.role)
            asked = await _read(request, operation)
            async with self._app:
                found = await operation.handler(Operator(self._app, identity.who), asked)
            return found if isinstance(found, Response) else _answered(request, operation, found)
        except Refusal as error:
            return refused(error)
        except BadRequest as error:
            return problem(error.status, str(error))
        except StoreError as error:
            return problem(503, database_trouble_text(error, full=self._access.tells(request, identity)))
        except HTTPException as error:
            # A host's login says it in its own words.
            return await api_error(request, error)
        except OnCueError as error:
            if (status := status_of(error, acts=operation.acts)) is not None:
                return problem(status, str(error))
            return _failed(operation, error)
        except Exception as error:
            return _failed(operation, error)


def _failed(operation: Operation, error: Exception) -> Response:
    log.error("%s %s failed", operation.method, operation.path, exc_info=error)
    return problem(500, "This failed; the log has the details.")


def _answered(request: Request, operation: Operation, found: Any) -> Response:
    status = operation.status
    if isinstance(found, tuple):
        found, status = found
    body = msgspec.json.encode(found)
    headers = dict(NO_STORE)
    if operation.tagged:
        headers["ETag"] = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        known = request.headers.get("if-none-match", "")
        if headers["ETag"] in known or known.strip() == "*":
            return Response(None, 304, headers)
    return Response(body, status, headers, "application/json")


async def _read(request: Request, operation: Operation) -> Asked:
    query = None if operation.query is None else _query(request, operation.query)
    if operation.query is None and request.query_params:
        raise BadRequest(400, f"There is no parameter {next(iter(request.query_params))[:50]!r} here.")
    body = None if operation.body is None else await _body(request, operation.body)
    return Asked(request.path_params, query, body, request)


def _query(request: Request, kind: type[msgspec.Struct]) -> Any:
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in given:
            raise BadRequest(400, f"{name[:50]} is given more than once.")
        if name not in kind.__struct_encode_fields__:
            known = ", ".join(kind.__struct_encode_fields__)
            raise BadRequest(400, f"There is no parameter {name[:50]!r} here. There are: {known}.")
        # A face that has none yet sends an empty one.
        if value or name != "cursor":
            given[name] = value
    try:
        return from_texts(given, kind)
    except msgspec.ValidationError as error:
        raise BadRequest(400, f"The query can't be read: {error}.") from error


def from_texts(given: Mapping[str, str | bool | None], kind: type[T]) -> T:
    """Return a struct of texts, as a query has them: numbers and yes or no are read, and a text stays what it is.

    Raises msgspec.ValidationError.
    """
    plain = _plain_types(cast("Hashable", kind))
    read = {name: _read_as(plain.get(name), value) for name, value in given.items()}
    return msgspec.convert(read, kind)


def _read_as(kind: type | None, value: str | bool | None) -> Any:
    if kind is int and isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    return value == "true" if kind is bool and value in ("true", "false") else value


@cache
def _plain_types(kind: Hashable) -> dict[str, type]:
    """Return which of a struct's fields are whole numbers, and which are yes or no."""
    found: dict[str, type] = {}
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        some = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        for info, plain in ((msgspec.inspect.IntType, int), (msgspec.inspect.BoolType, bool)):
            if any(isinstance(one, info) for one in some):
                found[field.encode_name] = plain
    return found


async def _body(request: Request, kind: Any) -> Any:
    try:
        raw = await _bytes(request)
    except ClientDisconnect as error:
        raise BadRequest(400, "The body did not come to its end.") from error
    if raw:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            raise BadRequest(415, f"The body is JSON, with Content-Type: application/json, not {media[:50]!r}.")
    try:
        found = msgspec.json.decode(raw or b"{}")
        if isinstance(found, dict):
            # To JSON 5.0 is as whole a number as 5.
            found = {name: _whole(value) for name, value in found.items()}
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise BadRequest(422, f"The body does not fit: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(400, f"The body is no JSON: {error}.") from error


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


async def _bytes(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise BadRequest(413, f"A body has at most {MOST_BYTES:,} bytes.")
        parts.append(part)
    return b"".join(parts)
