"""Whether a message may go now: what is checked in the transaction right before it is sent. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from oncue.clock import SECOND
from oncue.conversation.polite import Quiet, zone_of
from oncue.store.chats import ChannelRow, MessageRow, PersonRow
from oncue.transport import Capabilities, Content, Template, Verdict

Kind = Literal["queued", "sending", "unknown"]
_content = msgspec.json.Decoder(Content)
_template = msgspec.json.Decoder(Template)
DAY = 86_400 * SECOND
# At most so long until the next look at what is unknown.
_LOOK = 60 * SECOND
_YIELD = SECOND


class SendOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What stands in a message's ``options``. ``stale``: a reminder that is so many seconds late is skipped."""

    stale: float | None = None


class Ahead(msgspec.Struct):
    """An earlier message of the same person that is on its way."""

    ref: str
    state: Kind
    due: int
    unknown_at: int | None = None


class Facts(msgspec.Struct):
    """All that is known of a message right before it is sent. ``paused``: the channel's queue is; ``answer_waits``: a
    message of the person has come in, and what follows from it isn't done."""

    message: MessageRow
    person: PersonRow
    channel: ChannelRow | None = None
    paused: int | bool = False
    ahead: Ahead | None = None
    answer_waits: int | bool = False


@dataclass(frozen=True, slots=True)
class Manners:
    """What the channel's options say. ``stale`` in microseconds; ``reconcile``: how long an unknown outcome is open."""

    quiet: Quiet | None
    timezone: str
    stale: int
    reconcile: int
    unique_per_day: int | None = None


@dataclass(frozen=True, slots=True)
class Go:
    """It may be sent, as this content."""

    content: Content
    fallback: bool = False
    """Whether that is the fallback."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It has to wait until then (microseconds). ``due`` too: that is its due time from now on, so it keeps nobody
    waiting."""

    until: int
    reason: str
    moves: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """It won't be sent. ``verdict``: the flow is told that it failed, and why; None: it is not missed."""

    reason: str
    verdict: Verdict | None = None


Decision = Go | Wait | Drop


def decide(facts: Facts, refused: str | None, capabilities: Capabilities, manners: Manners, now: int) -> Decision:
    """Decide on a message that is due. ``refused``: why the conversation does not want it any more."""
    message, person = facts.message, facts.person
    why = _unwanted(person, message) or refused
    if why is not None:
        return Drop(why)
    if message.kind == "reminder":
        late = now - message.due
        stale = msgspec.json.decode(message.options, type=SendOptions).stale
        if late > (manners.stale if stale is None else round(stale * SECOND)):
            return Drop(f"stale: {late / SECOND:.0f} s late")
        if facts.answer_waits:
            return Wait(now + _YIELD, "the person has just written")
    return _held(facts, manners, now) or _form(facts, capabilities, manners, now)


def _unwanted(person: PersonRow, message: MessageRow) -> str | None:
    if person.stopped is not None:
        return f"nothing can be sent to this person: {person.stopped}"
    # A note is what a human, or the application by itself, has to say, such as "you are off the list".
    if person.opted_out_at is not None and message.kind != "note":
        return "the person has opted out"
    if person.human_since is not None and message.kind != "note":
        return "a human has taken over"
    return None


def _held(facts: Facts, manners: Manners, now: int) -> Wait | None:
    channel, person, ahead = facts.channel, facts.person, facts.ahead
    if channel is not None and channel.stopped is not None and facts.paused:
        # Its queue is paused, so nothing looks before that is resumed; then all of it goes at once.
        return Wait(now + SECOND, f"the channel is stopped: {channel.stopped}")
    if channel is not None and channel.wait_until is not None and channel.wait_until > now:
        return Wait(channel.wait_until, "the messenger asked the channel to wait")
    if person.wait_until is not None and person.wait_until > now:
        return Wait(person.wait_until, "the messenger asked to wait with this person")
    if ahead is not None:
        return Wait(behind(ahead, manners.reconcile, now), f"message {ahead.ref} goes first, and is {ahead.state}")
    return None


def behind(ahead: Ahead, reconcile: int, now: int) -> int:
    """Return when to look again behind an earlier message. What settles it wakes those behind it, but for one that
    looked at that very moment: so the first looks come soon, and the later ones twice as late each time."""
    if ahead.unknown_at is None:
        return now + SECOND
    return next_look(ahead.unknown_at, ahead.unknown_at + reconcile, now)


def next_look(since: int, until: int, now: int) -> int:
    """Return when to look again at what has been unknown since then and may be so until ``until``."""
    step = min(max(now - since, SECOND), _LOOK)
    return min(now + step, until) if until > now else now + step


def _form(facts: Facts, capabilities: Capabilities, manners: Manners, now: int) -> Decision:
    """Choose between the free-form content and the template, and check what holds for either."""
    message = facts.message
    content: Content = _content.decode(message.content)
    reminder = message.kind == "reminder"
    shuts = window_end(facts.person, capabilities)
    fallback = False
    if not isinstance(content, Template) and (message.as_template or (shuts is not None and shuts <= now)):
        if message.fallback is None:
            why = "the window is shut, and it has no template"
            return Drop(why, None if reminder else "use_template")
        content, fallback = _template.decode(message.fallback), True
    if isinstance(content, Template):
        why_not = _template_trouble(content, facts)
        if why_not is not None:
            return Drop(why_not[0], None if reminder else why_not[1])
    if reminder and manners.quiet is not None:
        span = manners.quiet.span(now, zone_of(facts.person.timezone, manners.timezone))
        if span is not None:
            if shuts is not None and span[1] >= shuts and not isinstance(content, Template) and not message.fallback:
                return Drop("quiet hours last until the window is shut, and it has no template")
            return Wait(span[1], "quiet hours", moves=True)
    return Go(content, fallback)


def window_end(person: PersonRow, capabilities: Capabilities) -> int | None:
    """Return when the window for free-form messages shuts (0: it was never open); None where there is none."""
    if capabilities.window is None:
        return None
    return 0 if person.heard_at is None else person.heard_at + round(capabilities.window * SECOND)


def _template_trouble(template: Template, facts: Facts) -> tuple[str, Verdict] | None:
    if template.category == "marketing" and facts.person.no_marketing_at is not None:
        return "the person wants no marketing", "no_marketing"
    disabled = {} if facts.channel is None else msgspec.json.decode(facts.channel.disabled, type=dict[str, str])
    trouble = disabled.get(template_key(template))
    return None if trouble is None else (f"template {template.name} can't be used: {trouble}", "disable_template")


def template_key(template: Template) -> str:
    """Return the name under which a channel keeps that a template is disabled."""
    return f"{template.name} {template.language}"
