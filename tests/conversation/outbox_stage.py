"""A stage for the outbox: a channel whose messenger does what a test tells it, and a flow that writes down what it is
told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

from oncue import OnCue
from oncue.clock import SECOND, from_us, to_us
from oncue.context import JobContext
from oncue.conversation.channels import Channel
from oncue.conversation.flow import Flow
from oncue.conversation.outbox import NewMessage, Outbox
from oncue.errors import InvalidJob
from oncue.job import Claimed
from oncue.store import Claim, WorkerRow
from oncue.store.chats import ChannelRow, MessageRow, PersonRow, one
from oncue.store.lock import LifeLock
from oncue.store.steps import Steps, ask, run
from oncue.testing import TestClock
from oncue.transport import Answer, Batch, Capabilities, Content, Outgoing, Status, Template, Text, Verdict
from tests.databases import Backend

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
LEASE = 10 * SECOND
R = 60
Reply = Answer | Callable[[Outgoing], Awaitable[Answer]]


class Died(BaseException):
    """The process that sent is gone."""


class Messenger:
    """A transport that accepts all it is given, unless ``answers`` holds something else for the next request."""

    name = "line"
    throughput = 2_000_000.0
    inbound_counts = True
    pair: tuple[float, float, int] | None = None

    def __init__(self, **capabilities: Any) -> None:
        plain: dict[str, Any] = {
            "echo": True, "statuses": True, "templates": True, "typing": False, "window": 86_400.0, "buttons": 3,
            "rows": 10, "text_length": 4096,
        }  # fmt: skip
        self.capabilities = Capabilities(**(plain | capabilities))
        self.answers: list[Reply] = []
        self.sent: list[Outgoing] = []
        """All that was handed over, whatever came of it."""
        self.clock: TestClock | None = None
        self.times: list[datetime] = []

    def check(self, content: Content) -> None:
        if isinstance(content, Text) and not content.body:
            raise InvalidJob("An empty text.")

    async def send(self, message: Outgoing) -> Answer:
        self.sent.append(message)
        if self.clock is not None:
            self.times.append(self.clock.moment)
        reply = self.answers.pop(0) if self.answers else Answer("sent", f"w{len(self.sent)}")
        return reply if isinstance(reply, Answer) else await reply(message)

    async def typing(self, external_id: str) -> None: ...

    def genuine(self, headers: Mapping[str, str], raw: bytes) -> bool:
        return True

    def handshake(self, query: Mapping[str, str]) -> str | None:
        return None

    def read(self, raw: bytes) -> Batch:
        return Batch()

    async def close(self) -> None: ...

    @property
    def bodies(self) -> list[str]:
        """The texts, or the templates' names, in the order in which they were sent."""
        return [m.content.name if isinstance(m.content, Template) else m.content.body for m in self.sent]


class Told:
    """Stands in for the flow."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.refuses: dict[str, str] = {}
        """Why a message of that kind must not go any more."""

    def allows(self, message: MessageRow, now: int) -> Steps[str | None]:
        yield from ()
        return self.refuses.get(message.kind)

    def accepted(self, message: MessageRow, at: int) -> Steps[None]:
        self.told.append(("accepted", message.ref))
        yield from ()

    def delivered(self, message: MessageRow, at: int) -> Steps[None]:
        self.told.append(("delivered", message.ref))
        yield from ()

    def failed(self, message: MessageRow, reason: str, verdict: Verdict) -> Steps[None]:
        self.told.append(("failed", message.ref, verdict))
        yield from ()

    def going_on(self, message: MessageRow, at: int) -> Steps[None]:
        self.told.append(("going on", message.ref))
        yield from ()


class Stage:
    """An application with one channel, and people who wrote just now."""

    def __init__(self, app: OnCue, clock: TestClock, messenger: Messenger, channel: Channel, flow: Told) -> None:
        self.app, self.clock, self.messenger, self.channel, self.flow = app, clock, messenger, channel, flow
        self.outbox: Outbox = channel.outbox
        self.settle = self.outbox.settle
        self._lives: list[LifeLock] = []
        self._numbers = 0

    @property
    def now(self) -> int:
        return self.clock.now()

    async def change(self, steps: Callable[[], Steps[Any]]) -> Any:
        return await self.app.store.change(steps, self.now, locked=True)

    async def person(self, *, heard: float | None = 0, zone: str | None = None) -> int:
        """A new person, who wrote so many seconds ago (None: never)."""
        self._numbers += 1

        def steps() -> Steps[int]:
            id = yield ask(
                "add_person", channel="line", address=f"1650{self._numbers}", user_id=None, name=None, now=self.now
            )
            if heard is not None:
                yield run("person_heard", id=id, name=None, at=self.now - round(heard * SECOND))
            return int(id)

        made: int = await self.change(steps)
        if zone is not None:
            row = await self.person_row(made)
            await self.change(lambda: _set_person(row, timezone=zone))
        return made

    async def person_row(self, id: int) -> PersonRow:
        found = await self.app.store.look(lambda: one(PersonRow, "person_by_id", id=id))
        assert found is not None
        return found

    async def set_person(self, id: int, **values: Any) -> None:
        row = await self.person_row(id)
        await self.change(lambda: _set_person(row, **values))

    async def queue(self, person: int, body: str = "hello", *, after: float = 0, **options: Any) -> str:
        """Queue a message, a question unless said otherwise, and return its ref."""
        content = options.pop("content", Text(body))
        kind = options.pop("kind", "question")
        due = self.now + round(after * SECOND)
        new = NewMessage(person=person, kind=kind, content=content, due=due, **options)
        await self.change(lambda: self.outbox.queue(new, self.now))
        self.app.wake.hint(due)
        return new.ref

    async def message(self, ref: str) -> MessageRow:
        def steps() -> Steps[MessageRow | None]:
            id = yield ask("message_id_by_ref", ref=ref)
            return (yield from one(MessageRow, "message_to_settle", id=id))

        found = await self.app.store.change(steps)
        assert found is not None
        return found

    async def state(self, ref: str) -> str:
        return (await self.message(ref)).state

    async def channel_row(self) -> ChannelRow:
        return cast("ChannelRow", await self.app.store.change(self.settle.load_channel))

    async def set_channel(self, **values: Any) -> None:
        """Set what the intake keeps of the channel."""
        if "heard_at" in values:
            await self.change(lambda: _run("channel_heard", channel="line", now=values["heard_at"]))
        if "seen_at" in values:
            await self.change(lambda: _run("intake_runs", channel="line", now=values["seen_at"], gap=values["gap"]))

    async def alive(self) -> None:
        """The intake says that it runs."""
        await self.set_channel(seen_at=self.now, gap=15 * SECOND)

    async def drain(self) -> None:
        """Do what is due now; the throughput limit lets one message go each microsecond."""
        await self.advance(0.001)

    async def advance(self, seconds: float, *, alive: bool = False) -> None:
        """Move the clock on from due time to due time; the intake, where ``alive``, says every 10 s that it runs."""
        end = self.now + round(seconds * SECOND)
        done = await self.app.drain()
        while self.now < end:
            due = end if done.next_due is None else max(to_us(done.next_due), self.now + 1)
            step = min(due, end, self.now + 10 * SECOND) if alive else min(due, end)
            self.clock.set(from_us(step))
            if alive:
                await self.alive()
            done = await self.app.drain()

    async def status(self, status: str, external_id: str, *, echo: str | None = None, **more: Any) -> None:
        at = more.pop("at", self.now // SECOND * SECOND)
        heard = Status(external_id, status, at, echo, **more)
        await self.change(lambda: self.settle.status(heard, self.now))
        await self.set_channel(heard_at=self.now)
        self.app.wake.hint(self.now)

    async def events(self, person: int) -> list[tuple[str, str]]:
        return [
            (kind, text)
            for kind, text in await self.sql(f"SELECT kind, text FROM oncue_event WHERE person = {person} ORDER BY id")
        ]

    async def sql(self, text: str) -> list[tuple[Any, ...]]:
        """What a query behind the application's back finds."""
        raise NotImplementedError

    async def sql_run(self, text: str) -> None:
        """Change rows behind the application's back."""
        raise NotImplementedError

    async def claim(self, ref: str) -> Attempt:
        """Claim a message's job as a worker that is about to die."""
        row = WorkerRow(0, "doomed", "elsewhere", 1, None, self.now, self.now, self.now + LEASE)
        worker, life = await self.app.store.register(row)
        self._lives.append(life)
        found = await self.app.store.claim(Claim(worker, self.now, self.now, LEASE, 100, policy=self.app.policy))
        (job,) = [job for job in found.jobs if job.key == f"message-{ref}"]
        return Attempt(self, ref, job)

    async def rescue(self) -> None:
        """Take back what workers held whose leases have ended."""
        await self.app.store.rescue(self.now, None)

    def close(self) -> None:
        for life in self._lives:
            life.release()


class Attempt:
    """One attempt of a job in the hands of a worker that a test controls."""

    def __init__(self, stage: Stage, ref: str, job: Claimed) -> None:
        self.stage, self.ref, self.job = stage, ref, job
        self.context = JobContext(job, {}, _no_report, asyncio.get_running_loop(), _no_report)

    async def run(self) -> None:
        await self.stage.outbox.send(self.ref, self.context)


def _no_report(*_args: Any) -> Any:
    raise NotImplementedError


def _run(name: str, **values: Any) -> Steps[None]:
    yield run(name, **values)


def _set_person(row: PersonRow, **values: Any) -> Steps[None]:
    fields: Iterable[str] = (
        "address", "user_id", "name", "timezone", "heard_at", "opted_out_at", "no_marketing_at", "stopped",
        "human_since", "wait_until", "refusals", "created_at",
    )  # fmt: skip
    yield run("set_person", id=row.id, **({name: getattr(row, name) for name in fields} | values))


@asynccontextmanager
async def stage(
    backend: Backend, messenger: Messenger | None = None, start: datetime = NOON, **options: Any
) -> AsyncIterator[Stage]:
    """An application of its own on this database. Nothing is quiet unless asked for."""
    clock = TestClock(start)
    transport = messenger or Messenger()
    transport.clock = clock
    app = OnCue(backend.url, clock=clock)
    options.setdefault("quiet", None)
    options.setdefault("reconcile_for", R)
    channel = app.channel(transport, **options)
    flow = Told()
    channel._flow = cast("Flow", flow)

    class Ours(Stage):
        async def sql(self, text: str) -> list[tuple[Any, ...]]:
            from oncue.store.postgres.run import qualified

            with backend.connect() as conn:
                found = conn.execute(text if backend.is_sqlite else qualified(text, "oncue"))
                return [tuple(row) for row in found.fetchall()]

        async def sql_run(self, text: str) -> None:
            backend.execute(text)

    async with app:
        made = Ours(app, clock, transport, channel, flow)
        await made.alive()
        try:
            yield made
        finally:
            made.close()
