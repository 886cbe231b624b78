"""``oncue queues`` and ``oncue workers``: where jobs wait, and who is there to run them."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from oncue.cli.common import Commands, as_json, database, opened, run
from oncue.cli.output import moment, show
from oncue.store.views import JobView, QueueView, WorkerView

_MOST_SHOWN = 1000


@click.group(cls=Commands)
def queues() -> None:
    """List, pause and resume queues."""


@queues.command("list")
@database
@as_json
def list_(database: str | None, as_json: bool) -> None:
    """List the queues and how many jobs each has."""

    async def work() -> list[QueueView]:
        async with opened(database) as app:
            return await app.store.queues(app.clock.now())

    records = [msgspec.to_builtins(queue) for queue in run(work())]
    show(records, ("name", "paused", "waiting", "due", "blocked", "running"), as_json, empty="no queues")


@queues.command()
@click.argument("name")
@database
def pause(name: str, database: str | None) -> None:
    """Start no more jobs of a queue, on any worker, until it is resumed; those that run go on."""
    _set(name, database, True)


@queues.command()
@click.argument("name")
@database
def resume(name: str, database: str | None) -> None:
    """Let the jobs of a queue start again."""
    _set(name, database, False)


def _set(name: str, database: str | None, paused: bool) -> None:
    async def work() -> list[str]:
        async with opened(database) as app:
            known = [queue.name for queue in await app.store.queues(app.clock.now())]
            await app.store.set_queue(name, paused)
            return known

    known = run(work())
    click.echo(f"{name}\t{'paused' if paused else 'resumed'}")
    if name not in known:
        others = ", ".join(known) or "none"
        click.echo(f"No job of queue {name!r} is here now. Queues that are known: {others}.", err=True)


@click.command(short_help="List the workers, and what they run.")
@database
@as_json
def workers(database: str | None, as_json: bool) -> None:
    """List the workers: who is alive, what they run, until when their lease holds."""

    async def work() -> tuple[Sequence[WorkerView], list[JobView]]:
        async with opened(database) as app:
            return await app.jobs.workers(), await app.jobs.list(state=["running"], limit=_MOST_SHOWN)

    found, jobs = run(work())
    records = [
        {
            **msgspec.to_builtins(worker),
            "started_at": moment(worker.started_at),
            "seen_at": moment(worker.seen_at),
            "lease_until": moment(worker.lease_until),
            "jobs": [{"id": job.id, "task": job.task} for job in jobs if job.worker == worker.id],
            "runs": ", ".join(f"{job.id} {job.task}" for job in jobs if job.worker == worker.id),
        }
        for worker in found
    ]
    if as_json:
        records = [{name: value for name, value in record.items() if name != "runs"} for record in records]
    columns = ("id", "name", "state", "queues", "running", "started_at", "seen_at", "lease_until", "runs")
    show(records, columns, as_json, empty="no workers are registered: start one with `oncue worker module:app`")
