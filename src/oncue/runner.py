"""Running one claimed job: its handler is called at the due time, and its outcome becomes an Ack."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Literal

import msgspec

from oncue.clock import SECOND, Clock
from oncue.completion import Completion
from oncue.context import JobContext, enter
from oncue.errors import InvalidJob, NodeError, OnCueError
from oncue.job import Ack, Claimed, Completed, Failed, OnRetry, Outcome, Skipped, Snoozed, decide, lateness_verdict
from oncue.limits import Policy
from oncue.redaction import NOTHING, Redaction
from oncue.retry import Discard, Snooze
from oncue.task import Task
from oncue.threads import Threads
from oncue.tracing import api, traced
from oncue.unknown import UnknownTasks

log = logging.getLogger("oncue.worker")
Why = Literal["", "timeout", "cancelled", "shutdown", "lease lost"]
Guard = Callable[[Claimed], Awaitable[str | None]]
MAX_RESULT = 1_048_576
_MAX_TRACEBACK = 16_384


class NotCommitted(OnCueError):
    """A handler completed its job in a transaction of its own, and that was rolled back."""


class Run:
    """One attempt in progress on this worker."""

    __slots__ = ("completed", "context", "entered", "job", "left", "question", "recorded", "started_at", "task", "why")

    def __init__(self, job: Claimed) -> None:
        self.job = job
        self.task: asyncio.Task[None] | None = None
        self.context: JobContext | None = None
        self.started_at = 0
        self.entered = False
        self.why: Why = ""
        self.completed: Ack | None = None
        """What the handler recorded in a transaction of its own."""
        self.recorded = False
        """Whether that transaction committed, so that nothing is left to be written."""
        self.question: asyncio.Task[bool] | None = None
        """Whether it did, asked of the database."""
        self.left = False

    def stop(self, why: Why) -> None:
        """Ask the handler to end: ``CancelledError`` where it is a coroutine, a flag where it is a thread."""
        if self.why:
            return
        self.why = why
        if self.context is not None:
            self.context.cancelled, self.context.stopped = True, why
            self.context.lease_lost = self.context.lease_lost or why == "lease lost"
        # A task that has not begun would never run its body: it sees ``why`` by itself.
        if self.task is not None and self.entered:
            self.task.cancel()

    def leave(self) -> None:
        """Wait no longer for what this attempt brings: it is this worker's no more."""
        self.left = True
        if self.question is not None:
            self.question.cancel()


class Runner:
    """Turns claimed jobs into acks. ``guards`` tell, by the job's origin, why it need not run any more."""

    def __init__(
        self,
        tasks: Mapping[str, Task[Any, Any]],
        policy: Policy,
        clock: Clock,
        resources: Mapping[type, Any],
        report: Callable[[Claimed, dict[str, Any]], Any],
        retention: int | None,
        guards: Mapping[str, Guard],
        completion: Completion,
        threads: int = 32,
        grace: float = 10.0,
        hides: Redaction = NOTHING,
    ) -> None:
        self.tasks, self.policy, self.clock, self.resources = tasks, policy, clock, resources
        self._report, self._retention, self._guards, self._grace = report, retention, guards, grace
        self._completion, self._hides = completion, hides
        self.unknown = UnknownTasks(tasks)
        self.limited = bool(policy)
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(threads)

    def close(self) -> None:
        """Let idle threads end."""
        self._threads.close()

    async def run(self, run: Run, now: int) -> Ack:
        """Run one attempt, which starts ``now`` (microseconds), to its end and return what to record."""
        job, run.started_at = run.job, now
        task = self.tasks.get(job.task)
        outcome = self._refusal(run, task)
        if outcome is None and job.origin is not None and (guard := self._guards.get(job.origin)) is not None:
            outcome = await self._guarded(run, guard)
        if outcome is not None:
            return self.settle(run, outcome, ran=False)
        assert task is not None
        call = self._call(run, task)
        outcome = await (call if api() is None else traced(job, now, call, self._hides))
        if run.completed is not None:
            return await self._settle_completed(run, task, outcome)
        return self.settle(run, outcome)

    async def _settle_completed(self, run: Run, task: Task[Any, Any], outcome: Outcome) -> Ack:
        """The handler completed its job in a transaction of its own: find out whether that committed."""
        assert run.completed is not None
        run.recorded = await self._stands(run)
        if not run.recorded:
            if isinstance(outcome, Completed):
                outcome = self._failed(run, task, NotCommitted("it completed in a transaction that did not commit"))
            return self.settle(run, outcome)
        if not isinstance(outcome, Completed):
            what = self._hides.of_job(outcome.error if isinstance(outcome, Failed) else outcome.reason, run.job)
            log.warning("job %s is completed by its own transaction; what came after is ignored: %s", run.job.id, what)
        return run.completed

    async def _stands(self, run: Run) -> bool:
        """Tell whether the handler's own transaction committed; False where that is this worker's business no more."""
        if run.left:
            return False
        asked = run.question = asyncio.ensure_future(self._completion.committed(run.job))
        while not asked.done():
            # A stop is meant for the handler, which has ended: only the answer tells what to record.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({asked})
        return not asked.cancelled() and asked.result()

    def _complete(self, run: Run, connection: Any, result: Any, sync: bool) -> Any:
        """Record the completion on the handler's connection; an awaitable unless ``sync``."""
        if connection is None:
            raise InvalidJob("complete() takes the connection whose transaction the completion is to be part of.")
        before, run.completed = run.completed, self.settle(run, _completed(result))
        again = before is not None
        if not sync:
            return self._record(run, before, self._completion.record(run.completed, connection, again))
        try:
            return self._completion.record_sync(run.completed, connection, again)
        except InvalidJob:
            run.completed = before
            raise

    async def _record(self, run: Run, before: Ack | None, recording: Awaitable[bool]) -> bool:
        try:
            return await recording
        except InvalidJob:
            # Refused before anything was written. After other errors only the row can tell.
            run.completed = before
            raise

    def settle(self, run: Run, outcome: Outcome, *, ran: bool = True) -> Ack:
        """Return the Ack for an attempt's outcome under its task's policy; one that never ran starts where it ends."""
        job, retention = run.job, self._retention
        on_retry: OnRetry = "hold"
        task = self.tasks.get(job.task)
        if task is not None:
            on_retry = task.options.on_retry
            retention = self._retention if task.retention_us is None else task.retention_us
        caps = tuple([name for name, _ in self.policy.caps(job.task, job.queue)]) if self.limited else ()
        now = self.clock.now()
        began = run.started_at or job.claimed_at if ran else now
        return decide(job, outcome, now, began, on_retry, retention, caps)

    def _refusal(self, run: Run, task: Task[Any, Any] | None) -> Outcome | None:
        """Return why the job must not run now; None where it may."""
        job = run.job
        if job.cancel or run.why == "cancelled":
            return Skipped("cancelled before it started", "cancelled")
        if run.why:
            return Snoozed(0, f"given back unrun: {run.why}", released=True)
        if task is None:
            self.unknown.meet(job)
            return Snoozed(0, f"given back unrun: this worker does not know task {job.task!r}", released=True)
        return None if job.max_late is None else lateness_verdict(job, run.started_at)

    async def _guarded(self, run: Run, guard: Guard) -> Outcome | None:
        task = self.tasks[run.job.task]
        try:
            reason = await guard(run.job)
        except asyncio.CancelledError as error:
            return self._stopped(run, task, error)
        except Exception as error:
            return self._failed(run, task, error)
        return None if reason is None else Skipped(f"skipped: {reason}")

    async def _call(self, run: Run, task: Task[Any, Any]) -> Outcome:
        timer: asyncio.TimerHandle | None = None
        try:
            arguments = task.decode(run.job.args)
        except msgspec.MsgspecError as error:
            return self._undecodable(run, task, error)
        context = run.context = JobContext(
            run.job, self.resources, self._report, self._loop, partial(self._complete, run)
        )
        enter(context)
        args, named = task.bind(arguments, context)

        def begin() -> None:
            nonlocal timer
            if task.options.timeout is not None:
                timer = self._loop.call_later(task.options.timeout, run.stop, "timeout")

        try:
            if task.is_async:
                begin()
                result = await task.function(*args, **named)
            else:
                # Until a thread is free, no time of its own passes.
                result = await self._in_thread(run, partial(task.function, *args, **named), begin)
        except asyncio.CancelledError as error:
            return self._stopped(run, task, error)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            return self._failed(run, task, error)
        finally:
            if timer is not None:
                timer.cancel()
        return _completed(result)

    async def _in_thread(self, run: Run, function: Callable[[], Any], begun: Callable[[], None]) -> Any:
        future = self._threads.submit(function, begun)
        while True:
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                if future.done() or self._threads.withdraw(future):
                    raise
                # A thread can't be ended from outside: it is shown the flag, and then given a while to return.
                done, _ = await asyncio.wait({future}, timeout=self._grace)
                if not done:
                    log.error("job %s ignores its flag (%s): its thread is left behind", run.job.id, run.why)
                    self._threads.leave(future)
                    raise
                if run.why == "timeout":
                    raise
                return future.result()

    def _stopped(self, run: Run, task: Task[Any, Any], error: asyncio.CancelledError) -> Outcome:
        if run.why == "timeout":
            return self._failed(run, task, TimeoutError(f"timed out after {task.options.timeout:g} s"))
        if run.why == "cancelled":
            return Skipped("cancelled while running", "cancelled")
        if run.why:
            return Snoozed(0, f"given back: {run.why}", released=True)
        return self._failed(run, task, error)

    def _failed(self, run: Run, task: Task[Any, Any], error: BaseException) -> Outcome:
        job = run.job
        if isinstance(error, Snooze):
            return Snoozed(int(error.delay * SECOND), _text(error))
        text, trace = describe(error)
        if isinstance(error, Discard):
            return Failed(text, trace, None, _text(error))
        failures = job.attempt - job.snoozes
        try:
            delay = task.options.retry.seconds(failures, error)
        except Exception as broken:
            # What the handler raised is in the row, and may quote what the log is not to hold.
            broken.__suppress_context__ = True
            log.exception("the retry policy of %s failed for job %s; retrying in 60 s", job.task, job.id)
            delay, text = 60.0, f"{text} (and its retry policy failed: {broken!r})"
        if delay is None:
            return Failed(text, trace, None, f"its retry rules discard {type(error).__name__}")
        return Failed(text, trace, int(delay * SECOND))

    def _undecodable(self, run: Run, task: Task[Any, Any], error: msgspec.MsgspecError) -> Outcome:
        # Time may bring the deploy that understands them, so this is retried; the arguments stay in the row.
        why = ValueError(
            f"the stored arguments do not fit {task.name}'s signature: {error}. They are kept; "
            "mend the signature (give new parameters defaults), then retry the job."
        )
        return self._failed(run, task, why)


def _completed(result: Any) -> Completed:
    if result is None:
        return Completed()
    try:
        text = msgspec.json.encode(result)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        return Completed(None, f"its result of type {type(result).__name__} can't be stored as JSON: {error}")
    if len(text) > MAX_RESULT:
        return Completed(None, f"its result of {len(text):,} bytes is over {MAX_RESULT:,} and was not stored")
    return Completed(text.decode())


def describe(error: BaseException) -> tuple[str, str]:
    """Return an error as one line, and its traceback (the last 16 KiB), both safe to store as text."""
    line = f"{type(error).__name__}: {_text(error)}"
    stack = error.stack if isinstance(error, NodeError) else None
    trace = _storable(stack or "".join(traceback.format_exception(error)))
    return line[:2000], trace[-_MAX_TRACEBACK:]


def _text(error: BaseException) -> str:
    """Return what an error says, safe to store as text, even where its own ``__str__`` raises."""
    try:
        text = str(error)
    except Exception as broken:
        text = f"(its text can't be shown: __str__ raised {type(broken).__name__})"
    return _storable(text)


def _storable(text: str) -> str:
    # PostgreSQL's text holds no NUL, and one such outcome would keep all others of its worker from being recorded.
    return text.encode("utf-8", "replace").decode().replace("\0", "\\x00")
