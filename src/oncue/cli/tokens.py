"""``oncue tokens`` and ``oncue audit``: who may use the HTTP API, and who did what by any face."""

from __future__ import annotations

from typing import Any

import click

from oncue.cli.common import Commands, as_json, database, fail, operating, run
from oncue.cli.filters import TIME
from oncue.cli.output import Moment, record_of, show, tell, to_json
from oncue.operate.shape import from_iso
from oncue.operate.tokens import ROLES
from oncue.operate.views import AuditEntry


@click.group(cls=Commands)
def tokens() -> None:
    """Make, list and revoke tokens for the HTTP API and the page.

    read sees all; operate acts on what is there; schedule asks for jobs; cron has due work done.
    """


@tokens.command()
@click.argument("name")
@click.option("--role", "roles", type=click.Choice(ROLES), multiple=True, required=True, help="May be repeated.")
@click.option("--expires", type=TIME, help="Good until then: a time, or +30d. Default: until it is revoked.")
@database
@as_json
def create(name: str, roles: tuple[str, ...], expires: str | None, database: str | None, as_json: bool) -> None:
    """Make a token and print it. It is shown this once: only its hash is kept."""
    until = None if expires is None else from_iso(expires)

    async def work() -> str:
        async with operating(database) as operator:
            return await operator.tokens.create(name, roles, until)

    token = run(work())
    if as_json:
        moment = None if until is None else Moment(until)
        click.echo(to_json({"name": name, "roles": sorted(set(roles)), "token": token, "expires_at": moment}))
    else:
        click.echo(token)
        click.echo("Keep it: it can't be shown again. Send it as: Authorization: Bearer TOKEN", err=True)


@tokens.command("list")
@database
@as_json
def list_(database: str | None, as_json: bool) -> None:
    """List the tokens by name, without what they are."""

    async def work() -> list[dict[str, Any]]:
        async with operating(database) as operator:
            return [record_of(token) for token in await operator.tokens.list()]

    records = run(work())
    if not as_json:
        for record in records:
            record["roles"] = ", ".join(record["roles"])
    columns = ("name", "good", "roles", "created_at", "expires_at", "revoked_at")
    show(records, columns, as_json, empty="no tokens: `oncue tokens create NAME --role read` makes one")


@tokens.command()
@click.argument("name")
@database
@as_json
def revoke(name: str, database: str | None, as_json: bool) -> None:
    """Let nobody in with a token any more, from now on."""

    async def work() -> bool:
        async with operating(database) as operator:
            return await operator.tokens.revoke(name)

    if not run(work()):
        fail(f"There is no token {name!r} that is good. `oncue tokens list` names them.")
    tell({"name": name, "revoked": True}, f"{name}\trevoked", as_json)


@click.command(short_help="Show who did what, when and to what.")
@click.option("--target", help="Only what was done to this, such as job:17, queue:mail, task:send, schedule:nightly.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Only ids below this one: the next page.")
@database
@as_json
def audit(target: str | None, limit: int, before: int | None, database: str | None, as_json: bool) -> None:
    """Show what was done by hand, on the page, over HTTP and here, the latest first: who, when, what, to how many."""

    async def work() -> list[AuditEntry]:
        async with operating(database) as operator:
            cursor = None if before is None else str(before)
            return (await operator.audit(cursor, limit, target)).items

    columns = ("id", "at", "who", "action", "target", "count", "detail")
    show([record_of(one) for one in run(work())], columns, as_json, empty="nothing was done yet")
