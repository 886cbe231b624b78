"""Which queues and tasks anybody knows: a name that nobody does may be a newer version's, or a slip of the pen."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from oncue.store.steps.chats import channels_now

if TYPE_CHECKING:
    from oncue.app import OnCue
    from oncue.operate.overview import Look

_MOST_SAID = 20


async def doubt(app: OnCue, look: Look, kind: Literal["queue", "task"], name: str) -> str | None:
    """Return, in words, that no worker and no job knows a queue or task of that name; None where one does."""
    workers = await app.jobs.workers()
    if kind == "task":
        known = {*app.tasks, *(task for one in workers for task in one.tasks or ())}
        # What a worker recorded no tasks for, it may know.
        if any(one.knows(name) for one in workers):
            return None
    else:
        # What is in none of its own is in that one.
        known = {"default", *(task.options.queue for task in app.tasks.values())}
        known.update(queue for one in workers for queue in one.queues or ())
        # A channel has two, whether or not anything is to be sent just now.
        channels = [row.name for row in await app.store.look(channels_now)]
        known.update(queue for channel in channels for queue in (channel, f"{channel}.send"))
    if name not in known:
        groups, discarded = await look.groups()
        for queue, task in [*((one.queue, one.task) for one in groups), *(row[:2] for row in discarded)]:
            known.add(task if kind == "task" else queue)
    if name in known:
        return None
    nobody = "No worker and no job knows a task" if kind == "task" else "No job is in, and no worker names, a queue"
    return f"{nobody} {name!r}; {kind}s that are known: {_listed(known)}."


def _listed(names: Collection[str]) -> str:
    first = sorted(names)[:_MOST_SAID]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "") or "none"
