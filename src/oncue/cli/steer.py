"""``oncue jobs cancel``, ``retry``, ``run-now`` and ``reschedule``: on jobs by id, or on all that match a filter."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from oncue.cli.common import as_json, database, fail, operating, run
from oncue.cli.filters import TIME, filter_of, filters, state_option
from oncue.cli.output import to_json
from oncue.cli.progress import watching
from oncue.errors import InvalidJob, OnCueError, UnknownJob
from oncue.operate import Filter, Operator
from oncue.operate.actions import Action
from oncue.operate.jobs import known_id
from oncue.operate.views import ManyCounted, ManyDone
from oncue.words import counted

F = TypeVar("F", bound=Callable[..., Any])
_VERBS: dict[Action, str] = {
    "cancel": "Cancel", "retry": "Run again", "run-now": "Run now", "reschedule": "Move",
}  # fmt: skip


def _on_jobs(command: F) -> F:
    """Let a command take ids, or a filter with ``--yes``."""
    decorators = (
        click.argument("ids", metavar="[ID]...", type=click.IntRange(1), nargs=-1),
        state_option,
        filters,
        click.option("--yes", is_flag=True, help="With a filter: don't ask, do it."),
        database,
        as_json,
    )
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


key_option = click.option("--key", help="Only this key.")


@click.command()
@click.option("--key", "keys", multiple=True, help="Cancel what has this key; may be repeated.")
@_on_jobs
def cancel(keys: tuple[str, ...], ids: tuple[int, ...], yes: bool, **options: Any) -> None:
    """Cancel jobs by id or key, and say what came of each; or all that match a filter.

    prevented: it will not run. requested: it runs, and its handler was told to stop. too late: nothing that waits or
    runs has that name; then the exit code is 1.
    """
    database, as_json = options.pop("database"), options.pop("as_json")
    if filter := filter_of({**options, "key": keys[0] if len(keys) == 1 else None}):
        if keys and not filter_of(options):
            _cancel(ids, keys, database, as_json)
            return
        if len(keys) > 1:
            raise click.UsageError("With a filter --key is given once.")
        _steer("cancel", ids, filter, yes, database, as_json)
        return
    if not ids and not keys:
        raise click.UsageError("Name the jobs: ids, --key, or a filter such as --task.")
    _cancel(ids, keys, database, as_json)


def _cancel(ids: Sequence[int], keys: Sequence[str], database: str | None, as_json: bool) -> None:
    async def work() -> list[dict[str, Any]]:
        async with operating(database) as operator:
            by_id = [{"id": id, **await _cancelled(operator, [id])} for id in ids]
            by_key = [{"key": key, **await _cancelled(operator, await _of_key(operator, key))} for key in keys]
            return by_id + by_key

    answers = run(work())
    if as_json:
        click.echo(to_json(answers))
    else:
        for name, answer in zip([*ids, *keys], answers, strict=True):
            click.echo(f"{name}\t{answer['answer']}")
    if not all(answer["done"] for answer in answers):
        raise SystemExit(1)


async def _of_key(operator: Operator, key: str) -> list[int]:
    """Return what waits and what runs with a key."""
    found: list[int] = []
    for state in ("scheduled", "running"):
        page = await operator.page(filter_of({"key": key, "state": state}))
        found += [job.id for job in page.items]
    return found


async def _cancelled(operator: Operator, ids: Sequence[int]) -> dict[str, Any]:
    """Return what came of it in one of the three words, and as the HTTP API says it."""
    answer, texts = "too late", []
    for id in ids:
        try:
            done = await operator.act("cancel", known_id(str(id)))
        except (UnknownJob, InvalidJob) as error:
            texts.append(str(error))
            continue
        texts.append(done.text)
        if done.done and answer != "requested":
            answer = "requested" if "asked to stop" in done.text else "prevented"
    text = " ".join(dict.fromkeys(texts)) or "Nothing that waits or runs has that key."
    return {"done": answer != "too late", "text": text, "answer": answer}


@click.command()
@key_option
@_on_jobs
def retry(ids: tuple[int, ...], yes: bool, database: str | None, as_json: bool, **given: Any) -> None:
    """Put discarded or cancelled jobs back, due now, with fresh attempts: by id, or all that match a filter."""
    _steer("retry", ids, filter_of(given), yes, database, as_json)


@click.command("run-now")
@key_option
@_on_jobs
def run_now(ids: tuple[int, ...], yes: bool, database: str | None, as_json: bool, **given: Any) -> None:
    """Make waiting jobs due now: by id, or all that match a filter."""
    _steer("run-now", ids, filter_of(given), yes, database, as_json)


@click.command()
@key_option
@click.option("--at", type=TIME, help="Due then: a time with its zone, or -2h, +10m.")
@click.option("--delay", type=click.FloatRange(0, 10_000_000_000), metavar="SECONDS", help="Due so long from now.")
@_on_jobs
def reschedule(
    ids: tuple[int, ...],
    at: str | None,
    delay: float | None,
    yes: bool,
    database: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Move waiting jobs to another due time: by id, or all that match a filter."""
    if (at is None) == (delay is None):
        raise click.UsageError("Say when: --at or --delay, one of them.")
    _steer("reschedule", ids, filter_of(given), yes, database, as_json, at=at, delay=delay)


STEERING = (cancel, retry, run_now, reschedule)


def _steer(
    action: Action, ids: Sequence[int], filter: Filter, yes: bool, database: str | None, as_json: bool, **when: Any
) -> None:
    if bool(ids) == bool(filter):
        raise click.UsageError("Name the jobs by their ids, or by a filter such as --task or --state, one of them.")
    if ids:
        _each(action, ids, database, as_json, **when)
    else:
        _all(action, filter, yes, database, as_json, **when)


def _each(action: Action, ids: Sequence[int], database: str | None, as_json: bool, **when: Any) -> None:
    """Do it to every id, whatever becomes of the others; end with 1 where one was refused."""
    answers: list[dict[str, Any]] = []

    async def work() -> None:
        async with operating(database) as operator:
            for id in ids:
                try:
                    done = await operator.act(action, known_id(str(id)), **when)
                except OnCueError as error:
                    answers.append({"id": id, "done": False, "text": str(error)})
                else:
                    answers.append({"id": id, **msgspec.to_builtins(done)})
                if not as_json:
                    _say(action, answers[-1])

    run(work())
    if as_json:
        click.echo(to_json(answers))
    if not all(answer["done"] for answer in answers):
        raise SystemExit(1)


def _say(action: Action, answer: dict[str, Any]) -> None:
    good = "due now" if action in ("retry", "run-now") else answer["text"].removeprefix("It is ").removesuffix(".")
    click.echo(f"{answer['id']}\t{good if answer['done'] else answer['text']}", err=not answer["done"])


def _all(action: Action, filter: Filter, yes: bool, database: str | None, as_json: bool, **when: Any) -> None:
    async def work() -> ManyDone:
        async with operating(database) as operator:
            counted = await operator.count(action, filter)
            _confirm(action, counted.count, yes)
            if not counted.count:
                return ManyDone(0, [], f"{action}: no job matches that it could be done to.")
            return await _with_progress(operator, action, filter, counted, **when)

    done = run(work())
    if as_json:
        click.echo(to_json(msgspec.to_builtins(done)))
    else:
        click.echo(done.text)
        for one in done.refused:
            click.echo(f"{one.id}\t{one.why}", err=True)
    if done.refused:
        raise SystemExit(1)


def _confirm(action: Action, count: int, yes: bool) -> None:
    if yes or not count:
        return
    jobs, match = counted(count, "job"), "matches" if count == 1 else "match"
    if not sys.stdin.isatty():
        raise click.UsageError(f"{jobs} {match}, and nothing was done: there is nobody to ask. Add --yes to do it.")
    if not click.confirm(f"{_VERBS[action]}: {jobs}. Go on?", err=True):
        fail("Nothing was done.")


async def _with_progress(
    operator: Operator, action: Action, filter: Filter, counted: ManyCounted, at: str | None = None,
    delay: float | None = None,
) -> ManyDone:  # fmt: skip
    """Do it; the audit's line tells meanwhile how many are done."""

    async def look() -> tuple[int, int]:
        lines = (await operator.audit(limit=5, target="jobs")).items
        return next((line.count for line in lines if line.who == operator.who), 0), counted.count

    doing = operator.act_on_many(action, filter, counted.token, counted.count, at=at, delay=delay)
    return await watching(_VERBS[action], doing, look)
