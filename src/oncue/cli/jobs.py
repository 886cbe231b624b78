"""``oncue jobs``: look at jobs and steer them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, get_args

import click
import msgspec

from oncue.app import OnCue
from oncue.cli.common import Commands, as_json, database, fail, opened, run
from oncue.cli.output import Moment, call_text, clean, job_record, moment, show, to_json
from oncue.errors import OnCueError
from oncue.job import FINAL, State
from oncue.store.views import AttemptView, JobView
from oncue.why import seconds

_COLUMNS = ("id", "state", "task", "args", "queue", "scheduled_at", "attempt", "key", "group", "blocked_by")
_ids = click.argument("ids", metavar="ID...", type=int, nargs=-1, required=True)


@click.group(cls=Commands)
def jobs() -> None:
    """Look at jobs, cancel them, run them now or again."""


@jobs.command("list")
@click.option("--state", type=click.Choice(get_args(State)), multiple=True, help="Only this state; may be repeated.")
@click.option("--task", help="Only this task.")
@click.option("--queue", help="Only this queue.")
@click.option("--key", help="Only this key.")
@click.option("--group", help="Only this group.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--before", type=int, metavar="ID", help="Only ids below this one: the next page.")
@database
@as_json
def list_(database: str | None, as_json: bool, **filters: Any) -> None:
    """List jobs, the newest first, waiting, running and finished."""

    async def work() -> list[JobView]:
        async with opened(database) as app:
            return await app.jobs.list(**filters)

    show([job_record(job) for job in run(work())], _COLUMNS, as_json, empty="no such jobs")


@jobs.command("show")
@click.argument("id", type=int)
@database
@as_json
def show_(id: int, database: str | None, as_json: bool) -> None:
    """Show a job's whole life: its row, every attempt, and in words why it waits."""

    async def work() -> tuple[JobView, Sequence[AttemptView], str]:
        async with opened(database) as app:
            job = await app.jobs.get(id)
            if job is None:
                fail(f"There is no job {id}, waiting, running or in the kept history.")
            return job, await app.jobs.attempts(id), await app.jobs.why(job)

    job, attempts, why = run(work())
    attempts = [*attempts, *_last(job, attempts)]
    if as_json:
        click.echo(to_json({"job": job_record(job), "attempts": [_attempt(one) for one in attempts], "why": why}))
        return
    click.echo(f"job {job.id}: {call_text(job)}\n  {'state':<14}{job.state}\n  {'why':<14}{clean(why)}")
    _fields(job)
    for one in attempts:
        _life(one)


def _last(job: JobView, earlier: Sequence[AttemptView]) -> list[AttemptView]:
    """The attempt that ended the job stands in the job's own row."""
    if job.state not in FINAL or job.started_at is None or job.finished_at is None:
        return []
    if not job.attempt or any(one.attempt == job.attempt for one in earlier):
        return []
    outcome = job.outcome or job.state
    began, ended = job.started_at, job.finished_at
    return [
        AttemptView(
            job.attempt, outcome, job.scheduled_at, began, ended, job.worker, job.error, job.traceback, job.reason
        )
    ]


def _attempt(one: AttemptView) -> dict[str, Any]:
    record: dict[str, Any] = msgspec.to_builtins(one)
    for name in ("scheduled_at", "started_at", "finished_at"):
        record[name] = Moment(record[name])
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


def _life(one: AttemptView) -> None:
    took = seconds(one.finished_at - one.started_at)
    click.echo(f"attempt {one.attempt}: {one.outcome} after {took}, worker {one.worker}")
    click.echo(f"  {'due':<14}{Moment(one.scheduled_at)}\n  {'started':<14}{Moment(one.started_at)}")
    for name, text in (("error", one.error), ("reason", one.reason)):
        if text:
            click.echo(f"  {name:<14}{clean(text)}")
    if one.traceback:
        click.echo("\n".join(f"    {line}" for line in clean(one.traceback).rstrip().splitlines()))


@jobs.command()
@click.argument("ids", metavar="[ID]...", type=int, nargs=-1)
@click.option("--key", "keys", multiple=True, help="Cancel what has this key; may be repeated.")
@database
def cancel(ids: tuple[int, ...], keys: tuple[str, ...], database: str | None) -> None:
    """Cancel jobs by id or key, and say what came of each.

    prevented: it will not run. requested: it runs, and its handler was told to stop. too late: nothing that waits or
    runs has that name; then the exit code is 1.
    """
    if not ids and not keys:
        raise click.UsageError("Name the jobs: ids, or --key.")

    async def work() -> list[str]:
        async with opened(database) as app:
            named: list[dict[str, Any]] = [*({"id": id} for id in ids), *({"key": key} for key in keys)]
            return [await app.cancel(**name) for name in named]

    answers = run(work())
    for name, answer in zip([*ids, *keys], answers, strict=True):
        click.echo(f"{name}\t{answer}")
    if "too late" in answers:
        raise SystemExit(1)


@jobs.command()
@_ids
@database
def retry(ids: tuple[int, ...], database: str | None) -> None:
    """Put discarded or cancelled jobs back, due now, with fresh attempts."""
    _each(ids, database, lambda app, one: app.jobs.retry(one), "due now")


@jobs.command("run-now")
@_ids
@database
def run_now(ids: tuple[int, ...], database: str | None) -> None:
    """Make waiting jobs due now."""
    _each(ids, database, lambda app, one: app.jobs.run_now(one), "due now")


def _each(
    ids: tuple[int, ...], database: str | None, action: Callable[[OnCue, int], Awaitable[None]], done: str
) -> None:
    """Do it to every id, whatever becomes of the others; end with 1 where one was refused."""

    async def work() -> bool:
        good = True
        async with opened(database) as app:
            for id in ids:
                try:
                    await action(app, id)
                    click.echo(f"{id}\t{done}")
                except OnCueError as error:
                    good = False
                    click.echo(f"{id}\t{error}", err=True)
        return good

    if not run(work()):
        raise SystemExit(1)


@jobs.command()
@database
@as_json
def counts(database: str | None, as_json: bool) -> None:
    """Count the jobs by state; next_due is when the next one may start."""

    async def work() -> dict[str, Any]:
        async with opened(database) as app:
            found: dict[str, Any] = msgspec.to_builtins(await app.jobs.counts())
            return {**found, "next_due": moment(found["next_due"])}

    found = run(work())
    if as_json:
        click.echo(to_json(found))
    else:
        show([{"what": name, "jobs": value} for name, value in found.items()], ("what", "jobs"), False)
