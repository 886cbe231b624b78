"""People with the app in their hands: what they do becomes an update."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from tests.telegram.standin import Seen, Standin


class Person:
    """Somebody with the app in their hand. What they do becomes an update, which `Standin.deliver` takes along."""

    def __init__(self, telegram: Standin, chat: int, name: str) -> None:
        self.telegram, self.chat, self.name = telegram, chat, name
        self.blocked = False
        self.waiting: set[str] = set()
        """Taps whose button still shows that it waits."""

    @property
    def _who(self) -> dict[str, Any]:
        return {
            "from": {"id": self.chat, "is_bot": False, "first_name": self.name, "language_code": "en"},
            "chat": {"id": self.chat, "first_name": self.name, "type": "private"},
        }

    def message(self, *, at: float | None = None, reply_to: Seen | None = None, **content: Any) -> bytes:
        """An update of a message with that content."""
        told = {"message_id": self.telegram.next_message_id(self.chat), **self._who, "date": int(at or time.time())}
        replies = {"reply_to_message": self.telegram.as_message(reply_to)} if reply_to else {}
        return self.telegram.update(message={**told, **replies, **content})

    def text(self, text: str, *, at: float | None = None, reply_to: Seen | None = None) -> bytes:
        """An update of a text; a command carries its entity."""
        length = len(text.split(maxsplit=1)[0]) if text.startswith("/") else 0
        entities = {"entities": [{"type": "bot_command", "offset": 0, "length": length}]} if length else {}
        return self.message(at=at, reply_to=reply_to, text=text, **entities)

    def tap(self, seen: Seen, title: str, *, gone: bool = False) -> bytes:
        """An update of a tapped button. ``gone``: the message is too old to come along."""
        data = next(data for shown, data in seen.buttons if shown == title)
        tap = self.telegram.next_tap_id()
        self.waiting.add(tap)
        message = self.telegram.as_message(seen)
        if gone:
            message = {"chat": message["chat"], "message_id": seen.message_id, "date": 0}
        told = {"id": tap, "from": self._who["from"], "chat_instance": "8134", "data": data, "message": message}
        return self.telegram.update(callback_query=told)

    def edit(self, message_id: int, text: str) -> bytes:
        """An update of a message that was changed."""
        now = int(time.time())
        told = {"message_id": message_id, **self._who, "date": now, "edit_date": now, "text": text}
        return self.telegram.update(edited_message=told)

    def block(self, blocked: bool = True) -> bytes:
        """An update of the bot being blocked, or unblocked."""
        self.blocked = blocked
        bot = {"id": int(self.telegram.token.partition(":")[0]), "is_bot": True, "first_name": "Bot"}
        states = [{"user": bot, "status": status} for status in ("member", "kicked")]
        old, new = states if blocked else reversed(states)
        told = {**self._who, "date": int(time.time()), "old_chat_member": old, "new_chat_member": new}
        return self.telegram.update(my_chat_member=told)

    async def write(self, text: str) -> httpx.Response:
        """Write a text."""
        return await self.telegram.deliver(self.text(text))

    async def choose(self, title: str) -> httpx.Response:
        """Tap a button of the last message that has such a one."""
        offered = [seen for seen in self.telegram.seen_by(self.chat) if title in dict(seen.buttons)]
        return await self.telegram.deliver(self.tap(offered[-1], title))
