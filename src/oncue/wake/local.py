"""Hints within a process, and between processes that share a SQLite file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from oncue.wake.hub import Heard, Hub
from oncue.wake.watch import FileWatch, watch_file

log = logging.getLogger("oncue.wake")


class LocalWake:
    """Calls listeners of the same file in this process directly, and hears other processes by its ``-wal`` file.

    A commit by anyone, also by the application's own SQL, changes that file; so nothing has to be sent.
    """

    hears_commits = True
    timers = True
    carrier = None

    def __init__(self, url: str) -> None:
        self._path = Path(unquote(urlsplit(url).path[1:])).resolve()
        self._hub = Hub(str(self._path))
        self._watch: FileWatch | None = None
        self._problem: str | None = None

    @property
    def counts(self) -> dict[str, int]:
        """What came since the start; a file loses nothing."""
        return {"sent": self._hub.sent, "heard": self._hub.heard, "lost": 0}

    @property
    def healthy(self) -> str | None:
        """None, or why other processes are heard late."""
        return self._problem

    async def start(self) -> None:
        """Begin to watch the file's write-ahead log."""
        self._begin()

    def _begin(self) -> None:
        wal = self._path.with_name(self._path.name + "-wal")
        self._watch, self._problem = watch_file(wal, lambda: self._hub.tell_mine(None))
        if self._problem:
            log.warning("%s", self._problem)

    async def close(self) -> None:
        """Stop watching, and forget the listeners."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._hub.clear()

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Have ``heard`` called on the running loop for each hint."""
        return self._hub.listen(heard)

    def reconnect(self) -> None:
        """Where the file could not be watched, try that again."""
        if self._problem is not None and self._watch is not None:
            self._watch.close()
            self._begin()

    def hint(self, due: int) -> None:
        """Tell every listener of this file in this process; others see the file change."""
        self._hub.tell_all(due)
