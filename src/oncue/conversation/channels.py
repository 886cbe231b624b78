"""Channels: a transport on an application, with its options and the four tasks that carry its conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from oncue.clock import seconds_to_us
from oncue.conversation.polite import Quiet, checked_zone
from oncue.conversation.words import OPT_IN, OPT_OUT, folded, words_of
from oncue.errors import ConfigError, InvalidJob, InvalidTime
from oncue.limits import Limit
from oncue.retry import Exponential, Retry
from oncue.task import DiscardedJob, Task, TaskOptions, checked_name, make_task
from oncue.transport import Inbound, Transport

if TYPE_CHECKING:
    from oncue.app import OnCue
    from oncue.conversation.flow import Flow
    from oncue.conversation.outbox import Outbox
    from oncue.declare import Declarations


Span = float | timedelta


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """How a channel treats people. Times are in seconds or ``timedelta``.

    ``max_age``: an older message of a person gets no reply (such come in floods after an outage).
    ``reconcile_for``: how long an unknown outcome waits for a status before it is decided.
    ``stale``: a reminder that is later than this is skipped. ``quiet``: when no reminders go out, None: never.
    ``timezone``: of people of whom none is known (an IANA name).
    ``send_rate``: messages a second, those of people included where the messenger counts them; None: as much as the
    transport says.
    ``unique_per_day``: people who may be reached in 24 hours outside the window, as the messenger allows; None: all.
    ``opt_out`` and ``opt_in``: words, compared whole without case and accents, by which people leave and come back.
    ``retention``: how long conversations that have ended are kept with their messages, None: for ever;
    ``keep_updates``: how long updates are kept as they were received, None: for ever.
    Raises ConfigError for a value that can't work.
    """

    max_age: Span = 3600.0
    reconcile_for: Span = 60.0
    stale: Span = 1800.0
    quiet: Quiet | None = Quiet("21:00", "08:00")
    timezone: str = "UTC"
    send_rate: float | None = None
    unique_per_day: int | None = None
    opt_out: tuple[str, ...] = field(default_factory=lambda: words_of(OPT_OUT))
    opt_in: tuple[str, ...] = field(default_factory=lambda: words_of(OPT_IN))
    retention: Span | None = timedelta(days=90)
    keep_updates: Span | None = timedelta(days=30)

    def __post_init__(self) -> None:
        for name in ("max_age", "reconcile_for", "stale", "retention", "keep_updates"):
            value = getattr(self, name)
            try:
                if value is not None or name in ("max_age", "reconcile_for", "stale"):
                    seconds_to_us(value)
            except InvalidTime as error:
                raise ConfigError(f"{name}: {error}") from error
        if self.unique_per_day is not None and self.unique_per_day < 1:
            raise ConfigError(f"unique_per_day is at least 1, not {self.unique_per_day!r}.")
        if self.send_rate is not None and not self.send_rate > 0:
            raise ConfigError(f"send_rate is above 0 messages a second, not {self.send_rate!r}.")
        checked_zone(self.timezone)

    @property
    def opt_out_words(self) -> frozenset[str]:
        """The words by which people leave, as they are compared."""
        return folded(self.opt_out)

    @property
    def opt_in_words(self) -> frozenset[str]:
        """The words by which people come back, as they are compared."""
        return folded(self.opt_in)


@dataclass(frozen=True, slots=True)
class ChannelTasks:
    """The tasks of a channel: what came in for a person, statuses, one message to send, a conversation to go on."""

    receive: Task[[int, int], None]
    status: Task[[int], None]
    send: Task[[str], None]
    advance: Task[[int, int], None]


class Channel:
    """A transport on an application. Its ``name`` names its queue too; sends have one of their own, NAME.send."""

    def __init__(self, app: OnCue, transport: Transport, options: ChannelOptions) -> None:
        self.app, self.transport, self.options = app, transport, options
        self.name = transport.name
        self.tasks = _make_tasks(self)
        self.read: dict[int, Mapping[str, Inbound]] = {}
        """The last updates with several messages, as they were read: by their numbers, then by the messages' ids."""
        self._flow: Flow | None = None
        self._outbox: Outbox | None = None

    @property
    def queue(self) -> str:
        """The queue of the channel's jobs."""
        return self.name

    @property
    def flow(self) -> Flow:
        """What conversations on this channel do."""
        if self._flow is None:
            from oncue.conversation.flow import Flow

            self._flow = Flow(self)
        return self._flow

    @property
    def outbox(self) -> Outbox:
        """The messages on their way to the channel's people."""
        if self._outbox is None:
            from oncue.conversation.outbox import Outbox

            self._outbox = Outbox(self, self.flow)
        return self._outbox

    def lane(self, person: int) -> str:
        """Return the group of all jobs about one person, so that they run one after the other."""
        return f"{self.name}:{person}"

    def expires_at(self, now: int) -> int | None:
        """Return until when a conversation that ends now is kept; None: for ever."""
        retention = self.options.retention
        return None if retention is None else now + seconds_to_us(retention)

    def updates_expire_at(self, now: int) -> int | None:
        """Return until when an update that came now is kept as received; None: for ever."""
        return None if self.options.keep_updates is None else now + seconds_to_us(self.options.keep_updates)

    def __repr__(self) -> str:
        return f"<channel {self.name}>"


# What a conversation's own function may take is 30 s; this is for what is around it.
_TIMEOUT = 120.0


def _make_tasks(channel: Channel) -> ChannelTasks:
    async def receive(update: int, person: int) -> None:
        from oncue.conversation import receive as room

        await room.receive(channel, update, person)

    async def status(update: int) -> None:
        from oncue.conversation import receive as room

        await room.status(channel, update)

    async def send(ref: str) -> None:
        from oncue.context import current_job

        await channel.outbox.send(ref, current_job())

    async def advance(chat: int, version: int) -> None:
        await channel.flow.advance(chat, version)

    async def given_up(job: DiscardedJob) -> None:
        await channel.flow.given_up(job)

    name, rate = channel.name, _send_rate(channel)
    pair = channel.transport.pair
    plain = TaskOptions(timeout=_TIMEOUT, queue=name)
    return ChannelTasks(
        receive=make_task(receive, f"{name}.receive", (), plain),
        status=make_task(status, f"{name}.status", (), plain),
        send=make_task(
            send,
            f"{name}.send",
            (),
            TaskOptions(
                # Whether a message is given up is the outbox's to say; what is between attempts holds nobody up.
                retry=Retry(max_attempts=1000, delay=Exponential(maximum=60.0)),
                timeout=_TIMEOUT,
                # A channel that is stopped still hears people.
                queue=f"{name}.send",
                limit=Limit(rate),
                group_limit=None if pair is None else Limit(*pair),
                on_retry="yield",
            ),
        ),
        advance=make_task(advance, f"{name}.advance", (), replace(plain, on_discard=given_up)),
    )


def _send_rate(channel: Channel) -> float:
    if channel.options.send_rate is not None:
        return channel.options.send_rate
    return channel.transport.throughput


def make_channel(app: Declarations, transport: Transport, options: dict[str, Any]) -> Channel:
    """Check a transport and the options, make the channel and register it with its tasks. Raises ConfigError."""
    try:
        name = checked_name("a transport's name", getattr(transport, "name", None))
        if name in app.channels:
            raise ConfigError(
                f"A channel {name!r} is declared already. Call app.channel before the conversations, or name one anew."
            )
        channel = Channel(cast("OnCue", app), transport, ChannelOptions(**options))
    except (InvalidJob, TypeError, AttributeError) as error:
        raise ConfigError(f"{transport!r} can't be a channel: {error}") from error
    tasks = channel.tasks
    for task in (tasks.receive, tasks.status, tasks.send, tasks.advance):
        app.add_task(task)
    app.channels[name] = channel
    return channel
