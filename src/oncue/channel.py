"""What goes over PostgreSQL's NOTIFY: the channel's name and its payloads. Stores send them, wake queues read them."""

from __future__ import annotations

PROBE = "probe:"

# PostgreSQL's bigint; a longer number is none of ours.
_DIGITS = 19


def channel_of(schema: str) -> str:
    """Return the channel of a schema: a plain name that needs no quotes, within PostgreSQL's 63 bytes.

    The schema's name is as `oncue.dsn.parse` lets it pass. A notification reaches only sessions of the same database.
    """
    return f"oncue_{schema}"


def hint_text(due: int | None) -> str:
    """Return the payload that says that something is due at ``due`` (microseconds); None: "look, something changed"."""
    return "" if due is None else str(due)


def read_hint(payload: str) -> int | None:
    """Return the due time in a payload, in microseconds; None for every other text: whoever hears it looks."""
    usable = payload.isascii() and payload.isdigit() and len(payload) <= _DIGITS
    return int(payload) if usable else None


def probe_text(token: str) -> str:
    """Return the payload by which one who listens proves to itself that it hears; others pass over it."""
    return PROBE + token


def is_probe(payload: str) -> bool:
    """Tell whether a payload is somebody's probe, no hint."""
    return payload.startswith(PROBE)
