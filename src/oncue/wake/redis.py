"""Hints over Redis beside those of the database, and a BullMQ queue that carries announcements of jobs."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from oncue.channel import read_hint
from oncue.errors import ConfigError
from oncue.redis_link import Server, ask, client, driver, end, waiting_client
from oncue.redis_trouble import meaning
from oncue.redis_url import RedisUrl
from oncue.wake import UNPROVED
from oncue.wake.bullmq import Carrier, Stats
from oncue.wake.hub import Heard, Hub
from oncue.wake.pause import Pause
from oncue.wake.publish import Publisher

if TYPE_CHECKING:
    from oncue.wake import Wake

log = logging.getLogger("oncue.wake")
_PROOF = "proof"
_CLOSING = 5.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How often what is done, in seconds."""

    prove_every: float = 30.0
    prove_within: float = 5.0
    """So long a connection, and after it a proof, may take."""
    first_pause: float = 0.2
    longest_pause: float = 5.0


class _Lost(Exception):
    """The connection doesn't work; the text says why."""


class RedisWake:
    """The database's own wake queue, and hints over a Redis channel; with BullMQ also what carries announcements.

    It connects when somebody first listens. What is published counts only while it is proved: after connecting and
    every ``prove_every`` a message to ourselves has to arrive. While Redis is away, the database's own hints and the
    workers' timers do all the work; it is tried again with pauses, and listeners are told None when it is back.
    """

    def __init__(self, url: RedisUrl, inner: Wake, timing: Timing | None = None) -> None:
        """Raises ConfigError where the drivers aren't installed, or can't use the URL."""
        self._url, self._inner, self._timing = url, inner, timing or Timing()
        self.hears_commits = inner.hears_commits
        self.timers = url.timers
        self.stats = Stats()
        self._channel = f"{url.prefix}:{url.queue}:oncue-hints"
        self._hub = Hub(f"{url.shown} {id(self)}")
        self._token = secrets.token_hex(8)
        self._lost: asyncio.Future[None] | None = None
        self.carrier: Carrier | None = None
        if url.mode == "bullmq":
            driver("bullmq")
            self.carrier = Carrier(url, self.stats, self._break_off)
        driver()
        self._publisher = Publisher(
            lambda: waiting_client(url, answer=self._timing.prove_within),
            self._channel,
            lambda due: f"{self._token} {due}",
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._warned = False
        self._proved = False
        self._proof: asyncio.Future[None] | None = None
        self._pause = Pause()

    @property
    def unsent(self) -> int:
        """How many hints of this process could not be published."""
        return self._publisher.unsent

    @property
    def counts(self) -> dict[str, int]:
        """What came since the start, the database's own hints counted too."""
        found, sums = asdict(self.stats), self._inner.counts
        sums["heard"] += found.pop("hints")
        sums["lost"] += self.unsent
        sums["reconnects"] = sums.get("reconnects", 0) + found.pop("reconnects")
        return sums | {f"carrier_{name}": count for name, count in found.items()}

    @property
    def healthy(self) -> str | None:
        """None, or what is wrong with Redis and what happens instead."""
        problem = self._problem or (self.carrier.problem if self.carrier is not None else None)
        if problem is None:
            return None
        if not self.timers:
            instead = "Until it works, jobs start up to a sweep late, since timers=off leaves their start to BullMQ."
        else:
            instead = "Until it works, jobs start by the workers' own timers"
            inner = self._inner.healthy
            hints = ", and hints come from the database." if self._problem else "."
            instead += f". {inner}" if inner else hints
        return f"{problem} {instead}"

    async def start(self) -> None:
        """Be ready to listen on this loop. Whether Redis can be reached shows later, in ``healthy``."""
        self._loop = asyncio.get_running_loop()
        await self._inner.start()

    async def close(self) -> None:
        """Disconnect, and forget the listeners. ``healthy`` keeps saying what was last known."""
        self._hub.clear()
        mine = self._loop is asyncio.get_running_loop()
        task, self._task, self._loop = self._task, None, None
        if mine and task is not None:
            await end(task, again=_CLOSING)
        await self._inner.close()
        await asyncio.to_thread(self._publisher.close)

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Have ``heard`` called on the running loop for each hint, and with None once Redis is proved."""
        unlisten_inner, unlisten = self._inner.listen(heard), self._hub.listen(heard)
        if self._loop is asyncio.get_running_loop():
            self._begin()
        elif self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin)

        def end() -> None:
            unlisten_inner()
            unlisten()

        return end

    def reconnect(self) -> None:
        """Don't wait for the next try, or the next proof: make it now; and so for the database's own hints."""
        self._pause.end()
        self._inner.reconnect()

    def hint(self, due: int) -> None:
        """Tell every listener of this database in this process, and others over Redis."""
        self._inner.hint(due)
        self._publisher.send(due)

    def _begin(self) -> None:
        if self._loop is not None and self._task is None:
            self._problem = f"The connection to Redis at {self._url.shown} {UNPROVED}."
            self._task = self._loop.create_task(self._keep_connected())

    async def _keep_connected(self) -> None:
        while True:
            self._proved = False
            try:
                await self._session()
            except (_Lost, ConfigError) as error:
                self._trouble(str(error))
            except Exception as error:
                self._trouble(f"Redis at {self._url.shown} failed: {meaning(error, self._url)}.")
            await self._pause.between(self._timing.first_pause, self._timing.longest_pause, worked=self._proved)
            self.stats.reconnects += 1

    async def _session(self) -> None:
        """Connect, prove, and prove again and again. Ends by raising why it can't go on."""
        self._lost = lost = asyncio.get_running_loop().create_future()
        # A cluster passes messages on to all its nodes, so one link to any of them is enough for these.
        link = client(self._url, retries=0)
        work: Any = None
        pubsub = link.pubsub()
        reading: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(self._timing.prove_within):
                server = await ask(link, self._url)
                await pubsub.subscribe(self._channel)
            reading = asyncio.create_task(self._read(pubsub))
            await self._prove(link, reading)
            if self.carrier is not None:
                work = client(self._url, cluster=server.cluster)
                self.carrier.connect(work, server)
            self._alive(server)
            while True:
                await self._pause.wait(self._timing.prove_every, lost, reading)
                if lost.done():
                    lost.result()
                await self._prove(link, reading)
        except TimeoutError:
            raise _Lost(f"Redis at {self._url.shown} did not answer within {self._timing.prove_within:g} s.") from None
        finally:
            self._lost = None
            if reading is not None:
                await end(reading)
            if self.carrier is not None:
                await self.carrier.disconnect()
            await pubsub.aclose()
            for each in (link, work):
                if each is not None:
                    await asyncio.gather(each.aclose(), return_exceptions=True)

    async def _read(self, pubsub: Any) -> None:
        while True:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=None)
            if message is not None:
                self._got(str(message["data"]))

    def _got(self, text: str) -> None:
        token, _, said = text.partition(" ")
        if token == self._token:
            # Our own listeners were told before it was sent.
            if said == _PROOF and self._proof is not None and not self._proof.done():
                self._proof.set_result(None)
            return
        if said != _PROOF:
            self.stats.hints += 1
            self._hub.tell_mine(read_hint(said))

    async def _prove(self, link: Any, reading: asyncio.Task[None]) -> None:
        """Send ourselves a message and wait for it."""
        self._proof = arrived = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timing.prove_within):
                if not reading.done():
                    await link.publish(self._channel, f"{self._token} {_PROOF}")
                    await asyncio.wait({arrived, reading}, return_when="FIRST_COMPLETED")
                if not arrived.done():
                    await reading
        finally:
            self._proof = None

    def _break_off(self, error: BaseException) -> None:
        """The carrier's connection is lost."""
        if self._lost is not None and not self._lost.done():
            self._lost.set_exception(_Lost(f"Redis at {self._url.shown} failed: {meaning(error, self._url)}."))

    def _alive(self, server: Server) -> None:
        self._proved, self._problem = True, None
        if self._warned:
            self._warned = False
            log.info("Redis at %s works again.", self._url.shown)
        if server.remark is not None:
            log.warning("Redis at %s %s.", self._url.shown, server.remark)
        self._hub.tell_mine(None)

    def _trouble(self, why: str) -> None:
        self._problem = why
        # Whoever tells operators of it looks while it lasts.
        self._hub.tell_mine(None)
        if not self._warned:
            self._warned = True
            log.warning("%s", self.healthy)
