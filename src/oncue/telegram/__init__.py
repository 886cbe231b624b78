"""The Telegram Bot API as a transport of conversations."""

from __future__ import annotations

from oncue.telegram.client import Telegram

__all__ = ["Telegram"]
