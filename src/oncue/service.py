"""The background roles of one process: worker, planner, sweeper, with the resources that handlers use."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from oncue.bridge import adopt_once, adopting
from oncue.clock import SECOND, from_us
from oncue.completion import Completion
from oncue.drain import Drain, Drained
from oncue.errors import StoreError
from oncue.job import Ack, Claimed
from oncue.lifespan import call_hook
from oncue.logs import about
from oncue.minutes import writing_minutes
from oncue.planner import Planner
from oncue.redaction import Redaction
from oncue.relay import carried
from oncue.runner import Runner
from oncue.sweeper import Sweeper, Swept
from oncue.task import DiscardedJob
from oncue.worker import Worker, WorkerOptions

if TYPE_CHECKING:
    from oncue.app import OnCue

log = logging.getLogger("oncue.service")


class Service:
    """Runs an application's background roles until stopped. ``ready`` is set once the worker claims."""

    def __init__(self, app: OnCue, options: WorkerOptions | None = None, *, worker: bool = True) -> None:
        self.app = app
        self.options = options or WorkerOptions()
        self.ready = asyncio.Event()
        self.planner = Planner(app.store, app.clock, app.name, app.schedules)
        self.resources: dict[type, Any] = {}
        self._hides = Redaction(app.redacted)
        self.runner = Runner(
            app.tasks,
            app.policy,
            app.clock,
            self.resources,
            self._report,
            app.retention_us,
            app.sources.guards(),
            Completion(app.store, self._worker_id),
            self.options.threads,
            self.options.grace,
            self._hides,
        )
        self.worker: Worker | None = None
        if worker:
            self.worker = Worker(
                app.store,
                app.wake,
                app.clock,
                self.runner,
                self.options,
                retention=app.retention_us,
                plan=self.planner.run_once,
                changed=app.sources.reconcile_changed,
                settled=self._settled,
                recorder=app.metrics,
            )
        self.sweeper = Sweeper(
            app.store,
            app.wake,
            app.clock,
            retention=app.retention_us,
            plan=self.planner.run_once,
            reconcile=app.sources.reconcile,
            upkeep=self._upkeep,
            settled=self._settled,
            recorder=app.metrics,
        )
        self._hooks: set[asyncio.Future[None]] = set()

    async def _report(self, job: Claimed, value: dict[str, Any]) -> bool:
        return await self.app.store.progress(self._worker_id(), job, value)

    async def _upkeep(self) -> int:
        if not self.app.channels:
            return 0
        from oncue.conversation.upkeep import upkeep

        return await upkeep(self.app.channels.values())

    def _worker_id(self) -> int:
        return self.worker.id if self.worker is not None else 0

    def _settled(self, job: Claimed, ack: Ack) -> None:
        """An outcome is durable: tell waiters in this process, and call ``on_discard``."""
        task = self.app.tasks.get(job.task)
        if ack.state != "scheduled":
            self.app.results.ended()
        if ack.outcome == "retried":
            delay = (ack.scheduled_at - ack.finished_at) / SECOND
            told, reason, error = "job %s (%s): %s, again in %.1f s: %s", *self._shown(job, ack)
            log.warning(told, job.id, job.task, reason, delay, error, extra=about(job))
        elif ack.state == "discarded":
            told, reason, error = "job %s (%s) discarded: %s; last error: %s", *self._shown(job, ack)
            log.error(told, job.id, job.task, reason, error, extra=about(job))
            if task is not None and task.options.on_discard is not None:
                given_up = DiscardedJob(
                    job.id, job.task, job.args, job.key, job.group, job.attempt, ack.reason or "", ack.error
                )
                hook = asyncio.ensure_future(call_hook(task.options.on_discard, given_up))
                self._hooks.add(hook)
                hook.add_done_callback(self._hooks.discard)

    def _shown(self, job: Claimed, ack: Ack) -> list[str | None]:
        """Return an outcome's reason and error as the log may hold them."""
        return [None if text is None else self._hides.of_job(text, job) for text in (ack.reason, ack.error)]

    async def run(self, stop: asyncio.Event) -> None:
        """Run every role until ``stop`` is set; the application must be open. Ends cleanly."""
        app = self.app
        relaying = carried(app.store, app.wake, app.clock, self.worker, app.sweep_us, stop)
        counting = writing_minutes(app.store, app.clock, app.metrics)
        async with self._opened(), counting, relaying, adopting(app), app.alerts.watching(self.ready):
            sweeping = asyncio.create_task(self._sweep(stop))
            try:
                if self.worker is not None:
                    await self.worker.start(stop)
                    self.ready.set()
                    await self.worker.run(stop)
                else:
                    self.ready.set()
                    await stop.wait()
            finally:
                stop.set()
                self.ready.clear()
                sweeping.cancel()
                await asyncio.gather(sweeping, return_exceptions=True)

    async def sweep(self) -> Swept:
        """Do the sweeper's duties once; the application must be open. Raises a StoreError, or what a source raised."""
        async with self._opened():
            try:
                return await self.sweeper.run_once()
            finally:
                await self.app.alerts.run_once()

    async def drain(self, limit: int | None, seconds: float | None) -> Drained:
        """Sweep, then work until nothing is due or the budget is used up; see ``OnCue.drain``.

        The application must be open, and this service made without a worker of its own.
        """
        app, began = self.app, time.monotonic()
        async with self._opened(), writing_minutes(app.store, app.clock, app.metrics):
            await adopt_once(app)
            await self._sweep_once()
            self.worker = drain = Drain(
                app.store,
                app.wake,
                app.clock,
                self.runner,
                self.options,
                limit=limit,
                retention=app.retention_us,
                plan=self.planner.run_once,
                changed=app.sources.reconcile_changed,
                settled=self._settled,
                recorder=app.metrics,
            )
            await drain.drain(None if seconds is None else seconds - (time.monotonic() - began))
            await app.alerts.run_once()
        left = await app.store.backlog(app.clock.now(), self.options.queue_names)
        next_due = None if left.next_due is None else from_us(left.next_due)
        return Drained(drain.ran, drain.failed, drain.skipped, left.remaining, next_due)

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        """Hold the resources, with the stored schedules and sources in step with the code."""
        async with self.app.lifespan.opened() as resources:
            self.resources.update(resources)
            try:
                await self.app.sources.install()
                await self.planner.sync()
                yield
            finally:
                await self._end_hooks()
                self.runner.close()

    async def _end_hooks(self) -> None:
        """Let the hooks end that were called, within the grace."""
        if not self._hooks:
            return
        _, late = await asyncio.wait(set(self._hooks), timeout=self.options.grace)
        for hook in late:
            log.error("an on_discard hook did not end within %g s of shutdown: it is cancelled", self.options.grace)
            hook.cancel()

    async def _sweep(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._sweep_once()
            except StoreError as error:
                log.error("the sweep failed; the next one follows: %s", error)
            await asyncio.sleep(self.app.sweep_us / SECOND)

    async def _sweep_once(self) -> None:
        try:
            swept = await self.sweeper.run_once()
            log.debug("%s", swept)
        except StoreError:
            raise
        except Exception:
            log.exception("the sweep failed; the next one follows")
