"""``oncue status`` and ``oncue top``: how things are, once or live."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import click

from oncue.cli.common import as_json, database, operating, run
from oncue.cli.listening import listening
from oncue.cli.output import on_terminal, to_json
from oncue.cli.overview import Trouble, line, picture, rows, troubles
from oncue.errors import StoreError
from oncue.operate import Operator
from oncue.operate.views import Overview

Seen = tuple[Overview, Sequence[Trouble]]


@click.command(short_help="Show how things are: counts, lateness, what comes, and whether all is well.")
@database
@as_json
def status(database: str | None, as_json: bool) -> None:
    """Show how things are now: counts, lateness, throughput, what comes, jobs that are late or were discarded and why,
    and whether all is well.

    The exit code is 0 also where something isn't: `oncue doctor` is for checks.
    """

    async def work() -> Seen:
        async with operating(database) as operator, listening(operator.app):
            return await _seen(operator)

    found, jobs = run(work())
    if as_json:
        click.echo(to_json(found))
    elif on_terminal():
        from rich.console import Console

        Console().print(picture(found, jobs))
    else:
        for row in rows(found, jobs):
            click.echo("\t".join(row))


@click.command(short_help="Watch how things are, live.")
@click.option("--every", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds between two.")
@click.option("--count", type=click.IntRange(1), help="Show so many and end.")
@database
@click.option("--json", "as_json", is_flag=True, help="An object a line, as `oncue status --json` has it.")
def top(every: float, count: int | None, database: str | None, as_json: bool) -> None:
    """Watch how things are, live: counts, lateness, what comes, and whether all is well. q or Ctrl-C ends it.

    In a pipe: a tab-separated line a second, or with --json an object.
    """

    async def work() -> None:
        async with operating(database) as operator, listening(operator.app):
            with _ending() as over:
                await _shown(_looks(operator, every, count, over), over, as_json)

    run(work())


async def _seen(operator: Operator) -> Seen:
    found = await operator.overview()
    return found, await troubles(operator, found)


async def _looks(
    operator: Operator, every: float, count: int | None, over: asyncio.Event
) -> AsyncIterator[Seen | StoreError]:
    """Yield how things are, again and again; an error where the database can't be asked just now."""
    left = count
    while not over.is_set() and left != 0:
        try:
            yield await _seen(operator)
        except StoreError as error:
            yield error
        left = None if left is None else left - 1
        if left != 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), every)


async def _shown(looks: AsyncIterator[Seen | StoreError], over: asyncio.Event, as_json: bool) -> None:
    if as_json or not on_terminal():
        async for found in looks:
            if isinstance(found, StoreError):
                click.echo(f"Error: {found}", err=True)
            else:
                click.echo(to_json(found[0], indent=0) if as_json else line(found[0]))
        return
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, screen=True) as live, _keys(over.set):
        async for found in looks:
            live.update(Text(str(found), style="red") if isinstance(found, StoreError) else picture(*found))
            live.refresh()


@contextlib.contextmanager
def _ending() -> Iterator[asyncio.Event]:
    """Yield an event that Ctrl-C sets: to end is what was asked for, and no failure."""
    over, loop = asyncio.Event(), asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows, where Ctrl-C raises
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, over.set)
    try:
        yield over
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


@contextlib.contextmanager
def _keys(quit: Callable[[], None]) -> Iterator[None]:
    """Call ``quit`` for the key q, where keys can be read without waiting for Enter."""
    try:
        import termios
        import tty
    except ModuleNotFoundError:  # Windows: Ctrl-C
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    number, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    loop.add_reader(number, lambda: quit() if sys.stdin.read(1) in ("q", "Q", "") else None)
    try:
        yield
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)
