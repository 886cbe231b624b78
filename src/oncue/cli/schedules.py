"""``oncue schedules``: what recurs, when it fires next, and steering it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, TypeVar

import click
import msgspec

from oncue.cli.common import Commands, as_json, database, fail, operating, run
from oncue.cli.output import plain, record_of, show, tell, to_json
from oncue.clock import SystemClock
from oncue.cron import InvalidCron, Schedule, parse_schedule
from oncue.errors import UnknownSchedule
from oncue.operate import Operator
from oncue.operate.flows import FIRES
from oncue.operate.flows import preview as coming

T = TypeVar("T")
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
            return [record_of(one) for one in await operator.flows.schedules()]

    columns = ("name", "rule", "timezone", "next", "last", "paused", "missed", "task")
    show(run(work()), columns, as_json, empty="no schedules are stored: a worker stores those of its application")


fires = click.option(
    "-n", "count", type=click.IntRange(1, 1000), default=FIRES, show_default=True, help="How many next fires."
)


@schedules.command("show")
@click.argument("name")
@fires
@database
@as_json
def show_(name: str, count: int, database: str | None, as_json: bool) -> None:
    """Show a schedule, the jobs of its last ten fires, and its next fires, with clock changes marked.

    Of one that is paused the next fires are those that it would have, were it resumed now.
    """
    found = _asked(name, database, lambda operator: operator.flows.schedule(name, count))
    if as_json:
        click.echo(to_json(found))
        return
    for field in ("task", "rule", "timezone", "next", "last", "paused", "missed"):
        value = getattr(found, field)
        click.echo(f"{field}\t{plain(value if value is not False else 'no')}")
    next = "if resumed" if found.paused else "next"
    fires = [*(("past", fire) for fire in reversed(found.last_fires)), *((next, fire) for fire in found.next_fires)]
    records = [
        {"when": when, **record_of(fire), "note": fire.shift, "job": fire.job} for when, fire in fires
    ]  # fmt: skip
    show(records, ("when", "at", "local", "offset", "job", "note"), False, empty="it has not fired, and never will")


@schedules.command()
@click.argument("name", required=False)
@click.option("--cron", "expression", metavar="EXPR", help="Preview this expression, with no database.")
@click.option("--timezone", help="The time zone of --cron.  [default: UTC]")
@fires
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
    if name is not None:
        found = _asked(name, database, lambda operator: operator.flows.preview(name, count))
    else:
        found = coming(_parsed(expression or "", timezone or "UTC"), count, SystemClock().now())
    if as_json:
        click.echo(to_json(msgspec.to_builtins(found)))
        return
    records = [
        {"local": fire.local + fire.offset, "utc": fire.at.replace(".000000Z", "Z"), "note": fire.shift}
        for fire in found
    ]
    show(records, ("local", "utc", "note"), False, empty="it never fires again")


def _parsed(expression: str, timezone: str) -> Schedule:
    try:
        return parse_schedule(expression, timezone)
    except InvalidCron as error:
        # Written wrongly, as any other option's value.
        raise click.UsageError(str(error)) from error


@schedules.command()
@click.argument("name")
@database
@as_json
def pause(name: str, database: str | None, as_json: bool) -> None:
    """Fire no more until resumed; jobs that are already there run."""
    done = _asked(name, database, lambda operator: operator.pause("schedule", name))
    tell(done, f"{name}\tpaused", as_json)


@schedules.command()
@click.argument("name")
@database
@as_json
def resume(name: str, database: str | None, as_json: bool) -> None:
    """Fire again from now on; what fell into the pause is left out."""
    done = _asked(name, database, lambda operator: operator.pause("schedule", name, paused=False))
    tell(done, f"{name}\tresumed", as_json)


@schedules.command("run-now")
@click.argument("name")
@database
@as_json
def run_now(name: str, database: str | None, as_json: bool) -> None:
    """Make a job of a schedule at once, apart from its fires; prints the job's id."""
    done = _asked(name, database, lambda operator: operator.run_schedule(name))
    made = _NUMBER.search(done.text)
    tell(done, f"{name}\t{done.text if made is None else f'job {made[0]}'}", as_json)


def _asked(name: str, database: str | None, ask: Callable[[Operator], Awaitable[T]]) -> T:
    """Look at a schedule, or act on it; where there is none of that name, say which there are."""

    async def work() -> T:
        async with operating(database) as operator:
            try:
                return await ask(operator)
            except UnknownSchedule:
                _unknown(name, [row.name for row in await operator.app.store.schedules()])

    return run(work())


def _unknown(name: str, stored: Sequence[str]) -> NoReturn:
    known = f"Stored are: {', '.join(stored[:_MOST_NAMED])}" if stored else "None is stored"
    more = ", ..." if len(stored) > _MOST_NAMED else ""
    fail(f"There is no schedule {name!r}. {known}{more}. A worker stores those of its application when it starts.")
