"""``oncue demo``: the trial, live, in this terminal."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click

import oncue
from oncue.cli.common import fail

_NEEDS = ("httpx", "starlette", "uvicorn")


@click.command(
    short_help="See a WhatsApp trial run, its worker killed midway.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def demo(options: tuple[str, ...]) -> None:
    """See a WhatsApp trial run, its worker killed in the middle, and the count at the end (under a minute)."""
    package = Path(oncue.__file__).resolve().parent
    places = (package / "_demo" / "demo.py", package.parents[1] / "examples" / "trial" / "demo.py")
    program = next((place for place in places if place.exists()), None)
    if program is None:
        fail(f"The demo is not there: looked for {' and '.join(map(str, places))}. Install oncue from its wheel.")
    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        fail(f"The demo needs {', '.join(missing)}: pip install 'oncue[web,whatsapp]'")
    sys.stdout.flush()
    # In this process's place, so that Ctrl-C reaches it and nothing else.
    os.execv(sys.executable, [sys.executable, str(program), *options])  # noqa: S606 - our own program
