"""Who listens in this process: hints within it need no server and no file."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

Heard = Callable[[int | None], None]
_listeners: dict[str, dict[int, tuple[asyncio.AbstractEventLoop, Heard]]] = {}
_numbers = itertools.count()


class Hub:
    """The listeners of one wake queue, among those of all wake queues of this process on the same database."""

    def __init__(self, database: str) -> None:
        self._all = _listeners.setdefault(database, {})
        self._mine: set[int] = set()
        self.sent = 0
        """Hints of this process."""
        self.heard = 0
        """What was heard from elsewhere, or looked for."""

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Have ``heard`` called on the running loop for each hint; the returned function ends that."""
        number = next(_numbers)
        self._all[number] = (asyncio.get_running_loop(), heard)
        self._mine.add(number)
        return lambda: self._forget(number)

    def tell_all(self, due: int | None) -> None:
        """Tell every listener of this database in this process."""
        self.sent += 1
        self._tell(due, list(self._all))

    def tell_mine(self, due: int | None) -> None:
        """Tell the listeners of this wake queue only."""
        self.heard += 1
        self._tell(due, list(self._mine))

    def clear(self) -> None:
        """Forget the listeners of this wake queue."""
        for number in list(self._mine):
            self._forget(number)

    def _forget(self, number: int) -> None:
        self._mine.discard(number)
        self._all.pop(number, None)

    def _tell(self, due: int | None, numbers: list[int]) -> None:
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        for number in numbers:
            loop, heard = self._all.get(number, (None, None))
            if loop is None or heard is None:
                continue
            if loop is here:
                heard(due)
            else:
                try:
                    loop.call_soon_threadsafe(heard, due)
                except RuntimeError:
                    self._forget(number)
