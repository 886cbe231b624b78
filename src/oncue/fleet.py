"""How the whole fleet is, as its database tells it: what metrics show, whichever process is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from oncue.store.sources import SourceStatus
from oncue.store.steps import Steps, overview, watch

if TYPE_CHECKING:
    from oncue.app import OnCue


class Fleet(NamedTuple):
    """What was found. Times are microseconds since the epoch, ``now`` and ``swept_at`` (None: never) among them.

    ``jobs``: how many wait, run or were discarded, by state; ``finished`` has the other final states. ``due``: by
    queue, what could start now, or is due and waits behind others. ``messages``: (channel, state, how many); empty for
    an application without channels.
    """

    now: int
    jobs: overview.Live
    due: Sequence[watch.LateQueue]
    paused: Sequence[watch.Paused]
    swept_at: int | None
    schema: int
    messages: Sequence[tuple[str, str, int]]
    workers: Counter[str]
    sources: Sequence[SourceStatus]
    finished: Mapping[str, int] = {}


async def look(app: OnCue) -> Fleet:
    """Look at the database of an application that is open. Raises a StoreError."""
    now, with_messages = app.clock.now(), bool(app.channels)

    def steps() -> Steps[Fleet]:
        return Fleet(
            now,
            (yield from overview.live_counts(now, now)),
            (yield from watch.late_jobs(now)),
            (yield from watch.paused()),
            (yield from watch.swept_at()),
            (yield from watch.schema_version()),
            (yield from watch.message_states()) if with_messages else (),
            Counter(),
            (),
        )

    found = await app.store.look(steps)
    workers: Counter[str] = Counter(one.state for one in await app.jobs.workers())
    return found._replace(workers=workers, sources=await app.sources.status())


async def look_at_finished(app: OnCue) -> dict[str, int]:
    """Count the jobs that are kept as completed or cancelled, all of which are read. Raises a StoreError."""
    return await app.store.look(watch.finished_counts)
