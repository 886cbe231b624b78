"""The bodies of requests to the Cloud API, and what may stand in them.

Lengths are counted in characters (code points). Sources of the limits: Meta's pages on text, interactive and template
messages; which of them no live call has confirmed yet is listed in docs/reference/whatsapp.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from oncue.errors import InvalidJob
from oncue.transport import Address, Choices, Content, Option, Outgoing, Template, Text

TEXT = 4096
BUTTONS, BUTTON_TITLE, BUTTON_ID, BUTTON_BODY = 3, 20, 256, 1024
ROWS, ROW_TITLE, ROW_ID, ROW_DESCRIPTION, LIST_BODY, LIST_LABEL = 10, 24, 200, 72, 4096, 20
TEMPLATE_NAME, PARAMETER = 512, 1024
ECHO = 512
SHORTEST, LONGEST = 7, 15
"""Digits of a phone number with its country code (ITU-T E.164; the shortest in use have 7)."""

_MARKS = re.compile(r"[\s().\-/\u2010-\u2015]")
_NUMBER = re.compile(rf"[1-9][0-9]{{{SHORTEST - 1},{LONGEST - 1}}}")
_USER_ID = re.compile(r"[A-Z]{2}\.[A-Za-z0-9]{1,128}")
_NAME = re.compile(r"[a-z0-9_]+")
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Z]{2,3})?")
_UNSAID = re.compile(r"[\n\r\t]| {5}")


def address(given: str) -> Address:
    """Return a phone number as its digits, or a user id (BSUID) as it is. Raises InvalidJob for what is neither."""
    if _USER_ID.fullmatch(given):
        return Address(None, given)
    digits = _MARKS.sub("", given).removeprefix("+")
    if not _NUMBER.fullmatch(digits):
        raise InvalidJob(
            f"{given!r} is no phone number with its country code, such as +1 650 555 0100: it has {SHORTEST} to "
            f"{LONGEST} digits, the first of them no 0. Nor is it a user id of WhatsApp's, such as US.1349."
        )
    return Address(digits)


def body(message: Outgoing) -> bytes:
    """Return the request that sends ``message``. Raises InvalidJob where WhatsApp would refuse it."""
    check(message.content)
    if len(message.echo) > ECHO:
        raise InvalidJob(f"The echo has {len(message.echo)} characters; WhatsApp takes at most {ECHO}.")
    request = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        **_recipient(message.to),
        **_content(message.content),
        "biz_opaque_callback_data": message.echo,
    }
    try:
        return msgspec.json.encode(request)
    except UnicodeEncodeError as error:
        raise InvalidJob(f"This message has half a character in it, which nothing can send: {error}.") from None


def typing_body(external_id: str) -> bytes:
    """Return the request that marks a person's message as read and shows that an answer is being written."""
    return msgspec.json.encode(
        {
            "messaging_product": "whatsapp",
            "status": "read",
            "message_id": external_id,
            "typing_indicator": {"type": "text"},
        }
    )


def check(content: Content) -> None:
    """Raise InvalidJob where WhatsApp would refuse this content, saying what to change."""
    match content:
        case Text():
            _length("A text", content.body, TEXT)
        case Choices():
            _check_choices(content)
        case Template():
            _check_template(content)


def as_buttons(content: Choices) -> bool:
    """Tell whether these choices are buttons; else they are a list, which holds more and longer ones."""
    return len(content.options) <= BUTTONS and all(
        len(option.title) <= BUTTON_TITLE and not option.description for option in content.options
    )


def _recipient(to: Address) -> dict[str, str]:
    if to.address:
        return {"to": to.address}
    if to.user_id:
        return {"recipient": to.user_id}
    raise InvalidJob("This message has no recipient: neither a phone number nor a user id.")


def _content(content: Content) -> dict[str, Any]:
    match content:
        case Text():
            return {"type": "text", "text": {"body": content.body}}
        case Choices():
            interactive = _buttons(content.options) if as_buttons(content) else _list(content)
            return {"type": "interactive", "interactive": {**interactive, "body": {"text": content.body}}}
        case Template():
            return {"type": "template", "template": _template(content)}


def _buttons(options: Sequence[Option]) -> dict[str, Any]:
    buttons = [{"type": "reply", "reply": {"id": option.id, "title": option.title}} for option in options]
    return {"type": "button", "action": {"buttons": buttons}}


def _list(content: Choices) -> dict[str, Any]:
    rows = [
        {"id": option.id, "title": option.title, **({"description": option.description} if option.description else {})}
        for option in content.options
    ]
    return {"type": "list", "action": {"button": content.button, "sections": [{"rows": rows}]}}


def _template(content: Template) -> dict[str, Any]:
    filled: dict[str, Any] = {"name": content.name, "language": {"code": content.language}}
    if content.parameters:
        parameters = [{"type": "text", "text": text} for text in content.parameters]
        filled["components"] = [{"type": "body", "parameters": parameters}]
    return filled


def _check_choices(content: Choices) -> None:
    options = content.options
    if not 1 <= len(options) <= ROWS:
        raise InvalidJob(
            f"WhatsApp shows 1 to {ROWS} choices (up to {BUTTONS} as buttons, more as a list), not {len(options)}. "
            "Ask in two steps, or let the person write the answer."
        )
    buttons = as_buttons(content)
    _length("The text above buttons" if buttons else "The text above a list", content.body,
            BUTTON_BODY if buttons else LIST_BODY)  # fmt: skip
    for option in options:
        _length("The title of a choice", option.title, ROW_TITLE)
        _length("The id of a choice", option.id, BUTTON_ID if buttons else ROW_ID)
        if len(option.description) > ROW_DESCRIPTION:
            raise _too_long("The description of a choice", option.description, ROW_DESCRIPTION)
    _unique("ids", options, lambda option: option.id)
    _unique("titles", options, lambda option: option.title)
    if not buttons:
        _length("The label that opens a list", content.button, LIST_LABEL)


def _check_template(content: Template) -> None:
    if not _NAME.fullmatch(content.name) or len(content.name) > TEMPLATE_NAME:
        raise InvalidJob(
            f"A template's name has lower-case letters, digits and _ only, {TEMPLATE_NAME} at most, "
            f"not {content.name!r}: take it as it stands in WhatsApp Manager."
        )
    if not _LANGUAGE.fullmatch(content.language):
        raise InvalidJob(f"A template's language is a code like en, en_US or pt_BR, not {content.language!r}.")
    for number, text in enumerate(content.parameters, 1):
        what = f"Parameter {number} of the template {content.name}"
        _length(what, text, PARAMETER)
        if _UNSAID.search(text):
            raise InvalidJob(f"{what} has a line break, a tab or more than four spaces in a row: WhatsApp refuses it.")


def _length(what: str, text: str, most: int) -> None:
    if not text.strip():
        raise InvalidJob(f"{what} is empty; WhatsApp refuses that.")
    if len(text) > most:
        raise _too_long(what, text, most)


def _too_long(what: str, text: str, most: int) -> InvalidJob:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return InvalidJob(f"{what} has {len(text)} characters; WhatsApp takes at most {most}: {shown!r}")


def _unique(what: str, options: Sequence[Option], name: Callable[[Option], str]) -> None:
    names = [name(option) for option in options]
    twice = sorted({each for each in names if names.count(each) > 1})
    if twice:
        raise InvalidJob(f"Two choices of one message have the same {what}: {', '.join(map(repr, twice))}.")
