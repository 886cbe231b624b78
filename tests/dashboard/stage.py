"""What the tests of the page share: an application with something of everything, and its page on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvicorn
from playwright.async_api import Locator, Page
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from oncue import OnCue, Retry
from oncue.testing import TestClock
from oncue.web import dashboard_app
from tests.browser import DESK, PHONE, violations

PREFIX = "/tools/oncue"


@dataclass
class Shop:
    """An application and what its tasks do: ``broken`` makes ``send`` fail, ``slow`` waits for ``gate``."""

    app: OnCue
    send: Any
    slow: Any
    broken: bool
    gate: asyncio.Event
    started: asyncio.Event
    sent: list[str]


def shop(folder: Path, clock: TestClock | None = None) -> Shop:
    """Return an application on a SQLite file in this folder, by this clock or by the machine's."""
    app = OnCue(f"sqlite:///{folder / 'shop.db'}", clock=clock)

    @app.task(name="send", retry=Retry(1))
    async def send(what: str) -> None:
        if made.broken:
            raise ValueError(f"no template for {what}")
        made.sent.append(what)

    @app.task(name="slow", timeout=60)
    async def slow(what: str) -> None:
        made.started.set()
        await made.gate.wait()
        made.sent.append(what)

    @app.cron("30 2 * * *", timezone="Europe/Berlin", name="nightly", task=app.task(name="report"))
    async def nightly() -> None:
        made.sent.append("report")

    @app.every(timedelta(hours=1), name="hourly")
    async def hourly() -> None: ...

    made = Shop(app, send, slow, broken=False, gate=asyncio.Event(), started=asyncio.Event(), sent=[])
    return made


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals are for whoever runs the tests.
        yield


@asynccontextmanager
async def serving(asgi: ASGIApp, port: int = 0) -> AsyncIterator[str]:
    """Serve on a port of loopback (0: a free one) for the length of the block; yields the address."""
    config = uvicorn.Config(asgi, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = _Server(config)
    with socket.create_server(("127.0.0.1", port)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await server.up.wait()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def dashboard(app: OnCue, port: int = 0, **options: Any) -> AsyncIterator[str]:
    """Serve the page of an application under a prefix, as a host application mounts it; yields its address."""
    mounted = dashboard_app(app, **({"loopback": True} | options))
    async with app, serving(Starlette(routes=[Mount(PREFIX, app=mounted)]), port) as url:
        yield url + PREFIX + "/"


SHOWN = """() => new Promise(done => {
    const main = document.querySelector("main")
    const look = () => main.querySelector(":scope > div")?.$key === location.hash && done()
    new MutationObserver(look).observe(main, {childList: true})
    look()
})"""


async def view(page: Page, url: str, name: str = "") -> None:
    """Open a view and wait until it shows something of its own, not of the view before."""
    await page.goto(f"{url}#/{name}")
    await page.evaluate(SHOWN)


async def follow(link: Locator) -> None:
    """Click what leads to another view, and wait until that is shown: the old one stays for a moment."""
    await link.click()
    await link.page.evaluate(SHOWN)


async def cells(rows: Locator) -> list[list[str]]:
    """Return what the cells of these rows say."""
    return await rows.evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.innerText))")  # type: ignore[no-any-return]


async def confirm(page: Page, label: str) -> None:
    """Answer the question that an action asks first, and wait for what came of it."""
    await page.locator("#note").evaluate("note => note.replaceChildren()")  # what an earlier one said
    await page.locator("dialog").get_by_role("button", name=label).click()
    await page.locator("#note p").wait_for()


HANGS = """() => document.documentElement.scrollWidth > innerWidth
    || [...document.querySelectorAll("dialog[open], #note p")].some(one => {
        const {left, right} = one.getBoundingClientRect()
        return left < 0 || right > innerWidth || one.scrollWidth > one.clientWidth
    })"""


async def faults(page: Page) -> list[str]:
    """Return what keeps anybody out of what is shown, in light and in dark, and on a phone; what hangs over, too."""
    found = []
    for scheme, size in (("light", DESK), ("dark", DESK), ("dark", PHONE), ("light", PHONE)):
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await page.set_viewport_size(size)
        found += [f"{scheme}, {size['width']} wide: {fault}" for fault in await violations(page)]
        if await page.evaluate(HANGS):
            found.append(f"{scheme}, {size['width']} wide: it hangs over the edge")
    await page.set_viewport_size(DESK)
    return found
