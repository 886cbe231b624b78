"""What the sweeper does for conversations: messages that lost their jobs get new ones, and what is old is deleted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from oncue.clock import seconds_to_us
from oncue.store.steps import inbox

if TYPE_CHECKING:
    from oncue.conversation.channels import Channel

_ROUNDS, _BATCH = 20, 1_000


async def upkeep(channels: Iterable[Channel]) -> int:
    """Do all of it for these channels, whose application is open; return how many rows were deleted."""
    gone = 0
    for channel in channels:
        await channel.outbox.sweep()
        gone += await prune(channel)
    return gone


async def prune(channel: Channel) -> int:
    """Delete what of this channel's conversations was kept for long enough; return how many rows went."""
    store, now, gone = channel.app.store, channel.app.clock.now(), 0
    kept = channel.options.retention
    before = None if kept is None else now - seconds_to_us(kept)
    for _ in range(_ROUNDS):
        if not await store.look(lambda: inbox.prunable(channel.name, now, before)):
            break
        went = await store.change(lambda: inbox.prune_chats(channel.name, now, before, _BATCH))
        gone += went
        if not went:
            break
    return gone
