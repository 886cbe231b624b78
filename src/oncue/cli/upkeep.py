"""``oncue drain``, ``sweep``, ``migrate`` and ``restored``: work that is done once, by hand or from a script."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from oncue.app import OnCue
from oncue.cli.common import as_json, database, fail, load_app, only_database, operating, postgres_schema, run
from oncue.cli.output import record_of, show, tell
from oncue.cli.progress import Searching, watching
from oncue.clock import SECOND, iso, seconds_to_us, to_us
from oncue.drain import Drain, Drained
from oncue.operate.views import JobRow
from oncue.store import Store
from oncue.store.views import SchemaView
from oncue.sweeper import Swept
from oncue.words import counted

_PAGE = 1000


@click.command(short_help="Do what is due now, and return.")
@click.argument("app")
@click.option("--limit", type=click.IntRange(1), help="Take at most so many jobs.")
@click.option("--seconds", type=click.FloatRange(0), help="Work for at most so long.")
@as_json
def drain(app: str, limit: int | None, seconds: float | None, as_json: bool) -> None:
    """Do what is due now in APP (module:attribute) and return: a worker's life with an end.

    Plans cron and reconciles sources first. Exit code 0 also where jobs failed: they are retried or told of.
    """
    loaded = load_app(app)
    _log_to_stderr()
    done = asdict(run(_drained(loaded, limit, seconds)))
    done["next_due"] = None if done["next_due"] is None else iso(to_us(done["next_due"]))
    _told(done, as_json)


async def _drained(app: OnCue, limit: int | None, seconds: float | None) -> Drained:
    budget = None if seconds is None else seconds_to_us(seconds) / SECOND
    async with app:
        service = app.service(worker=False)
        total = 0

        async def look() -> tuple[int, int]:
            nonlocal total
            worker = service.worker
            done = running = 0
            if isinstance(worker, Drain):
                done, running = worker.ran + worker.failed + worker.skipped, len(worker.places.runs)
            if done >= total:
                # Counted anew only once all that was known is done: where much is due, counting takes its time.
                left = await app.store.backlog(app.clock.now(), service.options.queue_names)
                total = min(done + running + left.remaining, limit or sys.maxsize)
            return done, total

        return await watching("doing jobs", service.drain(limit, budget), look)


@click.command(short_help="Sweep once: rescue, plan cron, reconcile sources, prune.")
@click.argument("app")
@as_json
def sweep(app: str, as_json: bool) -> None:
    """Do one sweep for APP (module:attribute): rescue, plan cron, reconcile sources, prune."""
    loaded = load_app(app)
    _log_to_stderr()

    async def work() -> Swept:
        async with loaded:
            return await loaded.service(worker=False).sweep()

    _told(asdict(run(watching("sweeping", work()))), as_json)


def _told(figures: dict[str, Any], as_json: bool) -> None:
    text = ", ".join(f"{name} {'none' if value is None else value}" for name, value in figures.items())
    tell(figures, text, as_json)


def _log_to_stderr() -> None:
    if not logging.getLogger().handlers:
        logging.basicConfig(
            level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", handlers=[_StandardError()]
        )


class _StandardError(logging.Handler):
    """Writes to standard error as it is by then: while a bar is shown there, lines go above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; a log that can't be written stops no work."""
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


@click.command(short_help="Create OnCue's tables, or bring them up to date.")
@click.option("--check", is_flag=True, help="Only look: exit code 1 where there is something to do.")
@click.option("--sql", is_flag=True, help="Only print the SQL of what is to be done.")
@click.option("--alembic", is_flag=True, help="Only print a complete Alembic revision (PostgreSQL).")
@click.option("--django", is_flag=True, help="Only print a complete Django migration (PostgreSQL).")
@click.option("--since", type=click.IntRange(0), metavar="VERSION", help="Print the steps after this version.")
@click.option("--after", metavar="NAME", help="The revision or app.migration before the one that is printed.")
@only_database
@as_json
def migrate(
    check: bool,
    sql: bool,
    alembic: bool,
    django: bool,
    since: int | None,
    after: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Create OnCue's tables, or bring them up to date. On SQLite, makes the database where there is none.

    --sql prints what the database lacks, ready for psql or sqlite3. --alembic and --django print a file with all steps,
    or those after --since, and ask no server.
    """
    if check + sql + alembic + django > 1:
        raise click.UsageError("--check, --sql, --alembic and --django exclude each other.")
    if after is not None and not (alembic or django):
        raise click.UsageError("--after belongs to --alembic and --django.")
    if since is not None and not (sql or alembic or django):
        raise click.UsageError("--since belongs to --sql, --alembic and --django.")
    if as_json and (sql or alembic or django):
        raise click.UsageError("--sql, --alembic and --django print code: --json goes without them.")
    app = OnCue(database)
    if alembic or django or since is not None:
        click.echo(_exported(app.store, alembic, django, since or 0, after).rstrip())
        return
    found = run(_migrated(app, change=not check and not sql))
    state = f"{found.location}: version {found.found} of {found.expected}" + (
        "" if found.exists else ", no database yet"
    )
    if sql:
        click.echo("\n".join(found.pending).rstrip() or f"-- {state}: nothing to do")
        return
    done = not found.good and not check
    text = state if check else f"{state}: nothing to do"
    if done:
        text = f"{found.location}: migrated from version {found.found} to {found.expected}"
    tell({**_schema(found), "migrated": done}, text, as_json)
    if check and not found.good:
        raise SystemExit(1)


def _schema(found: SchemaView) -> dict[str, Any]:
    """Return what was found, as JSON has it."""
    return {
        "location": found.location, "exists": found.exists, "found": found.found, "expected": found.expected,
        "good": found.good,
    }  # fmt: skip


async def _migrated(app: OnCue, *, change: bool) -> SchemaView:
    found = await app.store.schema()
    if change:

        async def look() -> tuple[int, int]:
            return (await app.store.schema()).found - found.found, found.expected - found.found

        await watching("migrating", app.store.open(), look)
        await app.store.close()
    return found


def _exported(store: Store, alembic: bool, django: bool, since: int, after: str | None) -> str:
    if (name := postgres_schema(store)) is None:
        raise click.UsageError("--alembic, --django and --since are for PostgreSQL: name it in --database.")
    from oncue.store.postgres import export

    if alembic:
        return export.alembic(since, name, after)
    return export.django(since, name, after) if django else export.script(since, name)


@click.command(short_help="After a restored backup: hold what came due before now.")
@click.option("--release", is_flag=True, help="Let what is held run.")
@click.option("--list", "list_", is_flag=True, help="List what is held.")
@click.option("--force", is_flag=True, help="Hold also while workers seem to be alive.")
@database
@as_json
def restored(release: bool, list_: bool, force: bool, database: str | None, as_json: bool) -> None:
    """After a backup was restored: hold what came due before now, so that nothing is sent twice by itself.

    Stop the workers, restore, run this, start the workers; then look at what is held with --list, cancel what has
    happened already with `oncue jobs cancel ID`, and let the rest run with --release.
    """
    if release and list_:
        raise click.UsageError("--release and --list exclude each other.")
    if list_:
        held = [record_of(job) for job in run(_held(database))]
        show(held, ("id", "task", "args", "scheduled_at", "attempt", "key", "group"), as_json, empty="nothing is held")
        return
    count, what = run(_release(database) if release else _hold(database, force)), "released" if release else "held"
    tell({what: count}, f"{counted(count, 'job')} {what}", as_json)
    if not release and not as_json:
        click.echo("Fires and source rows of before now will be held too, until --release.", err=True)


async def _held(database: str | None) -> Sequence[JobRow]:
    async with operating(database) as operator:
        held: list[JobRow] = []
        before: int | None = None
        with Searching() as told:
            while page := await operator.app.jobs.list(state=["scheduled"], limit=_PAGE, before=before):
                held += await operator.jobs.rows([job.id for job in page if job.blocked_by == "restore"])
                before = page[-1].id
                told(before, len(held))
        return sorted(held, key=lambda job: (job.scheduled_at, job.id))


async def _release(database: str | None) -> int:
    async with operating(database) as operator:
        return await watching("letting go", operator.restored(release=True))


async def _hold(database: str | None, force: bool) -> int:
    async with operating(database) as operator:
        alive = [worker.name for worker in await operator.app.jobs.workers() if worker.state == "alive"]
        if alive and not force:
            fail(
                f"Workers seem to be alive: {', '.join(alive)}. Stop them first, or what they do now would be taken "
                "from them; --force where they belong to the time before the restore."
            )
        return await watching("holding", operator.restored())
