"""Handing a job to a Node worker: its row is claimed here, BullMQ runs it, and its outcome comes back into the row."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from oncue.bridge.follow import Followed, NodeQueue, Seen, Timing
from oncue.context import JobContext
from oncue.errors import ConfigError, NodeError, StoreError
from oncue.redis_trouble import meaning
from oncue.redis_url import RedisUrl, is_redis, parse_redis
from oncue.retry import Discard, Snooze
from oncue.task import Task

log = logging.getLogger("oncue.bridge")

_KEEP = {"age": 86_400, "count": 5_000}
"""How long (seconds) and how many of the queue's ended jobs stay in Redis, for attempts that attach and for people."""
_LOOK_BACK = 10
_LETTING_GO = 1.0
_LONGEST_PAUSE = 30.0
_UNRECOVERABLE = re.compile(r"UnrecoverableError\b")


class NodeDiscard(NodeError, Discard):
    """The Node worker threw BullMQ's ``UnrecoverableError``: the job is discarded without a retry."""


@dataclass(slots=True)
class Counts:
    """What came of a task's jobs in Node since this process began, for metrics: ``.counts`` in ``app.node_targets``."""

    added: int = 0
    """Jobs added to BullMQ."""
    attached: int = 0
    """Attempts that went on with a job that was there."""
    completed: int = 0
    failed: int = 0
    """Jobs that failed in Node, were lost there, or ended with a result of the wrong type."""
    snoozed: int = 0
    """Attempts put off because Redis failed."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a task's jobs go: ``redis`` None is the application's."""

    queue: str
    redis: RedisUrl | None
    prefix: str | None
    job_name: str
    counts: Counts = field(default_factory=Counts, compare=False)


def target_of(queue: str, redis: str | None, prefix: str | None, job_name: str) -> Target:
    """Return where a task's jobs go. Raises ConfigError."""
    if not queue or not queue.isprintable() or ":" in queue:
        raise ConfigError(f"A BullMQ queue has a name of printable characters without ':', not {queue!r}.")
    if prefix is not None and (not prefix or not prefix.isprintable()):
        raise ConfigError(f"The prefix of BullMQ's keys is a text such as 'bull', not {prefix!r}.")
    return Target(queue, None if redis is None else parse_redis(redis), prefix, job_name)


class NodeQueues:
    """The BullMQ queues that a process hands jobs to, connected when they are first needed."""

    def __init__(self, default: RedisUrl | None, timing: Timing | None = None) -> None:
        self._default, self._timing = default, timing
        self._queues: dict[tuple[str, str, str], NodeQueue] = {}

    def get(self, target: Target) -> NodeQueue:
        """Return the queue of a target. Raises ConfigError where no Redis is known, or its drivers aren't installed."""
        url = target.redis or self._default
        if url is None:
            raise ConfigError(
                f"No Redis is known for the BullMQ queue {target.queue!r}. Say redis='redis://host:6379' in "
                "@app.node_task, or wake='redis://...' in OnCue, or set REDIS_URL."
            )
        url = url if target.prefix is None else replace(url, prefix=target.prefix)
        name = (url.dsn, url.prefix, target.queue)
        if name not in self._queues:
            self._queues[name] = NodeQueue(url, target.queue, self._timing)
        return self._queues[name]

    async def close(self) -> None:
        """Disconnect from all."""
        await asyncio.gather(*(queue.close() for queue in self._queues.values()))


StandIns = dict[str, Callable[..., Any]] | None


def make_node_task(made: Task[Any, Any], target: Target, stand_ins: Callable[[], StandIns]) -> Task[Any, Any]:
    """Return the task with its body replaced by the hand-off. Raises ConfigError for a signature that can't be one."""
    if made.takes_context:
        raise ConfigError(f"{made.name}: a node task's body never runs, so it takes no context. Drop that parameter.")
    if not inspect.iscoroutinefunction(made.function):
        raise ConfigError(
            f"{made.name}: a node task is declared by an async function: async def {target.job_name}(...)"
        )
    names = made.arguments.__struct_fields__ if made.arguments is not None else ()
    positional = names[: len(names) - len(made.keyword_only)]

    async def hand_off(*values: Any, **named: Any) -> Any:
        if not values or not isinstance(values[0], JobContext):
            raise ConfigError(f"{made.name} runs in Node: schedule it with {target.job_name}.call(...).")
        context = values[0]
        if (instead := stand_ins()) is not None:
            return await _stand_in(made, instead, values[1:], named)
        queue = context.resource(NodeQueues).get(target)
        data = dict(zip(positional, values[1:], strict=True)) | named
        plain = msgspec.to_builtins(data, str_keys=True)
        return await _Attempt(context, queue, target, plain, made.returns).run()

    return replace(made, function=hand_off, takes_context=True, is_async=True)


async def _stand_in(
    made: Task[Any, Any], stand_ins: dict[str, Callable[..., Any]], values: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    if made.name not in stand_ins:
        raise ConfigError(
            f"Under oncue.testing no Node runs: say by t.node(task, function) what {made.name} does there."
        )
    result = stand_ins[made.name](*values, **named)
    return await result if inspect.isawaitable(result) else result


def default_redis(wake: str | None) -> RedisUrl | None:
    """Return the Redis of node tasks that name none: the wake queue's, else REDIS_URL. Raises ConfigError."""
    if wake is not None and is_redis(wake):
        return parse_redis(wake)
    known = os.environ.get("REDIS_URL")
    return parse_redis(known) if known else None


async def node_queues(
    wake: str | None, targets: Sequence[Target], timing: Timing | None = None
) -> AsyncIterator[NodeQueues]:
    """Provide a worker's queues. Raises ConfigError, so that no worker starts that could not hand off."""
    queues = NodeQueues(default_redis(wake), timing)
    for target in targets:
        queues.get(target)
    try:
        yield queues
    finally:
        await queues.close()


class _Attempt:
    """One attempt of a job that runs in Node."""

    def __init__(self, context: JobContext, queue: NodeQueue, target: Target, data: Any, returns: Any) -> None:
        self._context, self._queue, self._target = context, queue, target
        self._data, self._returns = data, returns
        self._at = self._id(context.attempts_used)
        self._reported: str | None = None

    def _id(self, attempt: int) -> str:
        # Databases that share a Redis, or one that was made anew, count their jobs from 1: the time tells them apart.
        made = int(self._context.created_at.timestamp() * 1000)
        return f"oc-{self._context.id}-{attempt}-{made}"

    async def run(self) -> Any:
        """Hand the job over, or attach to where it is, and return its result. Raises NodeError, Snooze."""
        counts = self._target.counts
        try:
            result = await self._result_in_node()
        except NodeError:
            counts.failed += 1
            raise
        except self._queue.errors as error:
            counts.snoozed += 1
            # As long again as it has been down.
            pause = min(_LONGEST_PAUSE, max(1.0, self._queue.failed(error)))
            raise Snooze(pause, f"Redis at {self._queue.url.shown} fails: {meaning(error, self._queue.url)}") from error
        except asyncio.CancelledError:
            await self._let_go()
            raise
        counts.completed += 1
        return result

    async def _result_in_node(self) -> Any:
        with self._queue.following(self._at) as job:
            older = await self._attach_or_add(job)
            if older is None:
                return await self._end_of(job)
        self._at = older
        with self._queue.following(older) as job:
            job.placed = time.monotonic()
            await self._queue.look_at([job])
            return await self._end_of(job)

    async def _attach_or_add(self, job: Followed) -> str | None:
        """Add the job, unless an attempt before, whose Python worker is gone, has left it in BullMQ.

        Returns the id of that one where it is another than this attempt's own.
        """
        used = self._context.attempts_used
        ids = [self._id(n) for n in range(used, max(0, used - _LOOK_BACK), -1)]
        own, *before = await self._queue.look(ids)
        if own.state != "gone":
            self._target.counts.attached += 1
            job.saw(own)
            return None
        for id, seen in zip(ids[1:], before, strict=True):
            if await self._still_counts(id, seen):
                self._target.counts.attached += 1
                log.info("job %s: attempt %s goes on with BullMQ's job %s", self._context.id, used, id)
                return id
            if seen.state != "gone":
                break
        await self._add(job)
        return None

    async def _still_counts(self, id: str, seen: Seen) -> bool:
        if seen.state == "completed":
            # A result of the wrong type was that attempt's failure, and would be this one's.
            try:
                self._result(seen)
            except NodeError:
                return False
            return True
        if seen.state == "dead":
            return not await self._queue.withdraw(id)
        return seen.state in ("waiting", "active")

    async def _add(self, job: Followed) -> None:
        placed, job.placed = job.placed, float("inf")
        try:
            await self._queue.add(job.id, self._target.job_name, self._data, _KEEP)
            self._target.counts.added += 1
            placed = time.monotonic()
        finally:
            job.placed = placed

    async def _end_of(self, job: Followed) -> Any:
        while True:
            _end_if_stopped()
            await job.changed.wait()
            job.changed.clear()
            if job.progress is not None and job.progress != self._reported:
                await self._report(job.progress)
            if job.end is not None:
                return self._outcome(job.end)
            try:
                if job.state == "gone":
                    await self._gone(job)
                elif job.state == "dead" and await self._queue.withdraw(job.id):
                    raise NodeError(
                        f"The Node worker that ran it died: its lock on BullMQ's job {job.id} was not renewed."
                    )
            except self._queue.errors as error:
                # Its reader looks again once Redis is back.
                self._queue.failed(error)

    async def _gone(self, job: Followed) -> None:
        """The job is in Redis no more, as after a FLUSHALL or a restart without persistence."""
        if not job.began:
            log.warning("job %s vanished from the BullMQ queue %s: added again", job.id, self._queue.name)
            await self._add_again(job)
            return
        # Its worker may be at it for as long as it believes in its lock.
        await asyncio.sleep(max(0.0, job.lock_until - time.monotonic()))
        raise NodeError(
            f"BullMQ's job {job.id} vanished from Redis while a Node worker ran it: whether that did its work isn't "
            "known."
        )

    async def _add_again(self, job: Followed) -> None:
        self._at = job.id
        await self._add(job)
        job.state = "waiting"

    def _outcome(self, end: Seen) -> Any:
        if end.state == "completed":
            return self._result(end)
        reason = end.value or "it failed without a message"
        if end.stack is not None and _UNRECOVERABLE.match(end.stack):
            raise NodeDiscard(reason, end.stack)
        raise NodeError(reason, end.stack)

    def _result(self, end: Seen) -> Any:
        """Return what Node returned, as the signature says. Raises NodeError where it is something else."""
        if self._returns is None or self._returns is type(None):
            return None
        text = end.value if end.value is not None else "null"
        try:
            return msgspec.json.decode(text, type=self._returns)
        except msgspec.MsgspecError as error:
            shown = text if len(text) <= 200 else text[:200] + "..."
            raise NodeError(f"It returned {shown}, which is no {_named(self._returns)}: {error}") from None

    async def _report(self, text: str) -> None:
        self._reported = text
        fraction, note = read_progress(text)
        try:
            await self._context.progress(fraction, note)
        except StoreError as error:
            log.debug("progress of job %s is not stored: %s", self._context.id, error)

    async def _let_go(self) -> None:
        """This attempt has to end before the job did."""
        why = self._context.stopped
        act: Callable[[str], Any] | None = None
        if why in ("timeout", "cancelled"):
            act = self._queue.revoke
        elif why == "shutdown":
            # What waits would not be heard of a cancellation before the next attempt. What runs goes on.
            act = self._queue.withdraw
        if act is None:
            return
        try:
            async with asyncio.timeout(_LETTING_GO):
                await act(self._at)
        except self._queue.errors as error:
            self._queue.failed(error)
            log.warning("BullMQ's job %s can't be removed now (%s): a Node worker may still run it", self._at, why)
            if why == "cancelled":
                self._queue.revoke_later(self._at)


def _end_if_stopped() -> None:
    """Raise the cancellation that was lost: the driver sends by ``asyncio.wait_for``, which up to Python 3.11 drops one
    that comes when it is done."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def read_progress(text: str) -> tuple[float, str]:
    """Read BullMQ's progress: a number is per cent; ``{"fraction": 0 to 1, "note": ...}``; else it is the note."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return 0.0, text
    note = ""
    fraction = 0.0
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        fraction = value / 100
    elif isinstance(value, dict) and isinstance(value.get("fraction"), (int, float)):
        fraction, note = value["fraction"], str(value.get("note", ""))
    else:
        note = value if isinstance(value, str) else text
    return min(1.0, max(0.0, float(fraction))), note


def _named(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
