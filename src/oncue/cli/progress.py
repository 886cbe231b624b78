"""Progress on standard error, where a person looks at it: what takes long says how far it is."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_QUICK = 0.5


class Searching:
    """Tells how far a search down the ids has come, once it takes longer than half a second."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._began = time.monotonic()
        self._bar: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Callable[[int, int], None]:
        return self._told

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _told(self, below: int, found: int) -> None:
        """Say that everything from ``below`` on has been looked at, and so many were found."""
        if not sys.stderr.isatty() or time.monotonic() - self._began < _QUICK:
            return
        if self._bar is None:
            progress = self._stack.enter_context(_progress())
            self._bar = progress, progress.add_task("looking", total=below)
            self._first = below
        progress, bar = self._bar
        progress.update(bar, completed=self._first - below, description=f"looking, {found} found")


@contextlib.contextmanager
def working(text: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar for the length of the block; what it yields is told how many of ``total`` are done."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with _progress() as progress:
        bar = progress.add_task(text, total=total)
        yield lambda done: progress.update(bar, completed=done)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
