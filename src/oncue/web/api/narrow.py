"""What a body must be beyond the types of its fields: which of them go together, and what a task takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from oncue.operate.given import Delay, Due
from oncue.task import Task
from oncue.tracing import RESERVED

_NOTHING = {"type": "null"}
_AT, _DELAY = (msgspec.json.schema(kind) for kind in (Due, Delay))
_EITHER: list[dict[str, Any]] = [
    {"properties": {"at": _AT, "delay": _NOTHING}, "required": ["at"]},
    {"properties": {"at": _NOTHING, "delay": _DELAY}, "required": ["delay"]},
]
_MOVE = {
    "title": "Move",
    "description": "When a job is to be due: a time, or seconds from now.",
    "type": "object",
    "oneOf": [one | {"additionalProperties": False} for one in _EITHER],
}
_SURE: dict[str, Any] = {"confirm": {"type": "integer"}, "token": {"type": "string"}}
_AT_ONCE = {"at": _NOTHING, "delay": _NOTHING}
_MANY: list[dict[str, Any]] = [
    {"title": "Count", "properties": {"confirm": _NOTHING, **_AT_ONCE}},
    {"title": "Count what to move", "properties": {"action": {"const": "reschedule"}, "confirm": _NOTHING}},
    {
        "title": "Do it",
        "properties": {"action": {"enum": ["run-now", "retry", "cancel"]}, **_SURE, **_AT_ONCE},
        "required": list(_SURE),
    },
    *(
        {
            "title": f"Move by {one['required'][0]}",
            "properties": {"action": {"const": "reschedule"}, **_SURE, **one["properties"]},
            "required": [*_SURE, *one["required"]],
        }
        for one in _EITHER
    ),
]


def narrow(components: dict[str, Any], tasks: Mapping[str, Task[Any, Any]], hidden: Collection[str]) -> None:
    """Say in the schemas of what is sent what these types alone don't tell."""
    components["Move"] = _MOVE
    components["Many"]["anyOf"] = _MANY
    filter = components["Filter"]
    filter["anyOf"] = [
        {"required": [name], "properties": {name: {"not": {"enum": [None, False]}}}} for name in filter["properties"]
    ]
    components["Many"]["properties"]["filter"] = {"$ref": "#/components/schemas/Filter"}
    wish = components["Wish"]
    wish["properties"]["metadata"]["propertyNames"] = {"not": {"const": RESERVED}}
    wish["anyOf"] = [{"properties": {name: _NOTHING}} for name in ("at", "delay")]
    if tasks:
        wish["oneOf"] = [_of_task(name, task, hidden) for name, task in sorted(tasks.items())]


def _of_task(name: str, task: Task[Any, Any], hidden: Collection[str]) -> dict[str, Any]:
    """Return what is asked of a wish for this task: its arguments, as far as their types can be told."""
    args: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    if task.arguments is not None:
        try:
            parts = msgspec.json.schema(task.arguments)["$defs"]
        except TypeError:
            parts = {}
        # With types of their own inside they would refer to places that this document doesn't have.
        args = next(iter(parts.values())) if len(parts) == 1 else {"type": "object"}
    for name_of in args.get("properties", {}).keys() & set(hidden):
        args["properties"][name_of].pop("default", None)
    required = ["task", "args"] if args.get("required") else ["task"]
    return {"title": name, "properties": {"task": {"const": name}, "args": args}, "required": required}
