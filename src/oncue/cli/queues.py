"""``oncue queues`` and ``oncue workers``: where jobs wait, and who is there to run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec

from oncue.cli.common import Commands, as_json, database, opened, run
from oncue.cli.output import Moment, moment, on_terminal, show
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

    records = [{**msgspec.to_builtins(queue), "paused_at": moment(queue.paused_at)} for queue in run(work())]
    columns = ("name", "paused", "waiting", "due", "blocked", "running", "paused_at")
    show(records, columns, as_json, empty="no queues")


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
    async def work() -> dict[str, bool]:
        async with opened(database) as app:
            known = {queue.name: queue.paused for queue in await app.store.queues(app.clock.now())}
            if paused or known.get(name):
                await app.store.set_queue(name, paused)
            return known

    known = run(work())
    done = "paused" if paused else "resumed" if known.get(name) else "was not paused"
    click.echo(f"{name}\t{done}")
    if name not in known:
        others = ", ".join(known) or "none"
        click.echo(f"No job of queue {name!r} is here now. Queues that are known: {others}.", err=True)


@click.command(short_help="List the workers, and what they run.")
@database
@as_json
def workers(database: str | None, as_json: bool) -> None:
    """List the workers: who is alive, what they run since when, which queues they serve, until when their lease holds.

    Of running jobs the newest 1000 are shown.
    """

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
            "jobs": [
                {"id": job.id, "task": job.task, "started_at": moment(job.started_at)}
                for job in jobs
                if job.worker == worker.id
            ],
        }
        for worker in found
    ]
    if not as_json:
        for record in records:
            record["runs"] = ", ".join(_running(job) for job in record["jobs"])
            record["queues"] = _with_weights(record["queues"], record["weights"])
    columns = (
        "id", "name", "state", "queues", "running", "started_at", "seen_at", "lease_until", "host", "pid", "version",
        "runs",
    )  # fmt: skip
    show(records, columns, as_json, empty="no workers are registered: start one with `oncue worker module:app`")


def _running(job: Mapping[str, Any]) -> str:
    since: Moment = job["started_at"]
    return f"{job['id']} {job['task']} since {since.near if on_terminal() else since.iso}"


def _with_weights(queues: Sequence[str] | None, weights: Mapping[str, float] | None) -> str:
    if queues is None:
        return "all"
    return ", ".join(queues if weights is None else [f"{name}={weights[name]:g}" for name in queues])
