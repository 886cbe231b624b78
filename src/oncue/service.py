"""The background roles of one process: worker, planner, sweeper, with the resources that handlers use."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from oncue.clock import SECOND
from oncue.errors import StoreError
from oncue.job import Ack, Claimed
from oncue.planner import Planner
from oncue.runner import Runner
from oncue.sweeper import Sweeper
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
        self.runner = Runner(
            app.tasks,
            app.policy,
            app.clock,
            self.resources,
            self._report,
            app.retention_us,
            app.sources.guards(),
            self.options.threads,
            self.options.grace,
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
            )
        self.sweeper = Sweeper(
            app.store,
            app.wake,
            app.clock,
            retention=app.retention_us,
            plan=self.planner.run_once,
            reconcile=app.sources.reconcile,
            settled=self._settled,
        )
        self._hooks: set[asyncio.Future[None]] = set()

    async def _report(self, job: Claimed, value: dict[str, Any]) -> bool:
        worker = self.worker.id if self.worker is not None else 0
        return await self.app.store.progress(worker, job, value)

    def _settled(self, job: Claimed, ack: Ack) -> None:
        """An outcome is durable: tell waiters in this process, and call ``on_discard``."""
        task = self.app.tasks.get(job.task)
        if ack.state == "discarded":
            log.error("job %s (%s) discarded: %s; last error: %s", job.id, job.task, ack.reason, ack.error)
            if task is not None and task.options.on_discard is not None:
                told = DiscardedJob(
                    job.id, job.task, job.args, job.key, job.group, job.attempt, ack.reason or "", ack.error
                )
                hook = asyncio.ensure_future(_call(task.options.on_discard, told))
                self._hooks.add(hook)
                hook.add_done_callback(self._hooks.discard)

    async def run(self, stop: asyncio.Event) -> None:
        """Run every role until ``stop`` is set; the application must be open. Ends cleanly."""
        async with contextlib.AsyncExitStack() as stack:
            await self.open(stack)
            sweeping = asyncio.create_task(self._sweep(stop))
            try:
                if self.worker is not None:
                    await self.worker.start()
                    self.ready.set()
                    await self.worker.run(stop)
                else:
                    self.ready.set()
                    await stop.wait()
            finally:
                stop.set()
                sweeping.cancel()
                await asyncio.gather(sweeping, *self._hooks, return_exceptions=True)
                self.runner.close()

    async def open(self, stack: contextlib.AsyncExitStack) -> None:
        """Make the resources, call the start hooks, and put the stored schedules in step with the code."""
        for kind, provider in self.app.providers.items():
            made: Any = provider()
            if inspect.isasyncgen(made):
                self.resources[kind] = await stack.enter_async_context(
                    contextlib.asynccontextmanager(lambda m=made: m)()
                )
            else:
                self.resources[kind] = stack.enter_context(contextlib.contextmanager(lambda m=made: m)())
        for start in self.app.start_hooks:
            await _call(start)
        for hook in reversed(self.app.stop_hooks):
            stack.push_async_callback(_call, hook)
        await self.app.sources.install()
        await self.planner.sync()

    async def _sweep(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                swept = await self.sweeper.run_once()
                log.debug("%s", swept)
            except StoreError as error:
                log.error("the sweep failed; the next one follows: %s", error)
            except Exception:
                log.exception("the sweep failed; the next one follows")
            await asyncio.sleep(self.app.sweep_us / SECOND)


async def _call(function: Callable[..., Awaitable[None] | None], *args: Any) -> None:
    try:
        answer = function(*args)
        if inspect.isawaitable(answer):
            await answer
    except Exception:
        log.exception("the hook %r failed", function)
