"""``oncue worker`` and ``oncue serve``: the processes that stay."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

import click

from oncue.app import OnCue
from oncue.cli.common import fail, load_app, who
from oncue.errors import ConfigError
from oncue.exporter import address_of, exporting
from oncue.logs import say, to_stderr
from oncue.settings import unset
from oncue.sockets import listen
from oncue.words import counted
from oncue.worker import WorkerOptions

F = TypeVar("F", bound=Callable[..., Any])
_LEVELS = ("debug", "info", "warning", "error")
_GARBAGE = 10_000
_above_zero = click.FloatRange(0, min_open=True)


def _worker_options(command: F) -> F:
    for option in reversed(
        (
            click.option("--queues", metavar="A,B",
                         help="Only these queues; A=3,B=1: with so much of the starts each.  [default: all]"),
            click.option("--concurrency", type=click.IntRange(1), default=200, show_default=True, help="Jobs at once."),
            click.option("--threads", type=click.IntRange(1), default=32, show_default=True, help="Synchronous ones."),
            click.option("--lease", type=_above_zero, default=10.0, show_default=True,
                         help="Seconds without a sign of life after which others take its jobs."),
            click.option("--grace", type=click.FloatRange(0), default=10.0, show_default=True,
                         help="Seconds that running jobs may go on at shutdown."),
            click.option("--name", help="What this worker is called.  [default: HOST-PID]"),
            click.option("--uvloop/--no-uvloop", default=False,
                         help="Use uvloop, whose timers have whole milliseconds.  [default: no]"),
            click.option("--log-level", type=click.Choice(_LEVELS), default="info", show_default=True,
                         help="Has no effect where the application sets up logging."),
            click.option("--log-format", type=click.Choice(("text", "json")), default="text", show_default=True,
                         help="json: an object a line, with job, task, attempt and key."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@click.command(short_help="Run the jobs of an application until told to stop.")
@click.argument("app")
@click.option("--metrics", metavar="PORT", help="Answer GET /metrics, on loopback; HOST:PORT for elsewhere.")
@_worker_options
def worker(app: str, metrics: str | None, uvloop: bool, log_level: str, log_format: str, **options: Any) -> None:
    """Run the jobs of APP (module:attribute) until SIGTERM or SIGINT.

    At the first signal it takes no more jobs, lets running ones go on for --grace seconds and gives the others back;
    at the second it ends at once. Exit code 0 after a clean stop.
    """
    loaded, made = load_app(app), _options(**options)
    _prepare_process(log_level, log_format)
    try:
        address = None if metrics is None else address_of(metrics)
    except ConfigError as error:
        raise click.UsageError(f"--metrics: {error}") from None
    _run(_work(loaded, made, address), uvloop)


async def _work(app: OnCue, options: WorkerOptions, metrics: tuple[str, int] | None) -> None:
    shown = contextlib.nullcontext() if metrics is None else exporting(app, metrics)
    async with _stop_on_signals() as stop, app, shown as url:
        service = app.service(options)
        working = asyncio.create_task(service.run(stop))
        ready = asyncio.create_task(service.ready.wait())
        await asyncio.wait({working, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not working.done():
            say(_ready_line(app, options) + (f", metrics at {url}" if url else ""))
        await working


@click.command(short_help="Serve the page, the HTTP API, the cron route and health, with a worker inside.")
@click.argument("app")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--no-worker", is_flag=True, help="Only serve: jobs run elsewhere, or when the cron route is called.")
@_worker_options
def serve(
    app: str, host: str, port: int, no_worker: bool, uvloop: bool, log_level: str, log_format: str, **options: Any
) -> None:
    """Serve the page, HTTP API, cron route, webhooks and health of APP (module:attribute), with a worker inside.

    At this machine itself the page needs no token (ONCUE_LOOPBACK=off: it does); elsewhere `oncue tokens` makes one.
    Stops as `oncue worker` does. Needs `pip install 'oncue[web]'`.
    """
    try:
        import uvicorn
    except ModuleNotFoundError:
        fail("`oncue serve` needs a web server: pip install 'oncue[web]'")
    loaded, made = load_app(app), _options(**options)
    _prepare_process(log_level, log_format)
    from oncue.web import web_app

    config = uvicorn.Config(
        web_app(loaded, worker=not no_worker, options=made),
        lifespan="on",
        log_config=None,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=max(1, round(made.grace)),
    )
    with _listen(host, port) as listener:
        _run(_serve(uvicorn.Server(config), listener, loaded, None if no_worker else made), uvloop)


async def _serve(server: Any, listener: socket.socket, app: OnCue, options: WorkerOptions | None) -> None:
    from oncue.operate import Operator

    started = server.startup

    async def startup(sockets: Any = None) -> None:
        await started(sockets=sockets)
        if server.started:
            host, port = listener.getsockname()[:2]
            address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            say(f"{_ready_line(app, options)}, serving {address}")

    @contextlib.contextmanager
    def signals_are_ours() -> Iterator[None]:
        yield

    server.startup, server.capture_signals = startup, signals_are_ours
    # Opened here too, so that a database that can't be used is one line and no failure of the lifespan.
    async with _stop_on_signals() as stop, app:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        # A page is open for as long as somebody looks, and the server would wait for it all its grace.
        Operator(app, who()).watcher.end()
        server.should_exit = True
        await serving
        if not server.started:
            fail("The application could not start; see above.")


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        fail(f"Can't listen on {host}:{port}: {error}. Is another process there? Choose with --host and --port.")


def _options(queues: str | None, name: str | None, **numbers: Any) -> WorkerOptions:
    try:
        chosen = None if queues is None else _queues(queues)
        return WorkerOptions(queues=chosen, name=name or f"{socket.gethostname()}-{os.getpid()}", **numbers)
    except ConfigError as error:
        raise click.UsageError(f"--queues: {error}" if queues is not None else str(error)) from None


def _queues(text: str) -> frozenset[str] | dict[str, float]:
    """Read ``a,b`` as names, and ``a=3,b`` as names with weights, which are 1 where none is given."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise click.UsageError("--queues names no queue.")
    if not any("=" in part for part in parts):
        return frozenset(parts)
    weights: dict[str, float] = {}
    for part in parts:
        name, _, weight = (each.strip() for each in part.partition("="))
        try:
            weights[name] = float(weight) if "=" in part else 1.0
        except ValueError:
            raise click.UsageError(f"--queues: {part!r} has no number behind its '=', as in mail=3.") from None
    return weights


def _ready_line(app: OnCue, options: WorkerOptions | None) -> str:
    who = f"worker {options.name} ready" if options is not None else "ready without a worker"
    tasks, schedules = len({id(task) for task in app.tasks.values()}), len(app.schedules)
    where = getattr(app.store, "path", None) or app.store.url
    return f"oncue: {who}, database {where}{unset(app.url)}, {counted(tasks, 'task')}, {counted(schedules, 'schedule')}"


def _prepare_process(log_level: str, log_format: str) -> None:
    """Set up what belongs to the whole process: its log, and how often Python looks for cyclic garbage."""
    collect_less_garbage()
    to_stderr(log_level, log_format)


def collect_less_garbage() -> None:
    """Have Python look for cyclic garbage less often, unless the application has a setting of its own.

    A job makes some tens of objects that are gone when it ends. Python's own setting has a look every 700 of them, over
    all that the application holds: a fifth of a busy worker's time.
    """
    first, *others = gc.get_threshold()
    # Neither an application that has its own setting nor one that has it off is overruled.
    if 0 < first < _GARBAGE:
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GARBAGE, *others)


def _run(work: Any, uvloop: bool) -> None:
    """Run to the end on asyncio's own loop, unless asked otherwise.

    uvloop's timers have whole milliseconds, so the worker goes round until the moment has come: decision 006.
    """
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if uvloop:
        try:
            factory = importlib.import_module("uvloop").new_event_loop
        except ModuleNotFoundError:
            fail("uvloop is not installed: pip install uvloop, or leave --uvloop out.")
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


@contextlib.asynccontextmanager
async def _stop_on_signals() -> AsyncIterator[asyncio.Event]:
    """Yield an event that SIGTERM or SIGINT sets; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    def told(number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        # Noted before anything is said: whoever reads it may answer with the second signal in the middle of this.
        seen.append(number)
        if len(seen) > 1:
            say(f"oncue: {name} again: ending at once; running jobs run again elsewhere")
            os._exit(128 + number)
        say(f"oncue: {name}: stopping; once more ends at once")
        loop.call_soon_threadsafe(stop.set)

    # A handler of our own, since the loop's would wait where a job blocks the loop; the loop's as well, since it has a
    # signal wake a loop that is about to sleep.
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        with contextlib.suppress(NotImplementedError):  # Windows, whose loop wakes anyway
            loop.add_signal_handler(number, lambda: None)
        signal.signal(number, told)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, handler)
