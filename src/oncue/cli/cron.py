"""``oncue cron export``: configurations for an external cron."""

from __future__ import annotations

from pathlib import Path

import click

from oncue.cli.common import Commands, fail
from oncue.export import TARGETS, Target, export, notes


@click.group(cls=Commands)
def cron() -> None:
    """Let an external cron drive the due work."""


@cron.command("export")
@click.option("--target", type=click.Choice(TARGETS), required=True)
@click.option("--url", required=True, help="Where the application answers, such as https://example.com.")
@click.option("--schedule", default="* * * * *", show_default=True, metavar="EXPR")
@click.option("--timezone", default="UTC", show_default=True)
@click.option("--path", help="The route at that address.  [default: /api/cron/process-scheduled]")
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Write the files there."
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
def export_(
    target: Target, url: str, schedule: str, timezone: str, path: str | None, output: Path | None, force: bool
) -> None:
    """Write the configuration that has TARGET call the cron route; what is left to do goes to standard error.

    Without --output the files are printed. A schedule finer than the target allows is refused, with the reason.
    """
    where = {} if path is None else {"path": path}
    files = export(target, url=url, schedule=schedule, timezone=timezone, **where)
    if output is None:
        for name, text in files.items():
            if len(files) > 1:
                click.echo(f"# {name}")
            click.echo(text, nl=not text.endswith("\n"))
    else:
        _write(output, files, force)
    for note in notes(target, schedule=schedule, timezone=timezone):
        click.echo(note, err=True)


def _write(folder: Path, files: dict[str, str], force: bool) -> None:
    there = [str(folder / name) for name in files if (folder / name).exists()]
    if there and not force:
        fail(f"There already: {', '.join(there)}. Nothing was written; --force replaces.")
    for name, text in files.items():
        file = folder / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            fail(f"{file} can't be written: {error}")
        click.echo(str(file))
