"""The intake: an update is proved genuine, stored as received with the jobs that handle it, and answered.

All that follows happens in these jobs, so the answer never waits for it; and what was answered with 200 is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncue.clock import SECOND
from oncue.conversation import people
from oncue.conversation.batches import content_of, read
from oncue.conversation.people import Named
from oncue.conversation.receive import add_jobs
from oncue.conversation.trouble import told
from oncue.errors import StoreError
from oncue.store.steps import Steps, ask, inbox, run
from oncue.transport import Batch, Inbound, Replies
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.app import OnCue
    from oncue.conversation.channels import Channel

log = logging.getLogger("oncue.conversation")
MOST_BYTES = 3 * 1024 * 1024
"""The largest update that is taken: WhatsApp's are up to 3 MB."""
BEAT = 5.0
"""Seconds between two words of the intake that it runs."""
_GAP = 15 * SECOND
_HEARD_EVERY = SECOND
_CHARGE_EVERY = 0.1
_NOTE = 2_000


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of an update: the HTTP status, and the JSON of the answer (empty: none)."""

    status: int
    body: bytes = b""
    error: StoreError | None = None


class Intake:
    """Takes the updates of one channel. ``take`` may be called from any number of requests at once."""

    def __init__(self, app: OnCue, channel: Channel) -> None:
        self.app, self.channel = app, channel
        self._refusing = False
        self._heard = 0
        self._owed = self._owed_at = 0
        self._charging: asyncio.Task[None] | None = None

    def handshake(self, query: Mapping[str, str]) -> str | None:
        """Answer the messenger's question whether this is our address for updates; None: a wrong or no question."""
        return self.channel.transport.handshake(query)

    async def take(self, headers: Mapping[str, str], raw: bytes) -> Taken:
        """Store an update and what is to be done about it. ``headers`` have lower-case names.

        401 where it is not from the messenger; 503 where it could not be stored, so that the messenger sends it again;
        else 200, also for what can't be read: that is kept, and would be no clearer the next time.
        """
        transport = self.channel.transport
        if not transport.genuine(headers, raw):
            self._refused()
            return Taken(401)
        self._refusing = False
        batch = read(transport, raw)
        try:
            async with self.app:
                now = self.app.clock.now()
                update, new = await self.app.store.change(lambda: self._store(raw, batch, now), now)
        except StoreError as error:
            return Taken(503, error=error)
        self._heard = max(self._heard, now) if now - self._heard >= _HEARD_EVERY else self._heard
        self.app.wake.hint(now)
        if batch.unread:
            # Why is not for the log: it may quote what people write.
            log.warning(
                "channel %s: %s of an update can't be used: see note and raw of row %d of oncue_update",
                self.channel.name, counted(len(batch.unread), "item"), update,
            )  # fmt: skip
        if new < len(batch.inbound):
            known = counted(len(batch.inbound) - new, "message")
            log.info("channel %s: an update repeats %s: nothing follows again", self.channel.name, known)
        self._charge(new, now)
        return Taken(200, transport.reply(raw) if isinstance(transport, Replies) else b"")

    def _store(self, raw: bytes, batch: Batch, now: int) -> Steps[tuple[int, int]]:
        """Store all of it; return the update's number, and how many messages were new."""
        channel = self.channel
        note = "; ".join(batch.unread)[:_NOTE] or None
        update = yield from inbox.add_update(channel.name, raw, note, now, channel.updates_expire_at(now))
        if now - self._heard >= _HEARD_EVERY:
            yield run("channel_heard", channel=channel.name, now=now)
        messages: list[Inbound] = []
        for one in batch.inbound:
            if one.moved_to is None or not (yield from self._known(one)):
                messages.append(one)  # noqa: PERF401 - nothing else can yield
        named = [people.sender_of(one, now) for one in messages]
        named += [Named(one.person) for one in batch.preferences]
        found = (yield from people.resolve(channel.name, named, now)) if named else []
        for preference, who in zip(batch.preferences, found[len(messages) :], strict=True):
            yield from people.prefer(who.id, preference)
        rows = [
            inbox.Incoming(one.external_id, who.lane, one.kind, content_of(one), one.sent_at)
            for one, who in zip(messages, found, strict=False)
        ]
        new, lanes = yield from inbox.add_inbound(channel.name, rows, now)
        yield from add_jobs(channel, update, lanes, bool(batch.statuses), now)
        return update, new

    def _known(self, inbound: Inbound) -> Steps[bool]:
        """Tell whether it was stored before: told once more, a number that somebody gave up would name a new person."""
        heard = yield ask("chat_inbound_heard", channel=self.channel.name, external_id=inbound.external_id)
        return heard is not None

    def _refused(self) -> None:
        """Say in the log that updates are refused: the first since a good one, so that nobody can flood it."""
        if not self._refusing:
            log.warning(
                "channel %s: an update was refused, as nothing proves that it comes from the messenger; the next ones "
                "are not logged",
                self.channel.name,
            )
        self._refusing = True

    def _charge(self, count: int, now: int) -> None:
        """Have messages count against the channel's throughput: soon, and many together, as that waits for claims."""
        if count and self.channel.transport.inbound_counts:
            self._owed += count
            self._owed_at = max(self._owed_at, now)
            if self._charging is None or self._charging.done():
                self._charging = asyncio.create_task(self._pay())

    async def _pay(self) -> None:
        while self._owed:
            await asyncio.sleep(_CHARGE_EVERY)
            count, self._owed = self._owed, 0
            # As of when they came: what is due since then doesn't wait for them.
            now = self._owed_at
            try:
                async with self.app:
                    await self.app.store.change(
                        lambda: self.channel.outbox.charge(count, now),  # noqa: B023 - called before the next round
                        locked=True,
                    )
            except StoreError as error:
                said = counted(count, "message doesn't", "messages don't")
                log.warning("channel %s: %s count against its rate: %s", self.channel.name, said, error)

    async def settle(self) -> None:
        """Wait until all that was taken also counts against the channel's throughput."""
        if self._charging is not None:
            await asyncio.wait({self._charging})


class Heartbeat:
    """Says that the intake runs: only where that was so without a gap does silence tell that nothing was sent."""

    def __init__(self, app: OnCue) -> None:
        self._app = app
        self._last = float("-inf")
        self._failing = False
        self._beats: asyncio.Task[None] | None = None

    async def beat(self) -> None:
        """Say it for every channel, unless that was said a moment ago. Trouble with the database is logged once."""
        if time.monotonic() - self._last < BEAT * 0.9 or not self._app.channels:
            return
        self._last = time.monotonic()

        def steps() -> Steps[None]:
            for name in sorted(self._app.channels):
                yield run("intake_runs", channel=name, now=now, gap=_GAP)

        try:
            async with self._app:
                now = self._app.clock.now()
                await self._app.store.change(steps)
            self._failing = False
        except StoreError as error:
            if not self._failing:
                log.error("the intake of updates can't say that it runs; it is tried again: %s", error)
            self._failing = True

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Say it again and again for the length of an ``async with`` block."""

        self.begin()
        assert self._beats is not None
        try:
            yield
        finally:
            self._beats.cancel()
            await asyncio.wait({self._beats})

    def begin(self) -> None:
        """Say it again and again for as long as the running loop lives, unless that has begun already."""
        if self._beats is None:
            self._beats = asyncio.create_task(self._go_on())
        elif self._beats.get_loop() is not asyncio.get_running_loop():
            # Whoever serves each request on a loop of its own is alive as long as requests come.
            self._beats = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        while True:
            try:
                await self.beat()
            except Exception as error:
                log.error("the intake of updates can't say that it runs; it is tried again: %s", told(error))
            await asyncio.sleep(BEAT)
