"""What the commands share: errors in one line, the database, who acts, and loading an application."""

from __future__ import annotations

import asyncio
import getpass
import importlib
import os
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from oncue.app import OnCue
from oncue.errors import ConfigError, OnCueError
from oncue.store import Store

if TYPE_CHECKING:
    from oncue.operate import Operator

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
_APP = "oncue.cli.app"

only_database = click.option(
    "--database", metavar="URL", help="The database. Default: DATABASE_URL, else sqlite:///oncue.db."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


def database(command: F) -> F:
    """Let a command take ``--database``, or ``--app`` in its place: what an application knows beyond its database."""
    command = click.option(
        "--app", metavar="APP", expose_value=False, callback=_remember, help="This application's (module:attribute): "
        "also tells its tasks, and hides the fields that it redacts.",
    )(command)  # fmt: skip
    return only_database(command)


def _remember(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta[_APP] = value


class Commands(click.Group):
    """A group of commands; an error that OnCue raises on purpose is one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except OnCueError as error:
            raise click.ClickException(str(error)) from error


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end."""
    return asyncio.run(work)


@asynccontextmanager
async def opened(url: str | None) -> AsyncIterator[OnCue]:
    """Open what is in a database, with no tasks of its own, or the application that ``--app`` names. Never creates or
    migrates a database: raises a StoreError.

    The wake channel stays closed: what is written here, workers hear by themselves.
    """
    app = _named(url)
    await app.store.open(migrate=False)
    try:
        yield app
    finally:
        await app.store.close()


def _named(url: str | None) -> OnCue:
    context = click.get_current_context(silent=True)
    target = None if context is None else context.meta.get(_APP)
    if target is None:
        return OnCue(url)
    if url is not None:
        raise click.UsageError("An --app names its own database: leave --database out.")
    return load_app(target)


@asynccontextmanager
async def operating(url: str | None) -> AsyncIterator[Operator]:
    """Open a database as ``opened`` does, for a person who looks and acts: what they do is in the audit."""
    from oncue.operate import Operator

    async with opened(url) as app:
        yield Operator(app, who())


def who() -> str:
    """Return who acts, for the audit: ``cli:USER@HOST``."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        # A container may run as a number that has no name.
        user = str(os.getuid()) if hasattr(os, "getuid") else "somebody"
    return f"cli:{user}@{socket.gethostname()}"


def postgres_schema(store: Store) -> str | None:
    """Return the schema of a store on PostgreSQL; None for a store on SQLite."""
    return getattr(store, "schema_name", None)


def fail(text: str) -> NoReturn:
    """End with a line on standard error and exit code 1."""
    raise click.ClickException(text)


def load_app(target: str) -> OnCue:
    """Import ``module:attribute`` with the current folder on the path, and return the application that it names.

    A name that is wrong is a usage error; a module that fails is shown with its traceback and ends with 1.
    """
    name, _, attribute = target.partition(":")
    good = attribute and all(part.isidentifier() for part in f"{name}.{attribute}".split("."))
    if not good or name.endswith(".py"):
        hint = f" Did you mean {Path(name).stem}:{attribute or 'app'}?" if Path(name).stem.isidentifier() else ""
        raise click.UsageError(f"{target!r} names no application: write module:attribute, such as trial:app.{hint}")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    module = _import(name)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise click.UsageError(f"Module {name!r} has no attribute {attribute!r}.{_others(module, name)}")
        found = getattr(found, part)
    if not isinstance(found, OnCue):
        raise click.UsageError(f"{target} is a {type(found).__name__}, no OnCue application.{_others(module, name)}")
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise click.UsageError(
                f"There is no module {error.name!r} in {Path.cwd()} or on Python's path. Run this from the folder "
                "that holds it, or set PYTHONPATH."
            ) from error
        _broken(name, error)
    except ConfigError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            # The driver isn't installed: its text says all, and no line of the module is to blame.
            fail(str(error))
        _broken(name, error)
    except Exception as error:
        _broken(name, error)


def _broken(name: str, error: Exception) -> NoReturn:
    if isinstance(error, ConfigError):
        # Its text is for people, as where a setting is missing; the line says where it is wanted.
        fail(f"Module {name!r} can't be imported: {error}{_where(error)}")
    trace = error.__traceback__
    # Neither our own frames nor the import system's say anything about the module.
    while trace is not None and (trace.tb_frame.f_code.co_filename in (__file__, importlib.__file__) or _frozen(trace)):
        trace = trace.tb_next
    click.echo("".join(traceback.format_exception(type(error), error, trace)).rstrip(), err=True)
    raise click.ClickException(f"Module {name!r} can't be imported: {type(error).__name__}: {error}") from error


def _where(error: Exception) -> str:
    """Return the line of the module, or else of one that it imports, in which an error arose."""
    package = Path(__file__).parents[1]
    frames = traceback.extract_tb(error.__traceback__)
    files = [(Path(frame.filename), frame.lineno) for frame in frames if frame.filename != importlib.__file__]
    own = [(file, line) for file, line in files if file.is_file() and package not in file.parents]
    return f" ({own[-1][0].name}, line {own[-1][1]})" if own else ""


def _frozen(trace: Any) -> bool:
    return bool(trace.tb_frame.f_code.co_filename.startswith("<frozen importlib"))


def _others(module: ModuleType, name: str) -> str:
    found = [key for key, value in vars(module).items() if isinstance(value, OnCue)]
    return f" Did you mean {' or '.join(f'{name}:{key}' for key in found)}?" if found else ""
