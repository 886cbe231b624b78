"""Answers to choose from: how they are offered, and which of them a person means.

The id of a tapped answer names the message that it was offered in, which proves that this one was seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from oncue.conversation.words import fold
from oncue.errors import InvalidJob
from oncue.transport import Choices, Content, Option, Text, Transport

_REF = 32


def option_id(ref: str, choice: str) -> str:
    """Return the id that an answer has in the message ``ref``."""
    return f"{ref}:{choice}"


def split_option(id: str) -> tuple[str | None, str]:
    """Return (the message's ref, the answer's own id); no ref where the id is not one of ours."""
    ref, colon, choice = id.partition(":")
    return (ref, choice) if colon and len(ref) == _REF else (None, id)


def as_options(choices: Sequence[str | Option]) -> tuple[Option, ...]:
    """Return answers to choose from; a text is an answer's id and its title. Raises ValueError for what can't work."""
    options = tuple(Option(one, one) if isinstance(one, str) else one for one in choices)
    ids = [one.id for one in options]
    if isinstance(choices, str) or not options or not all(isinstance(one, Option) for one in options):
        raise ValueError(f"choices is a list of texts or Options, not {choices!r}.")
    if len(set(ids)) < len(ids) or not all(one.id and one.title.strip() for one in options):
        raise ValueError(f"Answers to choose from have ids and titles, each id another: {ids!r}.")
    return options


def offer(body: str, options: tuple[Option, ...], button: str, ref: str, transport: Transport) -> Content:
    """Return a question with answers: to tap as far as the messenger can do that, else numbered in the text.

    Raises InvalidJob where the text is too long.
    """
    can = transport.capabilities
    if len(options) <= max(can.buttons, can.rows):
        named = tuple(msgspec.structs.replace(one, id=option_id(ref, one.id)) for one in options)
        tapped = Choices(body, named, button)
        try:
            transport.check(tapped)
        except InvalidJob:
            # Titles that are too long to be tapped can still be read.
            pass
        else:
            return tapped
    return Text(numbered(body, options))


def numbered(body: str, options: Sequence[Option]) -> str:
    """Return a text with its answers below it, by number."""
    shown = [f"{one.title} - {one.description}" if one.description else one.title for one in options]
    return "\n".join([body, "", *(f"{number}. {line}" for number, line in enumerate(shown, 1))])


def renamed(content: Content, ref: str) -> Content:
    """Return content as it is sent once more, as the message ``ref``: its answers name that one."""
    if not isinstance(content, Choices):
        return content
    options = tuple(msgspec.structs.replace(one, id=option_id(ref, split_option(one.id)[1])) for one in content.options)
    return msgspec.structs.replace(content, options=options)


def chosen(options: Sequence[Option], text: str, tapped: str | None) -> str | None:
    """Return the id of the answer that was tapped, or typed by its title, id or number; None for no such answer."""
    if tapped is not None:
        id = split_option(tapped)[1]
        return id if any(one.id == id for one in options) else None
    raw, plain = text.strip(), fold(text)
    titles, ids = [(one.title, one.id) for one in options], [(one.id, one.id) for one in options]
    # As they are written first: folded, "A+" and "A-" are both an "a".
    for names, wanted, shape in (
        (titles, raw, str.strip), (ids, raw, str.strip), (titles, plain, fold), (ids, plain, fold)
    ):  # fmt: skip
        found = [id for name, id in names if wanted and shape(name) == wanted]
        if found:
            return found[0] if len(found) == 1 else None
    # Where answers are numbers themselves, a number that is none of them means none of them.
    counts = plain.isdecimal() and not any(fold(title).isdecimal() for title, _ in titles)
    return options[int(plain) - 1].id if counts and 1 <= int(plain) <= len(options) else None
