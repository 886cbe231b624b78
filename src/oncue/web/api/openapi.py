"""The description of the API, OpenAPI 3.1, made from the very operations that answer."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from types import UnionType
from typing import Any, get_args

import msgspec

from oncue.operate import Filter
from oncue.operate.given import PRINTABLE
from oncue.task import Task
from oncue.web.api.acts import KEY_PATTERN, Move
from oncue.web.api.narrow import narrow
from oncue.web.api.operation import Operation
from oncue.web.api.problems import Problem

_REF = "#/components/schemas/{name}"
_PART = re.compile(r"\{(\w+)\}")
_PROBLEM = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
_TOLD = {
    400: "The request can't be read.",
    401: "Nobody is known by that.",
    403: "The role is lacking, or another site asks.",
    404: "There is no such thing.",
    409: "Its state does not allow that, or the key came with another request.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    422: "What is asked can't be done as it stands.",
    503: "The database can't be used just now.",
}
_PARTS: dict[str, dict[str, Any]] = {
    "id": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
    "name": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": f"^(?!.*/){PRINTABLE}$"},
}
_STREAM = {
    "summary": "What changes, as server-sent events: `overview`, `job`, `more`, and `reset` after a gap.",
    "description": "Read how things are after the first line (`: welcome`), so that nothing is missed. `job` tells of "
    "jobs that are new, about to be due or running, 200 a second at most; `more`: others changed too, so read anew "
    "what you show. What else moves shows in the counts of `overview`. The stream ends when its token does.",
    "operationId": "events",
    "x-role": "read",
    "parameters": [{"name": "last-event-id", "in": "header", "required": False, "schema": {"type": "string"}}],
    "responses": {
        "200": {"description": "Events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **{str(status): {"description": _TOLD[status], **_PROBLEM} for status in (401, 403, 503)},
    },
}


def document(
    operations: Sequence[Operation], base: str, tasks: Mapping[str, Task[Any, Any]], hidden: Collection[str] = ()
) -> dict[str, Any]:
    """Return the description of these operations, and of the stream of events, which are below ``base``; with the
    arguments of the tasks that can be asked for, without the defaults of those that are ``hidden``."""
    kinds = [kind for one in operations for kind in _kinds(one.answer)] + [Problem, Filter]
    kinds += [one.body for one in operations if one.body is not None]
    queries = [one.query for one in operations if one.query is not None]
    schemas, components = msgspec.json.schema_components([*kinds, *queries], ref_template=_REF)
    by_kind = dict(zip(map(repr, [*kinds, *queries]), schemas, strict=True))
    narrow(components, tasks, hidden)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _described(one, by_kind, components)
    paths["/events"] = {"get": _STREAM}
    used = {name: schema for name, schema in components.items() if name not in {kind.__name__ for kind in queries}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OnCue",
            "version": version("oncue"),
            "description": "Looks at durable scheduled work and steers it. Unsafe methods of a browser need the "
            "header X-OnCue: 1.",
        },
        "servers": [{"url": base}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": used,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _kinds(answer: Any) -> tuple[Any, ...]:
    """Return what an answer may be: the members of a union."""
    return get_args(answer) if isinstance(answer, UnionType) else (answer,)


def _described(one: Operation, by_kind: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _PARTS[name]} for name in _PART.findall(one.path)
    ]
    if one.query is not None:
        fields, needed = (components[one.query.__name__].get(part, []) for part in ("properties", "required"))
        parameters += [
            {"name": name, "in": "query", "required": name in needed, "schema": _without_null(schema)}
            for name, schema in fields.items()
        ]
    parameters += [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string", "pattern": KEY_PATTERN}}
        for name in one.headers
    ]
    answers = [by_kind[repr(kind)] for kind in _kinds(one.answer)]
    schema = answers[0] if len(answers) == 1 else {"anyOf": answers}
    good: dict[str, Any] = {"content": {"application/json": {"schema": schema}}}
    if one.tagged:
        good["headers"] = {"ETag": {"schema": {"type": "string"}}}
    found: dict[str, Any] = {
        "summary": one.summary,
        "operationId": one.name,
        "x-role": one.role,
        "parameters": parameters,
        "responses": {
            str(status): {"description": "Done." if one.acts else "Here it is.", **good}
            for status in sorted({one.status, 200})
        },
    }
    if one.tagged:
        found["responses"]["304"] = {"description": "It is as it was."}
    for status in _problems(one):
        found["responses"][str(status)] = {"description": _TOLD[status], **_PROBLEM}
    if one.body is not None:
        content = {"application/json": {"schema": by_kind[repr(one.body)]}}
        needed = one.body is Move or bool(components[one.body.__name__].get("required"))
        found["requestBody"] = {"required": needed, "content": content}
    return found


def _problems(one: Operation) -> list[int]:
    statuses = [400, 401, 403, 503]
    if "{" in one.path or one.path.startswith(("/conversations", "/people")) or one.name == "scheduleJob":
        statuses.append(404)
    if one.query is not None:
        statuses.append(422)
    if one.body is not None:
        statuses += [409, 413, 415, 422]
    return sorted(set(statuses))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema: what is left out of a query is left out, and not null."""
    found = {name: value for name, value in schema.items() if name not in ("default", "anyOf") or value is not None}
    some = [one for one in found.pop("anyOf", []) if one != {"type": "null"}]
    if len(some) == 1:
        return {**found, **some[0]}
    if some:
        found["anyOf"] = some
    if "enum" in found:
        found["enum"] = [one for one in found["enum"] if one is not None]
    return found
