"""The ``oncue`` command: run workers, look at jobs and steer them."""

from __future__ import annotations

from importlib import import_module

import click

import oncue
from oncue.cli.common import Commands

__all__ = ["main"]

_ROOMS = {
    "run": ("worker", "serve"),
    "top": ("status", "top"),
    "jobs": ("jobs",),
    "schedules": ("schedules",),
    "queues": ("queues", "tasks", "workers", "reconnect", "sources", "blockers"),
    "upkeep": ("drain", "sweep", "migrate", "restored"),
    "conversations": ("conversations",),
    "whatsapp": ("whatsapp",),
    "cron": ("cron",),
    "doctor": ("doctor",),
    "bench": ("bench",),
    "tokens": ("audit", "tokens"),
    "completion": ("completion",),
    "demo": ("demo",),
}
_PLACES = {name: room for room, names in _ROOMS.items() for name in names}


class Rooms(Commands):
    """The commands, each loaded when it is asked for: a worker that starts has no use for the rest."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command; None where there is none of that name."""
        if cmd_name not in _PLACES:
            return None
        found: click.Command = getattr(import_module(f"oncue.cli.{_PLACES[cmd_name]}"), cmd_name)
        return found


@click.group(
    cls=Rooms,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done; 1 it failed, or problems were found; 2 the command was written wrongly. "
    "Lists are tables on a terminal and tab-separated lines (times in UTC) in a pipe; --json gives them as JSON.",
)
@click.version_option(oncue.__version__, prog_name="oncue")
def main() -> None:
    """Durable scheduled work: code that runs at its due time, once, in order, after a crash too.

    Commands that take an APP load it as module:attribute, with the current folder on the path. The others need
    only the database: --database, else DATABASE_URL, else sqlite:///oncue.db; many take --app in its place.
    """
