"""What a request may say: the Cloud API's checks of every kind of message."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]


class Refused(Exception):
    """An error as the Graph API answers it; clients decide on ``code``, not on the HTTP status."""

    def __init__(self, code: int, title: str, details: str, status: int = 400) -> None:
        super().__init__(f"{title}: {details}")
        self.code, self.title, self.details, self.status = code, title, details, status


def invalid(details: str) -> Refused:
    """Return error 100."""
    return Refused(100, "Invalid parameter", details)


def missing(name: str) -> Refused:
    """Return error 131008."""
    return Refused(131008, "Required parameter is missing", f"Parameter {name} is required.")


def wrong(details: str) -> Refused:
    """Return error 131009."""
    return Refused(131009, "Parameter value is not valid", details)


@dataclass(frozen=True, slots=True)
class Option:
    """A button or a row of a list."""

    id: str
    title: str
    description: str = ""
    row: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A message that stands up to the checks. ``template``: (name, language, number of body parameters)."""

    kind: str
    text: str = ""
    options: tuple[Option, ...] = ()
    template: tuple[str, str, tuple[str, ...]] | None = None
    replies_to: str | None = None
    button: str = ""
    """What opens the list."""


def read_message(body: Json) -> Message:
    """Check the content of a request to send. Raises Refused with 100, 131008 or 131009."""
    kind = _text(body, "type")
    if kind not in _READERS:
        raise invalid(f"Param type must be one of {{{', '.join(_READERS)}}}, got {kind!r}.")
    if kind not in body:
        raise missing(kind)
    part = body[kind]
    if not isinstance(part, Mapping):
        raise invalid(f"Param {kind} must be a JSON object.")
    context = body.get("context")
    replies_to = None if context is None else _text(_object(body, "context", ""), "message_id", "context.")
    return _READERS[kind](part, replies_to)


def _read_text(part: Json, replies_to: str | None) -> Message:
    return Message("text", _text(part, "body", "text.", most=4096), replies_to=replies_to)


def _read_interactive(part: Json, replies_to: str | None) -> Message:
    kind = _text(part, "type", "interactive.")
    if kind not in ("button", "list"):
        raise invalid(f"Param interactive['type'] must be one of {{button, list}}, got {kind!r}.")
    body = _text(_object(part, "body", "interactive."), "text", "interactive.body.", 1024 if kind == "button" else 4096)
    if "footer" in part:
        _text(_object(part, "footer", "interactive."), "text", "interactive.footer.", 60)
    action = _object(part, "action", "interactive.")
    if kind == "button":
        return Message("interactive", body, _buttons(action), replies_to=replies_to)
    opens = _text(action, "button", "interactive.action.", 20)
    return Message("interactive", body, _rows(action), replies_to=replies_to, button=opens)


def _buttons(action: Json) -> tuple[Option, ...]:
    where = "interactive.action."
    found = []
    for button in _objects(action, "buttons", where, 3):
        if _text(button, "type", where + "buttons.") != "reply":
            raise wrong("A button's type must be reply.")
        reply = _object(button, "reply", where + "buttons.")
        at = where + "buttons.reply."
        found.append(Option(_text(reply, "id", at, 256), _text(reply, "title", at, 20)))
    return _unique(found, titles=True)


def _rows(action: Json) -> tuple[Option, ...]:
    where = "interactive.action."
    found = []
    sections = _objects(action, "sections", where, 10)
    for section in sections:
        if len(sections) > 1 or "title" in section:
            _text(section, "title", where + "sections.", 24)
        for row in _objects(section, "rows", where + "sections.", 10):
            at = where + "sections.rows."
            description = _text(row, "description", at, 72) if row.get("description") else ""
            found.append(Option(_text(row, "id", at, 200), _text(row, "title", at, 24), description, row=True))
    if len(found) > 10:
        raise wrong(f"A list has at most 10 rows in all its sections, not {len(found)}.")
    return _unique(found, titles=False)


def _unique(options: Sequence[Option], *, titles: bool) -> tuple[Option, ...]:
    if len({option.id for option in options}) < len(options):
        raise wrong("The ids of buttons or rows must differ.")
    if titles and len({option.title for option in options}) < len(options):
        raise wrong("The titles of buttons must differ.")
    return tuple(options)


def _read_template(part: Json, replies_to: str | None) -> Message:
    name = _text(part, "name", "template.", 512)
    language = _text(_object(part, "language", "template."), "code", "template.language.")
    parameters: list[str] = []
    components = part.get("components", [])
    if not isinstance(components, list) or not all(isinstance(each, Mapping) for each in components):
        raise invalid("Param template['components'] must be an array of objects.")
    for component in components:
        kind = _text(component, "type", "template.components.").lower()
        if kind not in ("header", "body", "button", "footer"):
            raise invalid(f"Param template['components']['type'] must be header, body or button, got {kind!r}.")
        if kind == "body":
            found = _objects(component, "parameters", "template.components.", None)
            parameters.extend(_parameter(parameter) for parameter in found)
    return Message("template", template=(name, language, tuple(parameters)), replies_to=replies_to)


def _parameter(parameter: Json) -> str:
    where = "template.components.parameters."
    if (kind := _text(parameter, "type", where)) != "text":
        raise wrong(f"The simulator takes parameters of type text, got {kind!r}.")
    text = _text(parameter, "text", where)
    if re.search(r"[\n\t]| {5}", text):
        raise Refused(
            132018, "Template parameters are not valid", "A parameter has no line breaks, tabs, or 5 spaces in a row."
        )
    return text


def _read_reaction(part: Json, _replies_to: str | None) -> Message:
    if not isinstance(emoji := part.get("emoji"), str):
        raise missing("reaction.emoji")
    return Message("reaction", emoji, replies_to=_text(part, "message_id", "reaction."))


_READERS: dict[str, Callable[[Json, str | None], Message]] = {
    "text": _read_text,
    "interactive": _read_interactive,
    "template": _read_template,
    "reaction": _read_reaction,
}


def _object(part: Json, name: str, where: str) -> Json:
    found = part.get(name)
    if found is None:
        raise missing(where + name)
    if not isinstance(found, Mapping):
        raise invalid(f"Param {where}{name} must be a JSON object.")
    return found


def _objects(part: Json, name: str, where: str, most: int | None) -> list[Json]:
    found = part.get(name)
    if found is None:
        raise missing(where + name)
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise invalid(f"Param {where}{name} must be an array of objects.")
    if not found or (most is not None and len(found) > most):
        raise wrong(f"{where}{name} has 1 to {most or 'many'} items, not {len(found)}.")
    return found


def _text(part: Json, name: str, where: str = "", most: int | None = None) -> str:
    found = part.get(name)
    if found is None or found == "":
        raise missing(where + name)
    if not isinstance(found, str):
        raise invalid(f"Param {where}{name} must be a string.")
    if not found.strip():
        raise wrong(f"{where}{name} must not be blank.")
    if most is not None and len(found) > most:
        raise invalid(f"Param {where}{name} must be at most {most} characters long; it has {len(found)}.")
    return found
