"""Threads for synchronous handlers. They are daemons: one that never returns must not keep the process alive."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

_Item = tuple[contextvars.Context, Callable[[], Any], Callable[[], None], "asyncio.Future[Any]"]


class Threads:
    """Up to ``most`` threads, started when needed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._work: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._threads = 0
        # Threads that wait for work, less the work that waits for a thread.
        self._idle = 0
        self._lock = threading.Lock()
        self._queued: set[asyncio.Future[Any]] = set()
        self._running: set[asyncio.Future[Any]] = set()
        self._left: set[asyncio.Future[Any]] = set()

    def submit(self, function: Callable[[], Any], begun: Callable[[], None]) -> asyncio.Future[Any]:
        """Run ``function`` in a thread, in a copy of the present context; the future holds its outcome.

        ``begun`` is called on the running loop when a thread has taken it up.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._idle <= 0 and self._threads < self._most:
                self._start()
            self._idle -= 1
            self._queued.add(future)
        self._work.put((contextvars.copy_context(), function, begun, future))
        return future

    def _start(self) -> None:
        self._threads += 1
        self._idle += 1
        threading.Thread(target=self._run, name=f"oncue-job-{self._threads}", daemon=True).start()

    def withdraw(self, future: asyncio.Future[Any]) -> bool:
        """Take back what no thread has begun yet; False where one has. Once withdrawn, it never runs."""
        with self._lock:
            waiting = future in self._queued
            self._queued.discard(future)
            return waiting

    def leave(self, future: asyncio.Future[Any]) -> None:
        """Count no more on the thread that runs this: others have its place, and it ends with its work."""
        with self._lock:
            if future not in self._running:
                return
            self._left.add(future)
            self._most += 1
            if self._idle < 0:
                self._start()

    def _ended(self, future: asyncio.Future[Any]) -> bool:
        """Tell whether the thread that ran this is to end, as its place was given to another."""
        with self._lock:
            self._running.discard(future)
            if future not in self._left:
                self._idle += 1
                return False
            self._left.discard(future)
            self._most -= 1
            self._threads -= 1
            return True

    def _begins(self, future: asyncio.Future[Any]) -> bool:
        with self._lock:
            if future not in self._queued:
                return False
            self._queued.discard(future)
            self._running.add(future)
            return True

    def close(self) -> None:
        """Let idle threads end; busy ones end with their work, or with the process."""
        for _ in range(self._threads):
            self._work.put(None)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            context, function, begun, future = item
            result, error = None, None
            begins = self._begins(future)
            if begins:
                try:
                    future.get_loop().call_soon_threadsafe(begun)
                    result = context.run(function)
                except BaseException as raised:
                    error = raised
            ends = self._ended(future)
            try:
                if begins:
                    future.get_loop().call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                return
            if ends:
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
