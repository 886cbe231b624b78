"""``oncue jobs``: look at jobs; steering them is in ``oncue.cli.steer``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec

from oncue.cli.common import Commands, as_json, database, fail, operating, run
from oncue.cli.filters import STATES, filter_of, filters
from oncue.cli.output import Moment, call_text, clean, job_record, moment, record_of, show, to_json
from oncue.cli.progress import Searching
from oncue.cli.steer import STEERING
from oncue.operate import Filter, Operator
from oncue.operate.jobs import last_attempt
from oncue.operate.views import JobLife, JobSummary
from oncue.redaction import Redaction
from oncue.store.steps import read
from oncue.store.views import AttemptView, JobView
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
            first = [found[id] for id in sorted(found, reverse=True)[:limit]]
            return await _records(operator, first)

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


async def _records(operator: Operator, jobs: Sequence[JobSummary]) -> list[dict[str, Any]]:
    """Return all that is known of these jobs, with what the application hides hidden."""
    hidden, ids = Redaction(operator.app.redacted), [job.id for job in jobs]
    views = await operator.app.store.look(lambda: read.list_jobs(len(ids), ids=ids)) if ids else []
    by_id = {view.id: _known(job_record(_without(hidden, view))) for view in views}
    return [{**_NOTHING, **record_of(job), **by_id.get(job.id, {})} for job in jobs]


_NOTHING: dict[str, Any] = dict.fromkeys(JobView.__struct_fields__)


def _known(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}


def _without(hidden: Redaction, view: JobView) -> JobView:
    shown = {name: hidden.value(getattr(view, name)) for name in ("args", "metadata")}
    shown |= {name: hidden.quoted(getattr(view, name), view.args, view.metadata) for name in ("progress", "result")}
    texts = {name: hidden.text(getattr(view, name), view.args, view.metadata) for name in ("error", "traceback")}
    reason = hidden.text(view.reason, view.args, view.metadata)
    return msgspec.structs.replace(view, **shown, **texts, reason=reason)


@jobs.command("show")
@click.argument("id", type=int)
@database
@as_json
def show_(id: int, database: str | None, as_json: bool) -> None:
    """Show a job's whole life: what happened when, every attempt, and in words why it waits."""

    async def work() -> tuple[JobView, list[AttemptView], JobLife]:
        async with operating(database) as operator:
            job = await operator.app.jobs.get(id)
            if job is None:
                fail(f"There is no job {id}, waiting, running or in the kept history.")
            life, earlier = await operator.job(id), await operator.app.jobs.attempts(id)
            hidden = Redaction(operator.app.redacted)
            began = [*earlier, *(last_attempt(job, earlier) if job.attempt and job.started_at is not None else ())]
            attempts = [_attempt_without(hidden, one, job) for one in began]
            return _without(hidden, job), attempts, life

    job, attempts, life = run(work())
    if as_json:
        record = {**job_record(job), **record_of(life.job)}
        answer = {**msgspec.to_builtins(life), "job": record, "attempts": [_attempt(one) for one in attempts]}
        click.echo(to_json(answer))
        return
    click.echo(f"job {job.id}: {call_text(job)}\n  {'state':<14}{job.state}\n  {'why':<14}{clean(life.why)}")
    _fields(job)
    click.echo("life")
    for event in life.life:
        click.echo(f"  {event.at[:23].replace('T', ' ')} UTC  {event.event:<10} {clean(event.text)}")
    for one in attempts:
        _told(one)


def _attempt_without(hidden: Redaction, one: AttemptView, job: JobView) -> AttemptView:
    texts = {name: hidden.text(getattr(one, name), job.args, job.metadata) for name in ("error", "traceback", "reason")}
    return msgspec.structs.replace(one, **texts)


def _attempt(one: AttemptView) -> dict[str, Any]:
    record: dict[str, Any] = msgspec.to_builtins(one)
    for name in ("scheduled_at", "claimed_at", "started_at", "finished_at"):
        record[name] = moment(record[name])
    return record


def _fields(job: JobView) -> None:
    record = job_record(job)
    said = {"id", "state", "task", "args", "traceback", "reason"}
    for name, value in record.items():
        if name not in said and value not in (None, 0, False, {}):
            text = str(value) if isinstance(value, (Moment, str)) else msgspec.json.encode(value).decode()
            click.echo(f"  {name.replace('_', ' '):<14}{clean(text)}")
    if job.started_at is not None:
        click.echo(f"  {'lateness':<14}{seconds(max(0, job.started_at - job.scheduled_at))}")


def _told(one: AttemptView) -> None:
    took = seconds(one.finished_at - one.started_at)
    click.echo(f"attempt {one.attempt}: {one.outcome} after {took}, worker {one.worker}")
    click.echo(f"  {'due':<14}{Moment(one.scheduled_at)}\n  {'started':<14}{Moment(one.started_at)}")
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
            found: dict[str, Any] = msgspec.to_builtins(await operator.app.jobs.counts())
            return {**found, "next_due": moment(found["next_due"])}

    found = run(work())
    if as_json:
        click.echo(to_json(found))
    else:
        show([{"what": name, "jobs": value} for name, value in found.items()], ("what", "jobs"), False)
