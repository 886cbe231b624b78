"""Checks of conversations: which stand still until a person acts, and whether their channels send and hear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from oncue.clock import SECOND
from oncue.store.chats import TAKEN_OVER, Standing, StandingStill
from oncue.store.steps import chats
from oncue.store.views import Check
from oncue.why import near, seconds
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.app import OnCue

_FORGOTTEN = 86_400 * SECOND
_UNSEEN, _SILENT = 60 * SECOND, 600 * SECOND
"""The intake says every 5 s that it runs; one whose host gives each request a loop of its own, with each update."""
_OPEN = 120 * SECOND
"""An unknown outcome is settled, or decided on, within a minute by itself."""


async def conversations(app: OnCue) -> list[Check]:
    """Tell of conversations that wait for a person; nothing where there is no channel."""
    found = {one.state: one for one in await app.store.look(chats.standing_still)}
    if not found and not await app.store.look(chats.channels_now):
        return []
    now = app.clock.now()
    parked, paused = found.get("parked"), found.get("paused")
    stopped = "" if paused is None else f"{_count(paused.number)} paused, the first {near(paused.first, now)}"
    if parked is not None:
        at = f" at {parked.step}" if parked.step else ""
        # What a function raised may say what a person did.
        why = "" if "text" in app.redacted else f": {parked.reason}"
        text = (
            f"{_count(parked.number)} parked, the first {near(parked.first, now)}; the last, {parked.last} "
            f"({parked.conversation}){at}{why}"
        )
        remedy = "Put right what its reason says, then: oncue conversations resume APP ID. All: list --state parked"
        return [Check("conversations", "warn", "; ".join(filter(None, (text, stopped))), remedy)]
    if paused is not None and paused.first < now - _FORGOTTEN:
        return [Check("conversations", "warn", f"{stopped}; the last, {paused.last}: {paused.reason}", _back(paused))]
    return [Check("conversations", "ok", stopped or "none is parked or paused")]


def _back(paused: StandingStill) -> str:
    what = "release APP PERSON" if paused.reason == TAKEN_OVER else "resume APP ID"
    return f"Where that was forgotten: oncue conversations {what}. All: list --state paused"


async def channels(app: OnCue) -> list[Check]:
    """Tell of each channel whether it sends, whether people are heard, and what nobody knows to have been sent."""
    now = app.clock.now()
    return [_channel(one, now) for one in await app.store.look(chats.channels_now)]


def _channel(one: Standing, now: int) -> Check:
    name = f"channel {one.name}"
    if one.paused_at is not None:
        since = near(one.paused_at if one.stopped is None else one.stopped_at or one.paused_at, now)
        if one.stopped is not None:
            remedy = f"Put that right, then: oncue queues resume {one.name}.send. Nothing is lost."
            return Check(name, "FAIL", f"it sends nothing since {since}: {one.stopped}", remedy)
        remedy = f"To send again: oncue queues resume {one.name}.send. Nothing is lost."
        return Check(name, "warn", f"it sends nothing since {since}: its queue was paused", remedy)
    unknown = f"{counted(one.unknown, 'message')} may have been sent, nobody knows" + (
        "" if one.unknown_since is None else f", the first for {seconds(now - one.unknown_since)}; later ones wait"
    )
    if one.seen_at is None or one.seen_at < now - (_UNSEEN if one.unknown else _SILENT):
        seen = "has never run" if one.seen_at is None else f"was seen last {near(one.seen_at, now)}"
        text = f"the intake of updates {seen}: is anybody heard?" + (f" {unknown}" if one.unknown else "")
        remedy = "Is `oncue serve`, or what mounts webhook_app, alive? Mounted, it says so from the first update on."
        return Check(name, "warn", text, remedy)
    if one.unknown and (one.unknown_since or now) < now - _OPEN:
        remedy = "Do updates arrive? The log says where one was refused. Whom it is about: oncue jobs list --queue "
        return Check(name, "warn", unknown, f"{remedy}{one.name}.send")
    if one.wait_until is not None and one.wait_until > now:
        found = f"the messenger asked it to wait, for {seconds(one.wait_until - now)} more"
        return Check(name, "warn", found, "It goes on by itself then.")
    if disabled := msgspec.json.decode(one.disabled, type=dict[str, str]):
        first = min(disabled)
        more = f", and {len(disabled) - 1} more" if len(disabled) > 1 else ""
        remedy = "Once that is put right: oncue conversations templates --enable NAME"
        return Check(name, "warn", f"template {first} can't be used: {disabled[first]}{more}", remedy)
    heard = "nothing was heard yet" if one.heard_at is None else f"heard {near(one.heard_at, now)}"
    return Check(name, "ok", f"it sends, {heard}" + (f"; {unknown}" if one.unknown else ""))


def _count(number: int) -> str:
    return counted(number, "conversation is", "conversations are")
