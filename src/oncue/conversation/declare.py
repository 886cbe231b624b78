"""Declaring a conversation: how it starts, what reminds, and the object that ``@app.conversation`` returns."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from oncue.conversation.words import fold
from oncue.errors import ConfigError, InvalidJob
from oncue.task import checked_name

if TYPE_CHECKING:
    from oncue.conversation.channels import Channel
    from oncue.conversation.chat import Chat
    from oncue.declare import Declarations
    from oncue.transport import Transport

Function = Callable[["Chat"], Awaitable[Any]]
Talk = Callable[[Function], "Conversation"]
"""What ``@app.conversation(...)`` returns."""


class Keyword:
    """Words that start a conversation when somebody writes one of them and nothing else: ``Keyword("start", "go")``.

    Case, accents and marks around the word don't matter. Raises ConfigError without a usable word.
    """

    def __init__(self, *words: str) -> None:
        self.words = words
        self._folded = frozenset(fold(word) for word in words)
        if not words or "" in self._folded:
            raise ConfigError(f"Keyword takes words of at least a letter or digit, not {words!r}.")

    def matches(self, text: str) -> bool:
        """Tell whether the whole text is one of the words."""
        return fold(text) in self._folded

    def __repr__(self) -> str:
        return f"Keyword({', '.join(map(repr, self.words))})"


@dataclass(frozen=True, slots=True, eq=False)
class Conversation:
    """A registered conversation: its name, its channel, and its function."""

    name: str
    channel: Channel
    function: Function
    begins: Keyword | None = None

    async def start(
        self, address: str, *, name: str | None = None, timezone: str | None = None, connection: Any = None
    ) -> int:
        """Start the conversation with a person by code; return its number.

        ``address``: where the channel sends, as people write it: a phone number with its country code, the number of
        a Telegram chat, or the messenger's own id of the person. ``name`` and ``timezone``
        (an IANA name) are kept with the person. ``connection``: it is part of the caller's transaction, as for
        ``OnCue.schedule``. Raises InvalidJob for what is no address, and where the person is in a conversation already,
        has opted out, can't be reached or is looked after by a human; ConfigError for no time zone; a StoreError.
        """
        from oncue.conversation.operate import start

        return await start(self, address, name, timezone, connection)


def register(app: Declarations, name: str, channel: Transport | Channel, begins: Keyword | None) -> Talk:
    """Return the decorator that registers a conversation. Raises ConfigError."""
    from oncue.conversation.channels import Channel, make_channel

    try:
        checked_name("a conversation's name", name)
    except InvalidJob as error:
        raise ConfigError(str(error)) from error
    if begins is not None and not isinstance(begins, Keyword):
        raise ConfigError(f"start is a Keyword, such as Keyword('start'), not {begins!r}.")
    room = channel if isinstance(channel, Channel) else app.channels.get(getattr(channel, "name", ""))
    if room is None:
        room = make_channel(app, cast("Transport", channel), {})
    elif room is not channel and room.transport is not channel:
        raise ConfigError(f"Two transports are named {room.name!r}. Give one another name=.")

    def decorate(function: Function) -> Conversation:
        if not inspect.iscoroutinefunction(function):
            raise ConfigError(f"A conversation is an async function of a Chat; {function!r} is not.")
        if name in app.conversations:
            raise ConfigError(f"Two conversations are named {name!r}. Give one another name.")
        _check_words(app, name, room, begins)
        made = app.conversations[name] = Conversation(name, room, function, begins)
        return made

    return decorate


def _check_words(app: Declarations, name: str, room: Channel, begins: Keyword | None) -> None:
    if begins is None:
        return
    left = [word for word in begins.words if fold(word) in room.options.opt_out_words]
    if left:
        raise ConfigError(f"{left[0]!r} is a word by which people leave, so it can't start {name!r}.")
    for other in app.conversations.values():
        shared = [word for word in begins.words if other.begins is not None and other.begins.matches(word)]
        if other.channel is room and shared:
            raise ConfigError(f"{shared[0]!r} starts both {other.name!r} and {name!r}; it can start only one.")
