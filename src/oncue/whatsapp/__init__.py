"""The WhatsApp Cloud API: what is sent, what comes in, and a simulator of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oncue.whatsapp.client import WhatsApp

__all__ = ["WhatsApp"]


def __getattr__(name: str) -> Any:
    # The parts that need no client (the simulator, for one) don't load it.
    if name == "WhatsApp":
        from oncue.whatsapp.client import WhatsApp

        return WhatsApp
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
