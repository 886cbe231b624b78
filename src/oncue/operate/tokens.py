"""Tokens of the HTTP API: made here, shown once, and kept as a hash."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from oncue.errors import InvalidJob
from oncue.operate.shape import iso, maybe_iso
from oncue.operate.views import Token
from oncue.store.operating import AuditRow, TokenRow
from oncue.store.steps import Steps, operate
from oncue.task import checked_name

if TYPE_CHECKING:
    from oncue.app import OnCue

ROLES = ("read", "operate", "schedule", "cron")
"""``read`` sees all; ``operate`` acts on what is there; ``schedule`` asks for jobs; ``cron`` has due work done."""
PREFIX = "oncue_"
"""What every token begins with."""
_LONGEST = 200


class Tokens:
    """The tokens of an application's database. ``who`` makes and revokes them, which the audit keeps."""

    def __init__(self, app: OnCue, who: str) -> None:
        self._app, self._who = app, who

    async def create(self, name: str, roles: Sequence[str], expires_at: int | None = None) -> str:
        """Make a token and return it: it can't be shown again. ``expires_at``: microseconds since the epoch.

        Raises InvalidJob for a name that is taken, roles that don't exist, or an end that has passed.
        """
        checked_name("name", name)
        if not roles or (bad := [role for role in roles if role not in ROLES]):
            said = f"not {', '.join(map(repr, bad))}" if roles else "and one at least is needed"
            raise InvalidJob(f"A role is one of {', '.join(ROLES)}, {said}.")
        now = self._app.clock.now()
        if expires_at is not None and expires_at <= now:
            raise InvalidJob(f"{iso(expires_at)} has passed: the token would never be good.")
        token = PREFIX + secrets.token_urlsafe(32)
        line = AuditRow(0, now, self._who, "create-token", f"token:{name}", 1, _detail(roles))

        def steps() -> Steps[bool]:
            made = yield from operate.add_token(name, sorted(set(roles)), hash_of(token), now, expires_at)
            if made:
                yield from operate.add_audit(line)
            return made

        if not await self._app.store.change(steps):
            raise InvalidJob(f"There is a token {name!r} already, which may be revoked: take another name.")
        return token

    async def list(self) -> list[Token]:
        """Return all tokens by name, without what they are."""
        now = self._app.clock.now()
        return [_shown(row, now) for row in await self._app.store.look(operate.tokens)]

    async def revoke(self, name: str) -> bool:
        """Let nobody in with it any more, from now on; False where there is none of that name that is good."""
        now = self._app.clock.now()
        line = AuditRow(0, now, self._who, "revoke-token", f"token:{name}")

        def steps() -> Steps[bool]:
            done = yield from operate.revoke_token(name, now)
            if done:
                yield from operate.add_audit(line)
            return done

        return await self._app.store.change(steps)

    async def find(self, token: str) -> TokenRow | None:
        """Return the token's row where it lets its bearer in now."""
        if not token.startswith(PREFIX) or len(token) > _LONGEST or not token.isascii():
            return None
        row = await self._app.store.look(lambda: operate.token_of(hash_of(token)))
        return row if row is not None and row.good(self._app.clock.now()) else None


def hash_of(token: str) -> str:
    """Return what is kept of a token. It holds 32 random bytes, so that nobody can try all: no salt, no stretching."""
    return hashlib.sha256(token.encode()).hexdigest()


def _detail(roles: Sequence[str]) -> str:
    listed = ", ".join(f'"{role}"' for role in sorted(set(roles)))
    return f'{{"roles": [{listed}]}}'


def _shown(row: TokenRow, now: int) -> Token:
    times = (iso(row.created_at), maybe_iso(row.expires_at), maybe_iso(row.revoked_at))
    return Token(row.name, row.roles, *times, row.good(now))
