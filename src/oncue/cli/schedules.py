"""``oncue schedules``: what recurs, when it fires next, and steering it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import click

from oncue.cli.common import Commands, as_json, database, fail, opened, run
from oncue.cli.output import moment, show
from oncue.clock import SystemClock, from_us
from oncue.cron import Cron, Every, parse_schedule
from oncue.planner import Planner
from oncue.store import ScheduleRow

_MOST_NAMED = 10


@click.group(cls=Commands)
def schedules() -> None:
    """List what recurs, preview it, pause it, run it now."""


@schedules.command("list")
@database
@as_json
def list_(database: str | None, as_json: bool) -> None:
    """List the schedules that workers have stored."""

    async def work() -> list[ScheduleRow]:
        async with opened(database) as app:
            return await app.store.schedules()

    records = [
        {
            "name": row.name,
            "expression": row.expression,
            "timezone": row.timezone,
            "next": moment(row.next_at),
            "last": moment(row.last_at),
            "paused": bool(row.paused),
            "missed": row.missed,
            "task": row.task,
            "options": row.options,
        }
        for row in run(work())
    ]
    columns = ("name", "expression", "timezone", "next", "last", "paused", "missed", "task")
    show(records, columns, as_json, empty="no schedules are stored: a worker stores those of its application")


@schedules.command()
@click.argument("name", required=False)
@click.option("--cron", "expression", metavar="EXPR", help="Preview this expression, with no database.")
@click.option("--timezone", help="The time zone of --cron.  [default: UTC]")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many fires.")
@database
@as_json
def preview(
    name: str | None, expression: str | None, timezone: str | None, count: int, database: str | None, as_json: bool
) -> None:
    """Show when a schedule, by NAME or by --cron, fires next: in its zone and in UTC, with clock changes marked."""
    if (name is None) == (expression is None):
        raise click.UsageError("Give the NAME of a schedule, or an expression with --cron, one of them.")
    if name is not None and timezone is not None:
        raise click.UsageError("A stored schedule has its own time zone: --timezone goes with --cron.")
    now = SystemClock().now()
    when = parse_schedule(expression, timezone or "UTC") if expression else run(_stored(database, name or ""))
    fires = when.upcoming(now, count)
    zone = ZoneInfo(when.timezone if isinstance(when, Cron) else "UTC")
    before = from_us(now).astimezone(zone)
    records = []
    for fire in fires:
        local = from_us(fire).astimezone(zone)
        utc = from_us(fire).isoformat().replace("+00:00", "Z")
        records.append({"local": f"{local:%a} {local.isoformat(' ')}", "utc": utc, "note": _edge(local, before)})
        before = local
    show(records, ("local", "utc", "note"), as_json, empty="it never fires again")


async def _stored(database: str | None, name: str) -> Cron | Every:
    async with opened(database) as app:
        rows = {row.name: row for row in await app.store.schedules()}
    if name not in rows:
        _unknown(name, list(rows))
    return parse_schedule(rows[name].expression, rows[name].timezone)


def _edge(local: datetime, before: datetime) -> str:
    """Say in words where a clock change touches this fire."""
    just_before = (local.astimezone(ZoneInfo("UTC")) - timedelta(seconds=1)).astimezone(local.tzinfo)
    if (just_before.utcoffset() or timedelta()) < (local.utcoffset() or timedelta()):
        return "right after the hour that the clock leaves out"
    if local.fold:
        return "the repeated hour, second time"
    if local.replace(fold=1).utcoffset() != local.utcoffset():
        return "the repeated hour, first time"
    change = (local.utcoffset() or timedelta()) - (before.utcoffset() or timedelta())
    if not change:
        return ""
    return f"the clock went {'forward' if change > timedelta() else 'back'} by {abs(change)} since the fire before"


@schedules.command()
@click.argument("name")
@database
def pause(name: str, database: str | None) -> None:
    """Fire no more until resumed; jobs that are already there run."""
    _steer(name, database, lambda planner: planner.pause(name))
    click.echo(f"{name}\tpaused")


@schedules.command()
@click.argument("name")
@database
def resume(name: str, database: str | None) -> None:
    """Fire again from now on; what fell into the pause is left out."""
    _steer(name, database, lambda planner: planner.pause(name, False))
    click.echo(f"{name}\tresumed")


@schedules.command("run-now")
@click.argument("name")
@database
def run_now(name: str, database: str | None) -> None:
    """Make a job of a schedule at once, apart from its fires; prints the job's id."""
    click.echo(f"{name}\tjob {_steer(name, database, lambda planner: planner.run_now(name))}")


def _steer(name: str, database: str | None, action: Callable[[Planner], Awaitable[Any]]) -> Any:
    async def work() -> Any:
        async with opened(database) as app:
            answer = await action(Planner(app.store, app.clock, app.name, {}))
            return answer or _unknown(name, [row.name for row in await app.store.schedules()])

    return run(work())


def _unknown(name: str, stored: Sequence[str]) -> NoReturn:
    known = f"Stored are: {', '.join(stored[:_MOST_NAMED])}" if stored else "None is stored"
    more = ", ..." if len(stored) > _MOST_NAMED else ""
    fail(f"There is no schedule {name!r}. {known}{more}. A worker stores those of its application when it starts.")
