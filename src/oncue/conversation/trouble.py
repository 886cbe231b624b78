"""What the log says of an exception that may quote what people write, or name them."""

from __future__ import annotations

import traceback


def told(error: BaseException) -> str:
    """Return what an exception is and where it arose, without its own text."""
    lines = [line.rstrip() for line in traceback.format_tb(error.__traceback__)]
    return "\n".join([type(error).__name__, *lines])
