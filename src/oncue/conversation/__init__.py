"""Conversations: one async function a person, resumed from its record."""

from __future__ import annotations

from oncue.conversation.channels import Channel, ChannelOptions
from oncue.conversation.chat import Chat, Person
from oncue.conversation.declare import Conversation, Keyword
from oncue.conversation.operate import Conversations
from oncue.conversation.polite import Quiet
from oncue.conversation.post import Remind, hours, minutes

__all__ = [
    "Channel",
    "ChannelOptions",
    "Chat",
    "Conversation",
    "Conversations",
    "Keyword",
    "Person",
    "Quiet",
    "Remind",
    "hours",
    "minutes",
]
