"""``oncue jobs``: look at jobs; steering them is in ``oncue.cli.steer``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
import msgspec

from oncue.cli.common import Commands, as_json, database, operating, run
from oncue.cli.filters import STATES, filter_of, filters
from oncue.cli.output import Moment, call_text, clean, record_of, show, to_json
from oncue.cli.progress import Searching
from oncue.cli.steer import STEERING
from oncue.operate import Filter, Operator
from oncue.operate.shape import from_iso
from oncue.operate.views import Attempt, JobDetail, JobLife, JobSummary
from oncue.why import seconds

_COLUMNS = ("id", "state", "task", "args", "queue", "scheduled_at", "attempt", "key", "group", "blocked_by")


@click.group(cls=Commands)
def jobs() -> None:
    """Look at jobs, cancel them, move them, run them now or again."""


for steering in STEERING:
    jobs.add_command(steering)


@jobs.command("list")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only in this state; repeatable.")
@click.option("--key", help="Only this key.")
@filters
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Only ids below this one: the next page.")
@database
@as_json
def list_(
    states: tuple[str, ...], limit: int, before: int | None, database: str | None, as_json: bool, **given: Any
) -> None:
    """List jobs, the newest first, waiting, running and finished.

    All that is given must match. TIME is RFC 3339 with its zone, or as seen from now: -2h, +10m (s, m, h, d).
    """
    chosen = [filter_of({**given, "state": state}) for state in dict.fromkeys(states)] or [filter_of(given)]

    async def work() -> list[dict[str, Any]]:
        async with operating(database) as operator:
            found: dict[int, JobSummary] = {}
            for one in chosen:
                found.update((job.id, job) for job in await _found(operator, one, before, limit))
            return [record_of(row) for row in await operator.jobs.rows(sorted(found, reverse=True)[:limit])]

    show(run(work()), _COLUMNS, as_json, empty="no such jobs")


async def _found(operator: Operator, filter: Filter, before: int | None, limit: int) -> list[JobSummary]:
    """Return as many as are wanted, page by page: one look of a search goes over a bounded span of ids."""
    found: list[JobSummary] = []
    cursor = None if before is None else str(before)
    with Searching() as told:
        while len(found) < limit:
            page = await operator.page(filter, cursor, limit - len(found))
            found += page.items
            if page.next is None:
                break
            cursor = page.next
            told(int(cursor), len(found))
    return found


@jobs.command("show")
@click.argument("id", type=int)
@database
@as_json
def show_(id: int, database: str | None, as_json: bool) -> None:
    """Show a job's whole life: what happened when, every attempt, and in words why it waits."""

    async def work() -> JobLife:
        async with operating(database) as operator:
            return await operator.job(id)

    found = run(work())
    if as_json:
        click.echo(to_json(found))
        return
    job = found.job
    click.echo(f"job {job.id}: {call_text(job)}\n  {'state':<14}{job.state}\n  {'why':<14}{clean(found.why)}")
    _fields(job)
    click.echo("life")
    for event in found.life:
        click.echo(f"  {event.at[:23].replace('T', ' ')} UTC  {event.event:<10} {clean(event.text)}")
    for one in found.attempts:
        _told(one)


def _fields(job: JobDetail) -> None:
    record = record_of(job)
    said = {"id", "state", "task", "args", "traceback", "reason"}
    for name, value in record.items():
        if name not in said and value not in (None, 0, False, {}):
            text = str(value) if isinstance(value, (Moment, str)) else msgspec.json.encode(value).decode()
            click.echo(f"  {name.replace('_', ' '):<14}{clean(text)}")
    if job.started_at is not None:
        click.echo(f"  {'lateness':<14}{_between(job.scheduled_at, job.started_at)}")


def _between(start: str, end: str) -> str:
    return seconds(max(0, from_iso(end) - from_iso(start)))


def _told(one: Attempt) -> None:
    took = _between(one.started_at, one.finished_at)
    click.echo(f"attempt {one.attempt}: {one.outcome} after {took}, worker {one.worker}")
    for name in ("scheduled_at", "started_at"):
        heading = "due" if name == "scheduled_at" else "started"
        click.echo(f"  {heading:<14}{Moment(from_iso(getattr(one, name)))}")
    for name, text in (("error", one.error), ("reason", one.reason)):
        if text:
            click.echo(f"  {name:<14}{clean(text)}")
    if one.traceback:
        click.echo("\n".join(_indented(clean(one.traceback).rstrip().splitlines())))


def _indented(lines: Iterable[str]) -> Iterable[str]:
    return (f"    {line}" for line in lines)


@jobs.command()
@database
@as_json
def counts(database: str | None, as_json: bool) -> None:
    """Count the jobs by state; next_due is when the next one may start."""

    async def work() -> dict[str, Any]:
        async with operating(database) as operator:
            return record_of(await operator.counts())

    found = run(work())
    if as_json:
        click.echo(to_json(found))
    else:
        show([{"what": name, "jobs": value} for name, value in found.items()], ("what", "jobs"), False)
