"""``oncue queues``, ``tasks``, ``workers``, ``sources``, ``blockers``: where jobs wait, who runs and who makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import click
import msgspec

from oncue.cli.common import Commands, as_json, database, operating, run
from oncue.cli.output import Moment, clean, on_terminal, record_of, show, tell
from oncue.operate import Operator
from oncue.operate.shape import from_iso
from oncue.operate.views import Done, Running, Worker

_Kind = Literal["queue", "task"]


@click.group(cls=Commands)
def queues() -> None:
    """List, pause and resume queues."""


@queues.command("list")
@database
@as_json
def list_(database: str | None, as_json: bool) -> None:
    """List the queues and how many jobs each has."""

    async def work() -> list[dict[str, Any]]:
        async with operating(database) as operator:
            return [record_of(lane) for lane in await operator.lanes("queues")]

    # Scripts read the fields of a line by their place.
    more = ("late", "discarded") if on_terminal() else ()
    columns = ("name", "paused", "scheduled", "due", "blocked", "running", "paused_at", *more)
    show(run(work()), columns, as_json, empty="no queues")


@queues.command()
@click.argument("name")
@database
@as_json
def pause(name: str, database: str | None, as_json: bool) -> None:
    """Start no more jobs of a queue, on any worker, until it is resumed; those that run go on."""
    _set("queue", name, database, True, as_json)


@queues.command()
@click.argument("name")
@database
@as_json
def resume(name: str, database: str | None, as_json: bool) -> None:
    """Let the jobs of a queue start again."""
    _set("queue", name, database, False, as_json)


@click.group(cls=Commands)
def tasks() -> None:
    """List, pause and resume tasks."""


@tasks.command("list")
@database
@as_json
def list_tasks(database: str | None, as_json: bool) -> None:
    """List the tasks that have jobs or are paused, and how many jobs each has; with --app all that it declares."""

    async def work() -> list[dict[str, Any]]:
        async with operating(database) as operator:
            return [record_of(lane) for lane in await operator.lanes("tasks")]

    columns = ("name", "paused", "scheduled", "due", "late", "running", "discarded", "paused_at", "blocked")
    show(run(work()), columns, as_json, empty="no tasks")


@tasks.command("pause")
@click.argument("name")
@database
@as_json
def pause_task(name: str, database: str | None, as_json: bool) -> None:
    """Start no more jobs of a task, on any worker, until it is resumed; those that run go on."""
    _set("task", name, database, True, as_json)


@tasks.command("resume")
@click.argument("name")
@database
@as_json
def resume_task(name: str, database: str | None, as_json: bool) -> None:
    """Let the jobs of a task start again."""
    _set("task", name, database, False, as_json)


def _set(kind: _Kind, name: str, database: str | None, paused: bool, as_json: bool) -> None:
    async def work() -> tuple[Done, str | None]:
        async with operating(database) as operator:
            return await operator.pause(kind, name, paused=paused), await operator.doubt(kind, name)

    done, doubt = run(work())
    tell(done, f"{name}\t{'paused' if paused else 'resumed' if done.done else 'was not paused'}", as_json)
    if doubt is not None:
        click.echo(clean(doubt), err=True)


@click.command(short_help="List the workers, and what they run.")
@database
@as_json
def workers(database: str | None, as_json: bool) -> None:
    """List the workers: who is alive, what they run since when, which queues they serve, until when their lease holds.

    Of what each runs, the hundred jobs that began first are shown.
    """
    found = run(_workers(database))
    records = [record_of(one) for one in found]
    if not as_json:
        for one, record in zip(found, records, strict=True):
            record["runs"] = ", ".join(map(_running, one.jobs))
            record["queues"] = _with_weights(one.queues, one.weights)
    columns: tuple[str, ...] = (
        "id", "name", "state", "queues", "running", "started_at", "seen_at", "lease_until", "host", "pid", "version",
        "runs",
    )  # fmt: skip
    columns = columns if on_terminal() else (*columns, "wake")
    show(records, columns, as_json, empty="no workers are registered: start one with `oncue worker module:app`")
    if on_terminal() and not as_json:
        # In a column of its own it would leave no room for the others.
        for record in records:
            if record["wake"] is not None:
                since = record["wake_since"]
                click.echo(clean(f"{record['name']} hears late, since {since.near}: {record['wake']}"))


@click.command(short_help="Have workers hear again of what other processes store.")
@database
@as_json
def reconnect(database: str | None, as_json: bool) -> None:
    """Have each worker that hears late of what others store connect its wake channel anew, at once.

    `oncue workers` and `oncue doctor` say which those are, and why. Exit code 1 where there are none.
    """

    async def work() -> Done:
        async with operating(database) as operator:
            return await operator.reconnect()

    done = run(work())
    tell(done, done.text, as_json)
    if not done.done:
        raise SystemExit(1)


async def _workers(database: str | None) -> list[Worker]:
    async with operating(database) as operator:
        return await operator.flows.workers()


def _running(job: Running) -> str:
    since = Moment(from_iso(job.started_at))
    return f"{job.id} {job.task} since {since.near if on_terminal() else since.iso}"


def _with_weights(queues: Sequence[str] | None, weights: Mapping[str, float] | None) -> str:
    if queues is None:
        return "all"
    return ", ".join(queues if weights is None else [f"{name}={weights[name]:g}" for name in queues])


@click.command(short_help="List the sources, and what their last sweep found.")
@database
@as_json
def sources(database: str | None, as_json: bool) -> None:
    """List the sources: when each was swept, what it has made, moved and cancelled, and where rows and jobs differ."""
    columns = ("name", "swept_at", "rows", "moved", "cancelled", "drift", "error", "since")
    show(run(_listed(database, "sources")), columns, as_json, empty="no sources: declare one with app.source(...)")


@click.command(short_help="List what jobs wait behind.")
@database
@as_json
def blockers(database: str | None, as_json: bool) -> None:
    """List what jobs wait behind: groups, keys, caps, a restore; how many wait, and which job holds them since when."""
    columns = ("name", "waiting", "job", "state", "since", "why")
    show(run(_listed(database, "blockers")), columns, as_json, empty="no job waits behind another")


async def _listed(database: str | None, what: Literal["sources", "blockers"]) -> list[dict[str, Any]]:
    async with operating(database) as operator:
        return [record_of(one) for one in await _asked(operator, what)]


async def _asked(operator: Operator, what: Literal["sources", "blockers"]) -> Sequence[msgspec.Struct]:
    return await (operator.flows.sources() if what == "sources" else operator.flows.blockers())
