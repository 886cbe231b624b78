"""Telegram: the stand-in of tests/telegram."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

from oncue.telegram import Telegram
from oncue.transport import Address, Choices, Option, Template, Text, Transport
from tests.telegram.standin import SECRET, TOKEN, Standin
from tests.transport.kinds import Kind, Seen, Update

ADA = 4242
HEADER = "x-telegram-bot-api-secret-token"


class TelegramKind(Kind):
    """The Bot API by its stand-in, and Ada, who has started the bot."""

    secrets = (TOKEN, SECRET)
    person = Address(str(ADA))
    refused = (
        Text("half a character: \ud83d"),
        Choices("Which?", (Option("a", " "),)),
        Choices("Which?", (Option("a" * 65, "One"),)),
        Choices("Which?", (Option("a", "One"), Option("a", "Two"))),
        Template("hello"),
    )
    signs = False

    def __init__(self) -> None:
        self.forged = {HEADER: "guessed"}
        self._standin = Standin()
        self._ada = self._standin.person(ADA)

    async def __aenter__(self) -> Self:
        await self._standin.__aenter__()
        self.url = self._standin.url
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._standin.__aexit__(kind, error, traceback)

    def transport(self, url: str, *, timeout: float = 20) -> Transport:
        return Telegram(TOKEN, SECRET, url=url, timeout=timeout)

    def seen(self) -> list[Seen]:
        return [
            Seen(seen.external_id, seen.text, tuple((data, title) for title, data in seen.buttons))
            for seen in self._standin.seen_by(ADA)
        ]

    async def write(self, text: str) -> Update:
        return self._update(self._ada.text(text))

    async def tap(self, title: str) -> Update:
        offered = [seen for seen in self._standin.seen_by(ADA) if title in dict(seen.buttons)]
        return self._update(self._ada.tap(offered[-1], title))

    async def others(self) -> list[Update]:
        edit = self._ada.edit(1, "")
        contents: list[dict[str, Any]] = [
            {"photo": [{"file_id": "1", "width": 90, "height": 90}]},
            {"sticker": {"file_id": "2", "emoji": "👍"}},
            {"a_kind_of_next_year": {}},
        ]
        raws = [self._ada.message(**content) for content in contents] + [edit, self._ada.block()]
        self._ada.blocked = False
        return [self._update(raw) for raw in raws]

    @staticmethod
    def _update(raw: bytes) -> Update:
        assert json.loads(raw)["update_id"]
        return Update({HEADER: SECRET, "content-type": "application/json"}, raw)
