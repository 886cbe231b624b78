"""How channels stand: which are stopped and why, and templates that can't be used and are let go again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from oncue.store.chats import ChannelRow, Standing, one
from oncue.store.operating import AuditRow
from oncue.store.steps import Steps, as_json, run
from oncue.store.steps import chats as record
from oncue.store.steps.operate import add_audit

if TYPE_CHECKING:
    from oncue.app import OnCue


class Disabled(msgspec.Struct, frozen=True):
    """A template that a channel doesn't use, and why."""

    channel: str
    template: str
    language: str
    reason: str


class Channels:
    """The channels of an application, for operators. All of it raises a StoreError where the store fails.

    ``who`` acts: what they enable is in the audit.
    """

    def __init__(self, app: OnCue, who: str | None = None) -> None:
        self._app, self._who = app, who

    async def list(self) -> list[Standing]:
        """Return how each channel stands of which anything is known, by name."""
        return await self._app.store.look(record.channels)

    async def disabled(self, channel: str | None = None) -> tuple[Disabled, ...]:
        """Return the templates that can't be used, of one channel or of all."""
        return tuple(each for row in await self.list() if channel in (None, row.name) for each in disabled_of(row))

    async def enable(
        self, template: str, language: str | None = None, *, channel: str | None = None
    ) -> tuple[Disabled, ...]:
        """Use a template again, in one language or in all, on one channel or on all; return what was disabled of it.

        What was parked for it stays so until it is resumed.
        """
        wanted = tuple(
            one for one in await self.disabled(channel) if one.template == template and language in (None, one.language)
        )
        if not wanted:
            return ()

        now = self._app.clock.now()

        def steps() -> Steps[None]:
            for name in sorted({each.channel for each in wanted}):
                yield from _enable(name, [each for each in wanted if each.channel == name])
                if self._who is not None:
                    detail = as_json({"template": template})
                    yield from add_audit(AuditRow(0, now, self._who, "enable", f"channel:{name}", 1, detail))

        await self._app.store.change(steps)
        return wanted


def disabled_of(row: ChannelRow) -> tuple[Disabled, ...]:
    """Return the templates that a channel can't use, by name."""
    kept = msgspec.json.decode(row.disabled, type=dict[str, str])
    found: list[Disabled] = []
    for key, reason in sorted(kept.items()):
        name, _, language = key.rpartition(" ")
        found.append(Disabled(row.name, name, language, reason))
    return tuple(found)


def _enable(channel: str, wanted: list[Disabled]) -> Steps[None]:
    row = yield from one(ChannelRow, "channel_to_send", name=channel)
    if row is None:
        return
    kept = msgspec.json.decode(row.disabled, type=dict[str, str])
    for each in wanted:
        kept.pop(f"{each.template} {each.language}", None)
    yield run(
        "save_channel_sends", name=row.name, stopped=row.stopped, stopped_at=row.stopped_at,
        wait_until=row.wait_until, refusals=row.refusals, disabled=as_json(kept),
    )  # fmt: skip
