"""``oncue doctor``: looks at everything that a person would look at, and says how to mend what isn't well."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence

import click
import msgspec

from oncue.app import OnCue
from oncue.cli.common import as_json, load_app, only_database, postgres_schema, run
from oncue.cli.output import clean, on_terminal, to_json
from oncue.errors import ConfigError, StoreCorrupt, StoreError, StoreUnavailable
from oncue.operate import checks, standing
from oncue.operate.overview import bridge, health
from oncue.settings import secrets_of, unset
from oncue.store.views import Check

_Look = Callable[[OnCue], Awaitable[Check | Sequence[Check]]]
_COLOURS = {"ok": "green", "warn": "yellow", "FAIL": "red"}
_PATIENCE = 2.0
_PROOF = 8.0


@click.command(short_help="Check everything, and say how to mend what isn't well.")
@click.argument("app", required=False)
@click.option("--url", metavar="URL", help="Where the application answers: tries whether cron reaches it.")
@only_database
@as_json
def doctor(app: str | None, url: str | None, database: str | None, as_json: bool) -> None:
    """Check the database, the wake channel, workers, schedules and jobs; with APP (module:attribute) its code too.

    With --url the cron route is called as cron would, but so that nothing is run; with CRON_SECRET where it is set.
    Each line is ok, warn or FAIL, and says how to mend it. Exit code 1 where something is FAIL.
    """
    if app is not None and database is not None:
        raise click.UsageError("An APP names its own database: leave --database out.")
    address = None if url is None else _address(url)
    loaded = load_app(app) if app is not None else OnCue(database)
    found = run(_all(loaded, with_code=app is not None, address=address))
    failed = any(check.level == "FAIL" for check in found)
    if as_json:
        click.echo(to_json({"ok": not failed, "checks": [msgspec.to_builtins(health(check)) for check in found]}))
    else:
        for check in found:
            level = click.style(f"{check.level:<5}", fg=_COLOURS[check.level]) if on_terminal() else f"{check.level:<5}"
            click.echo(f"{level} {check.name}: {clean(check.found)}")
            if check.remedy:
                click.echo(f"      {clean(check.remedy)}")
    if failed:
        raise SystemExit(1)


def _address(url: str) -> str:
    # What speaks HTTP takes long to load, and is for --url only.
    from oncue.cli.reach import address_of

    return address_of(url)


async def _all(app: OnCue, *, with_code: bool, address: str | None) -> list[Check]:
    found = [_cron_secret(os.environ.get("CRON_SECRET"))]
    if address is not None:
        from oncue.cli.reach import cron_route

        found.append(await cron_route(address))
    return found + await _examine(app, with_code=with_code)


async def _examine(app: OnCue, *, with_code: bool) -> list[Check]:
    found: list[Check] = []
    try:
        await app.store.open(migrate=False)
    except StoreError as error:
        return [*found, Check("database", "FAIL", f"{error}{unset(app.url)}")]
    try:
        looks: dict[str, _Look] = {
            "database": checks.database, "schema": checks.schema, "store": lambda _: app.store.check(), "wake": _wake,
            "workers": checks.workers,
            "wake of workers": checks.hearing, "sweeper": checks.sweeper, "tasks": checks.tasks,
            "queues": checks.paused, "paused tasks": checks.pauses,
            "overdue jobs": checks.overdue, "running long": checks.long_running, "discarded": checks.discarded,
            "tokens": checks.tokens, "clock": checks.clock, "blockers": checks.blockers, "schedules": checks.schedules,
            "sources": checks.sources, "conversations": standing.conversations, "channels": standing.channels,
        }  # fmt: skip
        if with_code:
            looks["code"] = checks.code
        looks["bridge"] = bridge
        for name, look in looks.items():
            found += await _tried(name, look, app)
    except StoreError as error:
        found.append(Check("database", "FAIL", str(error)))
    finally:
        await app.store.close()
    return found


async def _tried(name: str, look: _Look, app: OnCue) -> Sequence[Check]:
    """Look; a check that can't be done, because this role may not read a table, fails by itself."""
    try:
        found = await look(app)
    except (StoreUnavailable, StoreCorrupt):
        raise
    except StoreError as error:
        return [Check(name, "FAIL", str(error))]
    return [found] if isinstance(found, Check) else found


def _cron_secret(value: str | None) -> Check:
    try:
        count = len(secrets_of(value, "CRON_SECRET"))
    except ConfigError as error:
        return Check("cron secret", "FAIL", str(error))
    if count:
        return Check("cron secret", "ok", "set" if count == 1 else f"{count} set, all of them good")
    return Check("cron secret", "warn", "not set in this environment", "Set CRON_SECRET where an external cron calls.")


async def _wake(app: OnCue) -> list[Check]:
    await app.wake.start()
    heard = asyncio.Event()
    unlisten = app.wake.listen(lambda _: heard.set())
    try:
        found = await (_written(app, heard) if postgres_schema(app.store) is None else _proved(app, heard))
        return found if app.wake.carrier is None else [*found, await _carried(app)]
    finally:
        unlisten()
        await app.wake.close()


async def _written(app: OnCue, heard: asyncio.Event) -> list[Check]:
    with contextlib.suppress(TimeoutError):
        # Redis beside the file tells its listeners when it is proved, which is not what is waited for here.
        async with asyncio.timeout(_PATIENCE):
            while app.wake.healthy is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    heard.clear()
    try:
        await asyncio.to_thread(app.store.ping_sync)
        async with asyncio.timeout(_PATIENCE):
            await heard.wait()
    except TimeoutError:
        remedy = (
            "Jobs of other processes start up to a sweep late. Is the database on a network share? Use a local disk."
        )
        return [Check("wake", "FAIL", f"another connection's write was not heard within {_PATIENCE:g} s", remedy)]
    except StoreError as error:
        remedy = "Nothing is scheduled, claimed or finished meanwhile. Workers go on by themselves once that is over."
        return [Check("writing", "FAIL", str(error), remedy)]
    written = Check("writing", "ok", "a change was committed")
    if app.wake.healthy is not None:
        return [written, Check("wake", "warn", app.wake.healthy)]
    return [written, Check("wake", "ok", "another connection's write was heard at once")]


async def _proved(app: OnCue, heard: asyncio.Event) -> list[Check]:
    """On PostgreSQL the channel proves itself, and listeners are told when it has."""
    try:
        async with asyncio.timeout(_PROOF):
            while app.wake.healthy is not None:
                heard.clear()
                await heard.wait()
    except TimeoutError:
        return [Check("wake", "warn", str(app.wake.healthy), "Jobs start up to half a second late meanwhile.")]
    return [Check("wake", "ok", "a notification to ourselves arrived on the LISTEN connection")]


async def _carried(app: OnCue) -> Check:
    """Redis proves itself by a BullMQ delivery to ourselves."""
    assert app.wake.carrier is not None
    try:
        async with asyncio.timeout(_PATIENCE):
            while not app.wake.carrier.ready:  # noqa: ASYNC110 - it is tried again by itself meanwhile
                await asyncio.sleep(0.05)
        await app.wake.carrier.prove(_PROOF)
    except Exception as error:
        if app.wake.carrier.ready:
            app.wake.carrier.worked(error)
        return Check(
            "redis",
            "warn",
            app.wake.healthy or str(error),
            "See docs/how-to/redis.md for the rights and settings that it needs.",
        )
    if app.wake.carrier.remark is not None:
        return Check("redis", "warn", f"BullMQ delivered a job to ourselves, but Redis {app.wake.carrier.remark}")
    return Check("redis", "ok", "BullMQ delivered a job to ourselves")
