"""A stage for whole conversations: the real intake, outbox and jobs, over a messenger that a test controls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec

from oncue import OnCue
from oncue.clock import SECOND, from_us, to_us
from oncue.conversation import Channel, Chat, Conversations, Keyword
from oncue.conversation.intake import Intake
from oncue.store.chats import ChatRow, ChatState, InboundRow, MessageRow, PersonFile, PersonRow
from oncue.store.steps import files
from oncue.testing import TestClock
from oncue.transport import Address, Batch, Choices, Inbound, Outgoing, Status, Text
from tests.conversation.outbox_stage import NOON, Messenger
from tests.databases import Backend

ADA = "16505550100"
Function = Callable[[Chat], Awaitable[Any]]


class Wire(Messenger):
    """A messenger whose updates are batches as JSON."""

    def __init__(self, **capabilities: Any) -> None:
        super().__init__(**capabilities)
        self.typed: list[str] = []
        """The messages to which it was shown that an answer is being written."""

    def read(self, raw: bytes) -> Batch:
        return msgspec.json.decode(raw, type=Batch)

    def genuine(self, headers: Any, raw: bytes) -> bool:
        return True

    async def typing(self, external_id: str) -> None:
        self.typed.append(external_id)


class Talk:
    """An application with one channel, and Ada, who writes."""

    def __init__(self, app: OnCue, clock: TestClock, wire: Wire, channel: Channel) -> None:
        self.app, self.clock, self.wire, self.channel = app, clock, wire, channel
        self.conversations = Conversations(app)
        self._intake = Intake(app, channel)
        self._written = 0

    @property
    def now(self) -> int:
        return self.clock.now()

    @property
    def shown(self) -> list[str]:
        """The texts that were handed over, in order."""
        return self.wire.bodies

    def define(self, function: Function, name: str = "trial") -> None:
        """Make this the conversation's function, as a deploy does."""
        self.app.conversations.pop(name, None)
        self.app.conversation(name, channel=self.channel, start=Keyword("start"))(function)

    async def post(self, batch: Batch) -> None:
        """Hand an update to the intake."""
        taken = await self._intake.take({}, msgspec.json.encode(batch))
        assert taken.status == 200

    def inbound(self, text: str, **more: Any) -> Inbound:
        self._written += 1
        values: dict[str, Any] = {"kind": "text", "sent_at": self.now // SECOND * SECOND}
        sender = more.pop("sender", None) or Address(more.pop("address", ADA))
        return Inbound(f"in{self._written}", sender, text=text, **(values | more))

    async def write(self, text: str, *, drain: bool = True, **more: Any) -> Inbound:
        """A person writes."""
        inbound = self.inbound(text, **more)
        await self.post(Batch([inbound]))
        if drain:
            await self.drain()
        return inbound

    async def tap(self, title: str) -> Inbound:
        """Ada taps an answer of the last message that offers it."""
        for sent in reversed(self.wire.sent):
            if isinstance(sent.content, Choices):
                for option in sent.content.options:
                    if option.title == title:
                        return await self.write(title, kind="choice", choice=option.id)
        raise AssertionError(f"nothing offers {title!r}")

    async def status(self, status: str, sent: Outgoing) -> None:
        """The messenger tells what became of a message."""
        number = self.wire.sent.index(sent) + 1
        await self.post(Batch([], [Status(f"w{number}", status, self.now // SECOND * SECOND, sent.echo)]))
        await self.drain()

    async def drain(self) -> None:
        """Do what is due now; the throughput limit lets one message go each microsecond."""
        await self.advance(0.001)

    async def advance(self, seconds: float) -> None:
        """Move the clock on from due time to due time."""
        end = self.now + round(seconds * SECOND)
        done = await self.app.drain()
        while self.now < end:
            due = end if done.next_due is None else max(to_us(done.next_due), self.now + 1)
            self.clock.set(from_us(min(due, end)))
            done = await self.app.drain()

    async def chat(self, number: int = -1) -> ChatRow:
        """A conversation, the last one unless said otherwise."""
        found = (await self.conversations.list())[::-1]
        return found[number]

    async def state(self) -> tuple[ChatState, str | None]:
        chat = await self.chat()
        return chat.state, chat.step

    async def person(self, address: str = ADA) -> PersonRow:
        (found,) = await self.app.store.look(lambda: files.people(address, None))
        return found

    async def file(self, address: str = ADA) -> PersonFile:
        person = await self.person(address)
        found = await self.app.store.look(lambda: files.file_of(person.id))
        assert found is not None
        return found

    async def values(self) -> dict[str, Any]:
        """The recorded values of the last conversation."""
        shown = await self.conversations.show((await self.chat()).id)
        return {s.name: msgspec.json.decode(s.value or "null") for s in shown.steps if s.state == "done"}

    async def messages(self, kind: str) -> list[MessageRow]:
        return [message for message in (await self.file()).messages if message.kind == kind]

    async def heard(self, text: str) -> InboundRow:
        """The last message of Ada with this text."""
        found = [row for row in (await self.file()).inbound if msgspec.json.decode(row.content)["text"] == text]
        return found[-1]

    async def events(self, kind: str) -> list[str]:
        return [event.text for event in (await self.file()).events if event.kind == kind]

    async def jobs(self) -> list[tuple[str, str, str | None]]:
        """(task, state, group) of all that waits."""
        rows = await self.app.store.list_jobs(limit=1000)
        return [(row.task, row.state, row.group) for row in rows if row.state in ("scheduled", "running")]


def texts(sent: list[Outgoing]) -> list[str]:
    return [message.content.body for message in sent if isinstance(message.content, Text | Choices)]


@asynccontextmanager
async def talk(
    backend: Backend,
    function: Function | None = None,
    *,
    wire: Wire | None = None,
    start: datetime = NOON,
    **options: Any,
) -> AsyncIterator[Talk]:
    """An application of its own on this database, at noon; nothing is quiet unless asked for."""
    clock = TestClock(start)
    transport = wire or Wire()
    transport.inbound_counts = False
    transport.clock = clock
    app = OnCue(backend.url, clock=clock)
    options.setdefault("quiet", None)
    channel = app.channel(transport, **options)
    async with app:
        made = Talk(app, clock, transport, channel)
        if function is not None:
            made.define(function)
        yield made
