"""Sending hints over Redis from a thread of its own, so that neither a loop nor synchronous code ever waits for it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from oncue.redis_link import driver

_PAUSE = 0.005
_AFTER_TROUBLE = 1.0
_JOIN = 1.0


class Publisher:
    """Publishes the earliest of the hints that came since it last did; what can't be sent is forgotten and counted."""

    def __init__(self, connect: Callable[[], Any], channel: str, text: Callable[[int], str]) -> None:
        self._connect, self._channel, self._text = connect, channel, text
        self.unsent = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget the thread and the locks of the process that this one was forked from: none of them works here."""
        self._pid = os.getpid()
        self._lock, self._wanted = threading.Lock(), threading.Event()
        self._earliest: int | None = None
        self._thread: threading.Thread | None = None

    def send(self, due: int) -> None:
        """Have ``due`` (microseconds) published soon. Never waits, never raises; may be called from any thread."""
        if self._pid != os.getpid():
            self._begin_anew()
        with self._lock:
            self._earliest = due if self._earliest is None else min(due, self._earliest)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="oncue-hints", daemon=True)
                self._thread.start()
            self._wanted.set()

    def close(self) -> None:
        """Send what is left, within a second, and end the thread; ``send`` begins another."""
        if self._pid != os.getpid():
            return
        with self._lock:
            thread, self._thread = self._thread, None
            self._wanted.set()
        if thread is not None:
            thread.join(_JOIN)

    def _run(self) -> None:
        mine, client = threading.current_thread(), self._connect()
        error = driver("redis.exceptions").RedisError
        try:
            while True:
                self._wanted.wait()
                with self._lock:
                    due, self._earliest = self._earliest, None
                    over = self._thread is not mine
                    if not over:
                        self._wanted.clear()
                pause = _PAUSE
                if due is not None:
                    try:
                        client.publish(self._channel, self._text(due))
                    except (error, OSError):
                        self.unsent += 1
                        pause = _AFTER_TROUBLE
                if over:
                    return
                time.sleep(pause)
        finally:
            client.close()
