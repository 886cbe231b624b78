"""The resources and hooks of an application: opened once a process, however many workers and drains share them."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from oncue.declare import Declarations

log = logging.getLogger("oncue.service")


class Lifespan:
    """Opens what ``@app.provide`` and ``@app.on_start`` declare for the first user, and closes it after the last."""

    def __init__(self, declared: Declarations) -> None:
        self._declared = declared
        self._held: _Held | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Mapping[type, Any]]:
        """Yield the resources by type. Raises what a provider raised; hooks that fail are logged."""
        held = self._held
        if held is None or held.ended.is_set():
            held = self._held = _Held(self._declared, None if held is None else held.task)
        held.users += 1
        try:
            await asyncio.shield(held.ready)
            yield held.resources
        finally:
            held.users -= 1
            if held.users == 0:
                held.ended.set()
                await asyncio.shield(asyncio.wait({held.task}))


class _Held:
    """One opening. A task of its own enters and leaves the providers, as those built on task groups require."""

    def __init__(self, declared: Declarations, before: asyncio.Task[None] | None) -> None:
        self.users = 0
        self.resources: dict[type, Any] = {}
        self.ended = asyncio.Event()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._hold(declared, before))

    async def _hold(self, declared: Declarations, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            # Hooks may share globals: those of the opening before must be through.
            await asyncio.wait({before})
        try:
            async with contextlib.AsyncExitStack() as stack:
                await self._open(declared, stack)
                self.ready.set_result(None)
                await self.ended.wait()
        except Exception as error:
            if self.ready.done():
                log.exception("a resource failed to close")
            else:
                self.ended.set()
                self.ready.set_exception(error)

    async def _open(self, declared: Declarations, stack: contextlib.AsyncExitStack) -> None:
        for kind, provider in declared.providers.items():
            made: Any = provider()
            if inspect.isasyncgen(made):
                entered = contextlib.asynccontextmanager(lambda m=made: m)()
                self.resources[kind] = await stack.enter_async_context(entered)
            else:
                self.resources[kind] = stack.enter_context(contextlib.contextmanager(lambda m=made: m)())
        for start in declared.start_hooks:
            await call_hook(start)
        for hook in reversed(declared.stop_hooks):
            stack.push_async_callback(call_hook, hook)


async def call_hook(function: Callable[..., Awaitable[None] | None], *args: Any) -> None:
    """Call a user's hook; one that fails is logged and stops nothing."""
    try:
        answer = function(*args)
        if inspect.isawaitable(answer):
            await answer
    except Exception:
        log.exception("the hook %r failed", function)
