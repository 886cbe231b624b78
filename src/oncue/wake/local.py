"""Hints within a process, and between processes that share a SQLite file."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from oncue.wake.watch import FileWatch, watch_file

log = logging.getLogger("oncue.wake")
Heard = Callable[[int | None], None]
_listeners: dict[str, dict[int, tuple[asyncio.AbstractEventLoop, Heard]]] = {}
_numbers = itertools.count()


class LocalWake:
    """Calls listeners of the same file in this process directly, and hears other processes by its ``-wal`` file.

    A commit by anyone, also by the application's own SQL, changes that file; so nothing has to be sent.
    """

    def __init__(self, url: str) -> None:
        self._path = Path(unquote(urlsplit(url).path[1:])).resolve()
        self._hub = _listeners.setdefault(str(self._path), {})
        self._mine: set[int] = set()
        self._watch: FileWatch | None = None
        self._problem: str | None = None

    @property
    def healthy(self) -> str | None:
        """None, or why other processes are heard late."""
        return self._problem

    async def start(self) -> None:
        """Begin to watch the file's write-ahead log."""
        wal = self._path.with_name(self._path.name + "-wal")
        self._watch, self._problem = watch_file(wal, lambda: self._tell(None, only_mine=True))
        if self._problem:
            log.warning("%s", self._problem)

    async def close(self) -> None:
        """Stop watching, and forget the listeners."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        for number in list(self._mine):
            self._forget(number)

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Have ``heard`` called on the running loop for each hint."""
        number = next(_numbers)
        self._hub[number] = (asyncio.get_running_loop(), heard)
        self._mine.add(number)
        return lambda: self._forget(number)

    def _forget(self, number: int) -> None:
        self._mine.discard(number)
        self._hub.pop(number, None)

    def hint(self, due: int) -> None:
        """Tell every listener of this file in this process; others see the file change."""
        self._tell(due, only_mine=False)

    def _tell(self, due: int | None, *, only_mine: bool) -> None:
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        for number, (loop, heard) in list(self._hub.items()):
            if only_mine and number not in self._mine:
                continue
            if loop is here:
                heard(due)
            else:
                try:
                    loop.call_soon_threadsafe(heard, due)
                except RuntimeError:
                    self._hub.pop(number, None)
