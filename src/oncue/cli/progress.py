"""Progress on standard error, where a person looks at it: what takes long says how far it is."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from oncue.errors import OnCueError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")
_QUICK = 0.5
_LOOK = 0.3


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


async def watching(
    text: str, work: Coroutine[Any, Any, T], look: Callable[[], Awaitable[tuple[int, int]]] | None = None
) -> T:
    """Do it; once it takes longer than half a second, show a bar.

    ``look`` tells how many are done, and of how many; without it the bar says that it goes on, and since when.
    """
    if not sys.stderr.isatty():
        return await work
    doing = asyncio.ensure_future(work)
    try:
        await asyncio.wait({doing}, timeout=_QUICK)
        if not doing.done():
            with _progress(counts=look is not None) as progress:
                await _watched(progress, progress.add_task(text, total=None), doing, look)
        return await doing
    finally:
        if not doing.done():
            # Ctrl-C: it has things to give back.
            doing.cancel()
            await asyncio.wait({doing})


async def _watched(
    progress: Progress, bar: TaskID, doing: asyncio.Future[T], look: Callable[[], Awaitable[tuple[int, int]]] | None
) -> None:
    while not doing.done():
        if look is not None:
            # What it looks at may be locked by the very work.
            with contextlib.suppress(OnCueError):
                done, total = await look()
                progress.update(bar, completed=done, total=total)
        await asyncio.wait({doing}, timeout=_LOOK)


def _progress(*, counts: bool = True) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    figures = (MofNCompleteColumn(), TimeRemainingColumn()) if counts else (TimeElapsedColumn(),)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *figures,
        console=Console(stderr=True),
        transient=True,
        # What a handler prints goes above the bar; but where a file or a pipe is to have it, there.
        redirect_stdout=sys.stdout.isatty(),
    )
