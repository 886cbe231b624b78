"""``oncue whatsapp simulate``: a WhatsApp number on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import replace
from pathlib import Path
from random import randrange
from typing import TYPE_CHECKING, Any

import click

from oncue.cli.common import Commands
from oncue.errors import ConfigError

if TYPE_CHECKING:
    from oncue.whatsapp.simulator import App, Config, Fault, Template

_NAMES = ("Ana", "Bilal", "Chiara", "Deniz", "Emeka", "Femke", "Grace", "Hana", "Ivo", "Jun", "Kofi", "Lena")
_ANSWERS = ("Yes", "No", "Perhaps", "Tell me more")


@click.group(cls=Commands)
def whatsapp() -> None:
    """Work with WhatsApp."""


@whatsapp.command(short_help="Simulate the WhatsApp Cloud API on this machine.")
@click.option("--port", type=click.IntRange(0, 65535), default=8081, show_default=True, help="0 takes a free one.")
@click.option("--webhook", metavar="URL", help="Where updates go, such as http://127.0.0.1:8000/webhooks/whatsapp.")
@click.option("--token", help="The access token that clients must have.  [default: WHATSAPP_TOKEN, else local-token]")
@click.option("--app-secret", help="Signs updates.  [default: WHATSAPP_APP_SECRET, else local-secret]")
@click.option("--verify-token", help="For the handshake.  [default: WHATSAPP_VERIFY_TOKEN, else local-verify-token]")
@click.option("--number", help="The phone number id.  [default: WHATSAPP_PHONE_NUMBER_ID, else 100000000000001]")
@click.option("--ledger", type=click.Path(path_type=Path, dir_okay=False), help="A file for the ledger, JSON lines.")
@click.option(
    "--seed", type=int, help="The same seed draws the same delays, chances and ids of messages.  [default: a new one]"
)
@click.option("--people", type=click.IntRange(0), default=0, metavar="N", help="So many scripted people, who answer.")
@click.option(
    "--throughput", type=click.FloatRange(0, min_open=True), default=80.0, show_default=True, help="Messages a second."
)
@click.option("--strict-payback", is_flag=True, help="A burst to one person is all paid back before more goes.")
@click.option("--rough", is_flag=True, help="Updates come doubled, late, out of order, batched, forged, or not at all.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="JSON",
    help='Such as {"action": "accept-hang", "nth": 2}; may be given several times.',
)
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="JSON",
    help='Such as {"name": "hello", "parameters": 1}; may be given several times.',
)
def simulate(port: int, webhook: str | None, verify_token: str | None, **options: Any) -> None:  # fmt: skip
    """Simulate the WhatsApp Cloud API on 127.0.0.1, with a page like a phone to chat by hand.

    Point an application at it with WHATSAPP_URL=http://127.0.0.1:8081 and the same token, secret and number.
    Needs `pip install 'oncue[web,whatsapp]'`.
    """
    from oncue.whatsapp.simulator import create

    app = create(_config(**options))
    wanted = verify_token or os.environ.get("WHATSAPP_VERIFY_TOKEN") or "local-verify-token"
    asyncio.run(_serve(app, port, webhook, wanted))


def _config(
    token: str | None, app_secret: str | None, number: str | None, ledger: Path | None, seed: int | None, people: int,
    throughput: float, strict_payback: bool, rough: bool, faults: tuple[str, ...], templates: tuple[str, ...],
) -> Config:  # fmt: skip
    from oncue.whatsapp.simulator import Config, Limits, Person, Webhooks
    from oncue.whatsapp.simulator.control import read_fault, read_template

    given = {
        "token": token or os.environ.get("WHATSAPP_TOKEN"),
        "app_secret": app_secret or os.environ.get("WHATSAPP_APP_SECRET"),
        "number": number or os.environ.get("WHATSAPP_PHONE_NUMBER_ID"),
    }
    cast = [
        Person(f"4915700{i:06d}", _NAMES[i % len(_NAMES)], answers=_ANSWERS, ignores=(2,) if i % 4 == 3 else ())
        for i in range(people)
    ]
    if seed is None:
        # A bot that kept its database takes a message with an id of the last run for a repetition, and stays silent.
        seed = randrange(1 << 31)
    config = Config(
        ledger=ledger, seed=seed, people=cast,
        limits=Limits(throughput=throughput, strict_payback=strict_payback),
        webhooks=Webhooks.rough() if rough else Webhooks(),
        faults=[_read("--fault", text, read_fault) for text in faults],
        **{name: value for name, value in given.items() if value},  # type: ignore[arg-type]
    )  # fmt: skip
    more = [_read("--template", text, read_template) for text in templates]
    return replace(config, templates=(*config.templates, *more))


def _read(option: str, text: str, read: Any) -> Any:
    try:
        found: Fault | Template = read(text.encode())
    except ValueError as error:
        raise click.UsageError(f"{option} {text}: {error}") from error
    return found


async def _serve(app: App, port: int, webhook: str | None, verify_token: str) -> None:
    from oncue.whatsapp.simulator import serving
    from oncue.whatsapp.simulator.webhooks import check_local

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows has no handlers in the loop: there Ctrl-C ends the process at once.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    if webhook is not None:
        check_local(webhook)
    async with serving(app, port) as url:
        subscribing = asyncio.create_task(_subscribe(app, webhook, verify_token))
        click.echo(f"oncue: simulating WhatsApp, {len(app.simulator.phones)} people, phone page {url}/", err=True)
        await stop.wait()
        subscribing.cancel()


async def _subscribe(app: App, webhook: str | None, verify_token: str) -> None:
    """Shake hands with the application as soon as it is there."""
    told = False
    while webhook is not None:
        try:
            await app.simulator.webhooks.subscribe(webhook, verify_token)
        except ConfigError as error:
            if not told:
                click.echo(f"oncue: {error} Trying again each second.", err=True)
            told = True
            await asyncio.sleep(1)
        else:
            click.echo(f"oncue: updates go to {webhook}", err=True)
            return
