"""A job of a BullMQ queue as its keys in Redis say it, and what it becomes in OnCue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from oncue.clock import from_us, in_range
from oncue.errors import InvalidArguments, InvalidTime
from oncue.job import NewJob
from oncue.scheduling import Scheduled, new_job
from oncue.task import Call

_LAST = 100
"""OnCue's last priority."""
_DELAYED_SCORE = 4096
"""BullMQ orders delayed jobs by their time in milliseconds times this, plus a number within it."""
_NODES_OWN = {
    "parentKey": "children of a flow (FlowProducer): their parent waits for Node. Schedule them one by one, or leave "
    "the queue to Node",
    "rjk": "jobs of a job scheduler (repeat). Declare them by @app.cron or @app.every, then "
    "removeJobScheduler() in Node",
    "deid": "jobs with deduplication, which BullMQ counts only while it holds the job. Add them without, and return "
    "Scheduled(..., key=..., on_conflict=...)",
}
_PARENT = "parents of a flow (FlowProducer). Schedule them when their children are done, or leave the queue to Node"


class StaysWithNode(Exception):
    """A job of a kind that is not adopted. ``kind``: what is said about all of them, once."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Refused(Exception):
    """A job that can't be adopted; the text says why."""


@dataclass(frozen=True, slots=True)
class NodeJob:
    """A job of a BullMQ queue that waits or is delayed there, and that no Node worker has begun."""

    queue: str
    """The queue's name, without the prefix."""
    id: str
    """Its ``jobId``."""
    name: str
    data: Any
    """What Node gave, decoded from JSON."""
    timestamp: int
    """When it was added: milliseconds since the epoch, by the producer's clock."""
    delay: int
    """The delay that was asked for, in milliseconds."""
    priority: int
    """BullMQ's: 0 for none, else 1 (first) to 2,097,151 (last)."""
    attempts: int | None
    """How often it may be tried, where the producer said so."""
    opts: Mapping[str, Any] = field(repr=False)
    """BullMQ's options as they are stored, some of them under short names."""
    due: datetime
    """When it is due, UTC: ``timestamp`` plus ``delay``, or where a ``changeDelay()`` has moved it to."""


def read(queue: str, id: str, fields: Mapping[str, str], score: float | None, *, is_parent: bool) -> NodeJob:
    """Return the job that the fields of its key say. ``score``: its place among the delayed ones.

    Raises StaysWithNode for a kind that isn't adopted, Refused for what can't be read.
    """
    for name, kind in _NODES_OWN.items():
        if fields.get(name):
            raise StaysWithNode(kind)
    if is_parent:
        raise StaysWithNode(_PARENT)
    if not id.isprintable() or len(id) > 500:
        raise Refused("its id has more than 500 characters, or some that can't be printed")
    try:
        timestamp, delay = int(fields["timestamp"]), int(fields.get("delay") or 0)
        due = timestamp + delay if score is None else int(score) // _DELAYED_SCORE
        opts = msgspec.json.decode(fields.get("opts") or "{}", type=dict[str, Any])
        attempts = opts.get("attempts")
        return NodeJob(
            queue,
            id,
            fields.get("name", ""),
            msgspec.json.decode(fields["data"]),
            timestamp,
            delay,
            int(fields.get("priority") or 0),
            attempts if isinstance(attempts, int) and attempts > 0 else None,
            opts,
            from_us(in_range(due * 1000, f"timestamp {timestamp} + delay {delay} ms")),
        )
    except (KeyError, ValueError, OverflowError, InvalidTime, msgspec.MsgspecError) as error:
        raise Refused(f"what BullMQ holds of it can't be read: {type(error).__name__}: {error}") from error


def to_store(job: NodeJob, chosen: Call[Any] | Scheduled, now: int) -> NewJob:
    """Return the job to store for one of BullMQ's. Raises what ``new_job`` raises.

    What the function didn't say is taken from BullMQ: the due time, the attempts, and the priority: a job without one
    has that of its task; those with one come in their order from 1 to 100, and all beyond that at 100.
    """
    wanted = Scheduled(chosen) if isinstance(chosen, Call) else chosen
    given: object = wanted
    if not isinstance(given, Scheduled):
        raise InvalidArguments(f"the function returned {given!r}; it returns a call, a Scheduled or None")
    changes: dict[str, Any] = {}
    if wanted.at is None and wanted.delay is None:
        changes["at"] = job.due
    if wanted.priority is None and job.priority > 0:
        changes["priority"] = min(job.priority, _LAST)
    if wanted.max_attempts is None and job.attempts is not None:
        changes["max_attempts"] = min(job.attempts, 1_000_000)
    return new_job(msgspec.structs.replace(wanted, **changes), now)
