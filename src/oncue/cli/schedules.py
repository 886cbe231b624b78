"""``oncue schedules``: what recurs, when it fires next, and steering it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import click
import msgspec

from oncue.cli.common import Commands, as_json, database, fail, opened, operating, run
from oncue.cli.output import plain, record_of, show, to_json
from oncue.clock import SystemClock, from_us
from oncue.cron import Cron, Every, parse_schedule
from oncue.errors import UnknownSchedule
from oncue.operate import Operator
from oncue.operate.flows import edge
from oncue.operate.views import Done, ScheduleDetail

_NUMBER = re.compile(r"\d+")
_MOST_NAMED = 10


@click.group(cls=Commands)
def schedules() -> None:
    """List what recurs, preview it, pause it, run it now."""


@schedules.command("list")
@database
@as_json
def list_(database: str | None, as_json: bool) -> None:
    """List the schedules that workers have stored."""

    async def work() -> list[dict[str, Any]]:
        async with operating(database) as operator:
            options = {row.name: row.options for row in await operator.app.store.schedules()}
            return [
                {**record_of(one), "expression": one.rule, "options": options.get(one.name)}
                for one in await operator.flows.schedules()
            ]

    columns = ("name", "expression", "timezone", "next", "last", "paused", "missed", "task")
    show(run(work()), columns, as_json, empty="no schedules are stored: a worker stores those of its application")


@schedules.command("show")
@click.argument("name")
@database
@as_json
def show_(name: str, database: str | None, as_json: bool) -> None:
    """Show a schedule, the jobs of its last ten fires, and its next ten, with clock changes marked."""

    async def work() -> ScheduleDetail:
        async with operating(database) as operator:
            try:
                return await operator.flows.schedule(name)
            except UnknownSchedule:
                _unknown(name, [row.name for row in await operator.app.store.schedules()])

    found = run(work())
    if as_json:
        click.echo(to_json(msgspec.to_builtins(found)))
        return
    for field in ("task", "rule", "timezone", "next", "last", "paused", "missed"):
        value = getattr(found, field)
        click.echo(f"{field}\t{plain(value if value is not False else 'no')}")
    fires = [*(("past", fire) for fire in reversed(found.last_fires)), *(("next", fire) for fire in found.next_fires)]
    records = [
        {"when": when, **record_of(fire), "note": fire.shift, "job": fire.job} for when, fire in fires
    ]  # fmt: skip
    show(records, ("when", "at", "local", "offset", "job", "note"), False, empty="it has not fired, and never will")


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
        records.append({"local": f"{local:%a} {local.isoformat(' ')}", "utc": utc, "note": edge(local, before)})
        before = local
    show(records, ("local", "utc", "note"), as_json, empty="it never fires again")


async def _stored(database: str | None, name: str) -> Cron | Every:
    async with opened(database) as app:
        rows = {row.name: row for row in await app.store.schedules()}
    if name not in rows:
        _unknown(name, list(rows))
    return parse_schedule(rows[name].expression, rows[name].timezone)


@schedules.command()
@click.argument("name")
@database
def pause(name: str, database: str | None) -> None:
    """Fire no more until resumed; jobs that are already there run."""
    _steer(name, database, lambda operator: operator.pause("schedule", name))
    click.echo(f"{name}\tpaused")


@schedules.command()
@click.argument("name")
@database
def resume(name: str, database: str | None) -> None:
    """Fire again from now on; what fell into the pause is left out."""
    _steer(name, database, lambda operator: operator.pause("schedule", name, paused=False))
    click.echo(f"{name}\tresumed")


@schedules.command("run-now")
@click.argument("name")
@database
def run_now(name: str, database: str | None) -> None:
    """Make a job of a schedule at once, apart from its fires; prints the job's id."""
    done = _steer(name, database, lambda operator: operator.run_schedule(name))
    made = _NUMBER.search(done.text)
    click.echo(f"{name}\tjob {made[0]}" if made is not None else f"{name}\t{done.text}")


def _steer(name: str, database: str | None, action: Callable[[Operator], Awaitable[Done]]) -> Done:
    async def work() -> Done:
        async with operating(database) as operator:
            try:
                return await action(operator)
            except UnknownSchedule:
                _unknown(name, [row.name for row in await operator.app.store.schedules()])

    return run(work())


def _unknown(name: str, stored: Sequence[str]) -> NoReturn:
    known = f"Stored are: {', '.join(stored[:_MOST_NAMED])}" if stored else "None is stored"
    more = ", ..." if len(stored) > _MOST_NAMED else ""
    fail(f"There is no schedule {name!r}. {known}{more}. A worker stores those of its application when it starts.")
