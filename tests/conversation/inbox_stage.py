"""A stage for what comes in: a channel whose updates are plain JSON, and a flow that writes down what it hears."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec

from oncue import OnCue
from oncue.clock import SECOND
from oncue.conversation.channels import Channel
from oncue.conversation.flow import Flow
from oncue.conversation.intake import Intake, Taken
from oncue.conversation.words import fold
from oncue.store.chats import MessageRow, PersonRow
from oncue.store.steps import Steps, ask, run
from oncue.transport import Address, Answer, Batch, Capabilities, Content, Inbound, Outgoing, Preference, Status
from tests.databases import Backend
from tests.store.kit import T0, HandClock

PROOF = {"x-proof": "yes"}
HOUR = 3600.0


class Plain:
    """A transport whose updates are a ``Batch`` as JSON, and genuine where a header says so."""

    name = "line"
    throughput = 80.0
    inbound_counts = False
    pair: tuple[float, float, int] | None = None
    capabilities = Capabilities(
        echo=True, statuses=True, templates=True, typing=False, window=86_400.0, buttons=3, rows=10, text_length=4096
    )

    def check(self, content: Content) -> None: ...

    async def send(self, message: Outgoing) -> Answer:
        return Answer("sent", f"w-{message.echo}")

    async def typing(self, external_id: str) -> None: ...

    def genuine(self, headers: Mapping[str, str], raw: bytes) -> bool:
        return headers.get("x-proof") == "yes"

    def handshake(self, query: Mapping[str, str]) -> str | None:
        return query.get("challenge") if query.get("token") == "ours" else None

    def read(self, raw: bytes) -> Batch:
        try:
            return msgspec.json.decode(raw, type=Batch)
        except msgspec.MsgspecError as error:
            return Batch(unread=[f"update: {error}"])

    async def close(self) -> None: ...


class Hears:
    """Stands in for the flow: conversations start by ``go``, and what is heard is written down and handled."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.heard: list[tuple[int, str]] = []
        self.raises: list[Exception] = []
        self.told: list[str] = []

    def starts(self, text: str) -> bool:
        return fold(text) == "go"

    async def hear(self, person: PersonRow, inbound: Inbound) -> None:
        if self.raises:
            raise self.raises.pop(0)
        self.heard.append((person.id, inbound.text))
        now = self.channel.app.clock.now()
        values = {"external_id": inbound.external_id, "chat": None, "step": None, "note": None}

        def steps() -> Steps[None]:
            yield run("take_inbound", channel=self.channel.name, now=now, **values)

        await self.channel.app.store.change(steps)

    def stop(self, id: int, reason: str, now: int) -> Steps[None]:
        yield run("stop_chat", id=id, reason=reason, now=now, expires_at=None)

    def allows(self, message: MessageRow, now: int) -> Steps[str | None]:
        yield from ()
        return None

    def accepted(self, message: MessageRow, at: int) -> Steps[None]:
        self.told.append(f"accepted {message.ref}")
        yield from ()

    def delivered(self, message: MessageRow, at: int) -> Steps[None]:
        self.told.append(f"delivered {message.ref}")
        yield from ()

    def failed(self, message: MessageRow, reason: str, verdict: str) -> Steps[None]:
        yield from ()

    def going_on(self, message: MessageRow, at: int) -> Steps[None]:
        yield from ()


class Stage:
    """An open application with one channel, and its intake."""

    def __init__(self, app: OnCue, clock: HandClock, channel: Channel) -> None:
        self.app, self.clock, self.channel = app, clock, channel
        self.flow = Hears(channel)
        channel._flow = cast("Flow", self.flow)
        self.intake = Intake(app, channel)

    async def post(self, *batches: Batch, headers: Mapping[str, str] = PROOF) -> Taken:
        """Hand updates to the intake; return what came of the last."""
        taken = Taken(200)
        for batch in batches:
            taken = await self.intake.take(headers, msgspec.json.encode(batch))
        return taken

    async def hear(self, *batches: Batch) -> None:
        """Hand updates to the intake, and do what follows from them."""
        await self.post(*batches)
        await self.app.drain()

    async def rows(self, sql: str) -> list[Any]:
        """Return what a query finds, each row as a list."""
        text = f"SELECT {sql}"
        if self.app.url.startswith("sqlite"):
            return cast("list[Any]", await self.app.store.read(lambda conn: list(map(list, conn.execute(text)))))  # type: ignore[attr-defined]
        from oncue.store.postgres.run import qualified

        store: Any = self.app.store
        found = await store.pool.run(lambda conn: conn.fetch(qualified(text, store.schema_name)))
        return [list(row) for row in found]

    async def people(self) -> list[PersonRow]:
        """Return all people by id."""
        ids = [row[0] for row in await self.rows("id FROM oncue_person ORDER BY id")]
        return [await self.person(id) for id in ids]

    async def person(self, id: int) -> PersonRow:
        def steps() -> Steps[Any]:
            return (yield ask("person_by_id", id=id))

        return msgspec.json.decode(await self.app.store.look(steps), type=PersonRow)

    async def notes(self) -> dict[str, str | None]:
        """Return the notes of all messages by external id."""
        return dict(await self.rows("external_id, note FROM oncue_inbound"))

    async def events(self, person: int) -> list[str]:
        return [row[0] for row in await self.rows(f"kind FROM oncue_event WHERE person = {person} ORDER BY id")]


@asynccontextmanager
async def stage(backend: Backend, transport: Any = None, **options: Any) -> AsyncIterator[Stage]:
    clock = HandClock()
    app = OnCue(backend.url, clock=clock, sweep=3600.0)
    channel = app.channel(transport or Plain(), **options)
    async with app:
        made = Stage(app, clock, channel)
        yield made
        await made.intake.settle()


def inbound(id: str, text: str = "hello", **more: Any) -> Inbound:
    """A message. ``ago``: seconds before T0; ``address`` (default: +1) and ``user_id`` name its sender."""
    ago = more.pop("ago", 0.0)
    sender = Address(more.pop("address", "+1" if "user_id" not in more else None), more.pop("user_id", None))
    return Inbound(id, sender, round(T0 - ago * SECOND), more.pop("kind", "text"), text, **more)


def update(*messages: Inbound, statuses: tuple[Status, ...] = (), preferences: tuple[Preference, ...] = ()) -> Batch:
    return Batch(list(messages), list(statuses), list(preferences))


def shown(batch: Batch) -> Any:
    return json.loads(msgspec.json.encode(batch))
