"""What the store keeps of operators and of what was done, as rows. Times are microseconds since the epoch."""

from __future__ import annotations

import msgspec


class AuditRow(msgspec.Struct):
    """What somebody did; see ``oncue_audit``. ``detail`` is JSON."""

    id: int
    at: int
    who: str
    action: str
    target: str
    count: int = 1
    detail: str = "{}"


class TokenRow(msgspec.Struct):
    """A token of the HTTP API, without what it is; see ``oncue_token``."""

    id: int
    name: str
    roles: list[str]
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None

    def good(self, now: int) -> bool:
        """Whether it lets its bearer in at ``now``."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class PauseRow(msgspec.Struct):
    """A task whose jobs nobody claims; see ``oncue_task_pause``."""

    name: str
    paused_at: int
    who: str


class MinuteRow(msgspec.Struct, array_like=True):
    """What a worker did of a task in the minute that began at ``minute``; see ``oncue_minute``.

    ``lateness``: a JSON object, from upper bounds in microseconds (``"inf"`` for the last) to how many jobs started
    that late, each counted under the lowest bound that holds it; bounds with none may be left out. ``ran_us``: how long
    handlers ran, all together.
    """

    minute: int
    worker: int
    task: str
    started: int = 0
    completed: int = 0
    retried: int = 0
    discarded: int = 0
    skipped: int = 0
    ran_us: int = 0
    lateness: str = "{}"
