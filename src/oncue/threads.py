"""Threads for synchronous handlers. They are daemons: one that never returns must not keep the process alive."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any


class Threads:
    """Up to ``most`` threads, started when needed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._work: queue.SimpleQueue[tuple[contextvars.Context, Callable[[], Any], asyncio.Future[Any]] | None]
        self._work = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._lock = threading.Lock()
        self._queued: set[asyncio.Future[Any]] = set()

    def submit(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run ``function`` in a thread, in a copy of the present context; the future holds its outcome."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._idle == 0 and self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._run, name=f"oncue-job-{self._threads}", daemon=True).start()
            else:
                self._idle -= 1
            self._queued.add(future)
        self._work.put((contextvars.copy_context(), function, future))
        return future

    def withdraw(self, future: asyncio.Future[Any]) -> bool:
        """Take back what no thread has begun yet; False where one has. Once withdrawn, it never runs."""
        with self._lock:
            waiting = future in self._queued
            self._queued.discard(future)
            return waiting

    def close(self) -> None:
        """Let idle threads end; busy ones end with their work, or with the process."""
        for _ in range(self._threads):
            self._work.put(None)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            context, function, future = item
            result, error = None, None
            begins = self.withdraw(future)
            if begins:
                try:
                    result = context.run(function)
                except BaseException as raised:
                    error = raised
            with self._lock:
                self._idle += 1
            try:
                if begins:
                    future.get_loop().call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                return


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        future.set_exception(RuntimeError(f"the handler raised {error!r}"))
    else:
        future.set_exception(error)
