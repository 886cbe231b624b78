"""What the commands share: errors in one line, the database, and loading an application."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import traceback
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TypeVar

import click

from oncue.app import OnCue
from oncue.errors import ConfigError, OnCueError
from oncue.settings import DEFAULT_URL
from oncue.store import Store

T = TypeVar("T")

database = click.option(
    "--database", metavar="URL", help="The database. Default: DATABASE_URL, else sqlite:///oncue.db."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


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
    """Open what is in a database, with no tasks of its own. Never creates or migrates one: raises a StoreError.

    The wake channel stays closed: what is written here, workers hear by themselves.
    """
    app = OnCue(url)
    await app.store.open(migrate=False)
    try:
        yield app
    finally:
        await app.store.close()


def postgres_schema(store: Store) -> str | None:
    """Return the schema of a store on PostgreSQL; None for a store on SQLite."""
    return getattr(store, "schema_name", None)


def unset(app: OnCue) -> str:
    """Return a remark where an application uses the default database and the environment names none; else ''."""
    return " (DATABASE_URL is not set)" if app.url == DEFAULT_URL and not os.environ.get("DATABASE_URL") else ""


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
    trace = error.__traceback__
    # Neither our own frames nor the import system's say anything about the module.
    while trace is not None and (trace.tb_frame.f_code.co_filename in (__file__, importlib.__file__) or _frozen(trace)):
        trace = trace.tb_next
    click.echo("".join(traceback.format_exception(type(error), error, trace)).rstrip(), err=True)
    raise click.ClickException(f"Module {name!r} can't be imported: {type(error).__name__}: {error}") from error


def _frozen(trace: Any) -> bool:
    return bool(trace.tb_frame.f_code.co_filename.startswith("<frozen importlib"))


def _others(module: ModuleType, name: str) -> str:
    found = [key for key, value in vars(module).items() if isinstance(value, OnCue)]
    return f" Did you mean {' or '.join(f'{name}:{key}' for key in found)}?" if found else ""
