"""Hints over PostgreSQL's LISTEN and NOTIFY, with proof that they arrive, and looking often while they don't."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from oncue.channel import channel_of, is_probe, probe_text, read_hint
from oncue.dsn import PostgresUrl, each_host, parse
from oncue.wake import UNPROVED, Send
from oncue.wake.hub import Heard, Hub
from oncue.wake.pause import Pause

log = logging.getLogger("oncue.wake")
_DIRECT = 'Give LISTEN a URL of its own that leads straight to the server: OnCue(url, wake="postgresql://...").'
# Ours for the time of the connection: it is idle for hours, and one whose client is gone holds up the queue of hints.
_SESSION = (
    "SET idle_session_timeout = 0; SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; "
    "SET tcp_keepalives_count = 3"
)


@dataclass(frozen=True, slots=True)
class Timing:
    """How often what is done, in seconds."""

    probe_every: float = 60.0
    prove_within: float = 5.0
    """So long a connection, and after it a probe, may take."""
    poll_every: float = 0.5
    first_pause: float = 1.0
    longest_pause: float = 60.0


@dataclass(slots=True)
class Stats:
    """Counts since the start, for metrics."""

    hints: int = 0
    probes: int = 0
    probes_lost: int = 0
    reconnects: int = 0
    """How often it was tried to connect again."""
    polls: int = 0


class _Dead(Exception):
    """The channel doesn't work; the text says why."""


class PostgresWake:
    """Hears what transactions NOTIFY on the schema's channel, over one connection of its own.

    It connects when somebody first listens, so a process that only schedules holds no connection for it. What is heard
    counts only while it is proved: after connecting and every ``probe_every`` a notification to ourselves is sent
    through the store's connection and has to arrive. While it isn't proved, listeners are told None every
    ``poll_every``, and the channel is tried again, with growing pauses.
    """

    hears_commits = False
    timers = True
    carrier = None

    def __init__(self, database: str, send: Send, listen_url: str | None = None, timing: Timing | None = None) -> None:
        """Raises ConfigError for a URL that is none."""
        store = parse(database)
        self._url: PostgresUrl = store if listen_url is None else parse(listen_url)
        self._channel = channel_of(store.schema)
        self._send, self._timing = send, timing or Timing()
        self._hub = Hub(f"{store.dsn} {self._channel}")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._poller: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._warned = False
        self._proved = False
        self._probe: tuple[str, asyncio.Future[None]] | None = None
        self._flushing = self._changed = False
        self._earliest: int | None = None
        self._pause = Pause()
        self.stats = Stats()

    @property
    def counts(self) -> dict[str, int]:
        """What came since the start."""
        found = self.stats
        return {
            "sent": self._hub.sent,
            "heard": found.hints,
            "lost": found.probes_lost,
            "reconnects": found.reconnects,
            "polls": found.polls,
        }

    @property
    def healthy(self) -> str | None:
        """None, or why hints of others are noticed by looking only, and what to do."""
        return self._problem

    async def start(self) -> None:
        """Be ready to listen on this loop. Whether the server can be reached shows later, in ``healthy``."""
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Disconnect, and forget the listeners. ``healthy`` keeps saying what was last known."""
        self._hub.clear()
        mine = self._loop is asyncio.get_running_loop()
        tasks = [task for task in (self._task, self._poller) if mine and task is not None and not task.done()]
        self._loop = self._task = self._poller = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Have ``heard`` called on the running loop for each hint, and with None once the channel is proved."""
        unlisten = self._hub.listen(heard)
        if self._loop is asyncio.get_running_loop():
            self._begin()
        elif self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin)
        return unlisten

    def reconnect(self) -> None:
        """Don't wait for the next try, or the next proof: make it now."""
        self._pause.end()

    def hint(self, due: int) -> None:
        """Tell every listener of this database in this process; others hear what the transaction has sent."""
        self._hub.tell_all(due)

    def _begin(self) -> None:
        if self._loop is not None and self._task is None:
            self._unproved(f"The LISTEN connection to {self._url.shown} {UNPROVED}.")
            self._task = self._loop.create_task(self._keep_listening())

    async def _keep_listening(self) -> None:
        if self._url.pooled:
            why = f"{self._url.shown} says pgbouncer=true, and such a pooler can't LISTEN. {_DIRECT}"
            self._unproved(why, warn=True)
            return
        while True:
            self._proved = False
            try:
                await self._session()
            except _Dead as error:
                self._unproved(str(error), warn=True)
            except asyncpg.TargetServerAttributeNotMatched:
                why = f"{self._url.shown} takes no writes now, and a standby can't LISTEN."
                self._unproved(why, warn=True)
            except TimeoutError:
                within = self._timing.prove_within
                self._unproved(f"{self._url.shown} gave no LISTEN connection within {within:g} s. {_DIRECT}", warn=True)
            except Exception as error:
                self._unproved(f"LISTEN on {self._url.shown} failed: {str(error) or type(error).__name__}.", warn=True)
            await self._pause.between(self._timing.first_pause, self._timing.longest_pause, worked=self._proved)
            self.stats.reconnects += 1

    async def _session(self) -> None:
        """Connect, prove, and prove again and again. Ends by raising why it can't go on."""
        connection = await self._connect()
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connection.add_termination_listener(lambda _: _settle(lost))
        try:
            await connection.add_listener(self._channel, self._notified)
            await self._prove(lost)
            # Only now, since through a pooler they would stay with somebody else's connection.
            await connection.execute(_SESSION)
            self._alive()
            while not lost.done():
                await self._pause.wait(self._timing.probe_every, lost)
                if not lost.done():
                    await self._prove(lost)
            raise _Dead(f"The LISTEN connection to {self._url.shown} broke.")
        finally:
            with contextlib.suppress(Exception):
                await connection.close(timeout=1)

    async def _connect(self) -> asyncpg.Connection[Any]:
        """Connect to the first host that takes writes.

        Each gets its share of the time, so that one that is silent doesn't keep us from the next.
        """
        hosts, within = each_host(self._url.dsn), self._timing.prove_within
        failures: list[Exception] = []
        for host in hosts:
            try:
                return await asyncpg.connect(
                    host,
                    timeout=within / len(hosts),
                    command_timeout=within,
                    server_settings={"application_name": "oncue wake"},
                    # A pooler that we don't know of must not be left with our prepared statements.
                    statement_cache_size=0,
                    # A standby can't LISTEN.
                    target_session_attrs=SessionAttribute.read_write,
                )
            except Exception as error:
                failures.append(error)
        # That one takes no writes says more than that another is away.
        raise next((one for one in failures if isinstance(one, asyncpg.TargetServerAttributeNotMatched)), failures[-1])

    async def _prove(self, lost: asyncio.Future[None]) -> None:
        """Send ourselves a notification and wait for it."""
        within = self._timing.prove_within
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        token = secrets.token_hex(8)
        self._probe = (probe_text(token), arrived)
        self.stats.probes += 1
        sent = False
        try:
            async with asyncio.timeout(within):
                await self._send(probe_text(token))
                sent = True
                await asyncio.wait({arrived, lost}, return_when=asyncio.FIRST_COMPLETED)
        except Exception as error:
            if not sent:
                self.stats.probes_lost += 1
                said = str(error) or f"no answer within {within:g} s"
                raise _Dead(f"The store could not send the notification that proves LISTEN: {said}.") from error
        finally:
            self._probe = None
        # A loop that stood still may find the notification and the timeout at once.
        if not arrived.done() and not lost.done():
            self.stats.probes_lost += 1
            raise _Dead(
                f"A notification to ourselves did not arrive on the LISTEN connection to {self._url.shown} within "
                f"{within:g} s. Either the connection hangs, or it leads to another database, or a pooler is between "
                f"(PgBouncer in transaction mode can't LISTEN). {_DIRECT}"
            )

    def _alive(self) -> None:
        self._proved = True
        self._problem = None
        if self._poller is not None:
            self._poller.cancel()
            self._poller = None
        if self._warned:
            self._warned = False
            log.info("LISTEN on %s works again: hints of other processes arrive at once.", self._url.shown)
        self._hub.tell_mine(None)

    def _unproved(self, why: str, *, warn: bool = False) -> None:
        every = self._timing.poll_every
        self._problem = f"{why} Until it works, jobs of other processes are noticed by looking every {every:g} s."
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        if warn and not self._warned:
            self._warned = True
            log.warning("%s", self._problem)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._timing.poll_every)
            self.stats.polls += 1
            self._hub.tell_mine(None)

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        text = str(payload)
        if is_probe(text):
            if self._probe is not None and self._probe[0] == text:
                _settle(self._probe[1])
            return
        self.stats.hints += 1
        due = read_hint(text)
        if due is None:
            self._changed = True
        else:
            self._earliest = due if self._earliest is None else min(due, self._earliest)
        # All that came in one piece is told as one hint, however many transactions sent it.
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        due = None if self._changed else self._earliest
        self._flushing, self._changed, self._earliest = False, False, None
        self._hub.tell_mine(due)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
