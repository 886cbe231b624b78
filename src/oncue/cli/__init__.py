"""The ``oncue`` command: run workers, look at jobs and steer them."""

from __future__ import annotations

import click

import oncue
from oncue.cli.common import Commands
from oncue.cli.cron import cron
from oncue.cli.demo import demo
from oncue.cli.doctor import doctor
from oncue.cli.jobs import jobs
from oncue.cli.queues import queues, workers
from oncue.cli.run import serve, worker
from oncue.cli.schedules import schedules
from oncue.cli.upkeep import drain, migrate, restored, sweep

__all__ = ["main"]


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done; 1 it failed, or problems were found; 2 the command was written wrongly. "
    "Lists are tables on a terminal and tab-separated lines (times in UTC) in a pipe; --json gives them as JSON.",
)
@click.version_option(oncue.__version__, prog_name="oncue")
def main() -> None:
    """Durable scheduled work: code that runs at its due time, once, in order, after a crash too.

    Commands that take an APP load it as module:attribute, with the current folder on the path. The others need
    only the database: --database, else DATABASE_URL, else sqlite:///oncue.db.
    """


for command in (
    worker, serve, jobs, schedules, queues, workers, drain, sweep, migrate, restored, cron, doctor, demo,
):  # fmt: skip
    main.add_command(command)
