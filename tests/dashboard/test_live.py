"""The page is live: it says when it is not, misses nothing over a gap, and stays quick whatever comes."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Browser, expect
from playwright.async_api import Route as Asked
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route

from oncue import OnCue, Scheduled
from oncue.operate import Operator
from oncue.store.postgres import PostgresStore
from oncue.web import dashboard_app
from tests import pg, pgfaults
from tests.browser import tab
from tests.cli.stage import Running, environment
from tests.dashboard.stage import PREFIX, Shop, confirm, dashboard, faults, follow, serving, shop, view
from tests.pgprocess import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIVE = "#live"
# Counts how often the page is drawn, what it takes in, and the turns that are left to the browser; notes what it says
# of being live.
WATCH = """() => {
    Object.assign(window, { drawn: 0, taken: 0, turns: 0, said: [], long: [], began: performance.now() })
    new PerformanceObserver(list => list.getEntries().forEach(({duration}) => window.long.push(duration)))
        .observe({ type: "longtask" })
    const everything = { subtree: true, childList: true, characterData: true }
    const live = document.querySelector("#live"), parse = JSON.parse
    JSON.parse = (...given) => { window.taken += 1; return parse(...given) }
    new MutationObserver(() => window.drawn += 1).observe(document.querySelector("main"), everything)
    new MutationObserver(() => window.said.push(live.textContent)).observe(live, everything)
    const turn = () => { window.turns += 1; requestAnimationFrame(turn) }
    turn()
}"""
BURST = 50
SERVED = """
from oncue import OnCue

app = OnCue()


@app.task(name="send")
async def send(what: str) -> None: ...
"""


class Flood:
    """Takes the stream's place and says what a test says; all else is the application's own."""

    def __init__(self, made: Shop) -> None:
        self.lines: asyncio.Queue[str | None] = asyncio.Queue()
        self.asked: list[str | None] = []
        inner = dashboard_app(made.app, loopback=True)
        events = Route(f"{PREFIX}/api/events", self._events)
        self.asgi = Starlette(routes=[events, Mount(PREFIX, app=inner)])

    async def _events(self, request: Request) -> Response:
        self.asked.append(request.headers.get("last-event-id"))

        async def stream() -> AsyncIterator[str]:
            yield ": welcome\n\n"
            while (line := await self.lines.get()) is not None:
                yield line

        return StreamingResponse(stream(), media_type="text/event-stream")

    def say(self, number: int, name: str, data: Any) -> None:
        self.lines.put_nowait(f"id: 1-{number}\nevent: {name}\ndata: {json.dumps(data)}\n\n")


@asynccontextmanager
async def flooded(made: Shop) -> AsyncIterator[tuple[Flood, str]]:
    flood = Flood(made)
    async with made.app, serving(flood.asgi) as url:
        yield flood, f"{url}{PREFIX}/"
        flood.lines.put_nowait(None)


async def test_what_happens_is_shown_without_reloading(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path)
    async with dashboard(made.app) as url, tab(chromium) as page, made.app.worker():
        await view(page, url, "jobs?task=send")
        await expect(page.locator(LIVE)).to_have_text("Live")
        await made.app.schedule(made.send.call("a"), key="first")
        await expect(page.locator("tbody tr", has_text="first")).to_contain_text("completed")
        later = await made.app.schedule(made.send.call("b"), delay=3600)
        await view(page, url, f"job/{later.id}")
        await expect(page.locator(".lead .badge")).to_contain_text("scheduled")
        await made.app.jobs.run_now(later.id)
        await expect(page.locator(".lead .badge")).to_contain_text("completed")


async def test_it_says_plainly_that_it_is_not_live_and_comes_back(chromium: Browser, tmp_path: Path) -> None:
    made, port = shop(tmp_path), free_port()
    async with tab(chromium, complaints="ERR_") as page:
        async with dashboard(made.app, port) as url:
            await view(page, url, "jobs")
            await expect(page.locator(LIVE)).to_have_text("Live")
        await expect(page.locator(LIVE)).to_contain_text("Reconnecting, last news")
        await expect(page.locator("#said")).to_have_text("Not live: reconnecting.")
        await page.get_by_role("link", name="Workers").click()
        await expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
        async with dashboard(made.app, port) as url:
            await made.app.schedule(made.send.call("meanwhile"), delay=600)
            await expect(page.locator(LIVE)).to_have_text("Live")
            await expect(page.locator("main")).to_contain_text("No worker is registered")
            await follow(page.get_by_role("link", name="Jobs"))
            await expect(page.locator("tbody tr")).to_have_count(1)


async def test_it_says_why_the_database_can_not_be_asked(
    chromium: Browser, pg_database: pg.Database, pg_proxy: pgfaults.Proxy
) -> None:
    app = OnCue(pg_proxy.dsn(pg_database.dsn))
    async with dashboard(app) as url, tab(chromium, complaints="503") as page:
        await view(page, url)
        # Nobody here waits for the server to come back.
        assert isinstance(app.store, PostgresStore)
        app.store.pool.patience = 0.1
        pg_proxy.refuse()
        pg_proxy.cut()
        await expect(page.locator(".verdict")).to_contain_text("it can't be asked, so the rest is as it was")
        await page.get_by_role("link", name="Workers").click()
        where = urlsplit(pg_proxy.dsn(pg_database.dsn)).netloc.rpartition("@")[2]
        await expect(page.get_by_role("alert")).to_contain_text(where)
        await expect(page.get_by_role("alert")).to_contain_text("can't be reached")
        pg_proxy.heal()
        await expect(page.locator("main")).to_contain_text("No worker is registered")


async def test_after_a_gap_it_goes_on_where_it_was_or_loads_anew(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path)
    async with flooded(made) as (flood, url), tab(chromium) as page:
        await view(page, url, "jobs")
        await expect(page.locator(LIVE)).to_have_text("Live")
        flood.say(7, "job", {"id": 99, "state": "running"})
        flood.lines.put_nowait(None)
        await expect(page.locator(LIVE)).to_contain_text("Reconnecting")
        await expect(page.locator(LIVE)).to_have_text("Live")
        assert flood.asked == [None, "1-7"]
        await made.app.schedule(made.send.call("unseen"), delay=600)
        flood.say(9, "reset", {})
        await expect(page.locator("#note")).to_contain_text("Some changes were missed")
        await expect(page.locator("tbody tr")).to_have_count(1)


async def test_a_thousand_events_a_second_leave_it_responsive(chromium: Browser, tmp_path: Path) -> None:
    """It is drawn four times a second, clicks are answered meanwhile, and the browser has turns left between events."""
    made, answered = shop(tmp_path), asyncio.Event()
    async with flooded(made) as (flood, url), tab(chromium) as page:
        for number in range(40):
            await made.app.schedule(made.send.call(f"{number}"), delay=600)
        overview = await (await page.request.get(f"{url}api/overview")).json()
        await view(page, url, "jobs")
        await expect(page.locator("tbody tr")).to_have_count(40)
        await page.evaluate(WATCH)

        async def pour() -> int:
            sent = 0
            while sent < 3000 or not answered.is_set():
                for number in range(sent, sent + BURST):
                    state = "running" if number % 2 else "scheduled"
                    flood.say(number, "job", {"id": number % 60 + 1, "state": state})
                sent += BURST
                flood.say(sent, "overview", overview | {"counts": overview["counts"] | {"late": sent // 1000}})
                await asyncio.sleep(0.05)
            return sent

        pouring = asyncio.create_task(pour())
        try:
            for chosen in range(1, 6):
                await page.get_by_label(f"Choose job {chosen + 30}", exact=True).check()
                await expect(page.locator("main")).to_contain_text(re.compile(f"{chosen} jobs? chosen:"))
        finally:
            answered.set()
            sent = await pouring
        flood.say(sent + 1, "job", {"id": 40, "state": "cancelled"})
        await expect(page.locator("tbody tr").first).to_contain_text("cancelled")
        await expect(page.locator("main")).to_contain_text("changes of other jobs since")
        seen = await page.evaluate("({drawn, taken, turns, seconds: (performance.now() - began) / 1000})")
        bursts = sent // BURST
        assert seen["taken"] == sent + bursts + 1
        assert seen["turns"] > bursts, "a page that is busy drawing takes in many bursts in one turn"
        assert seen["drawn"] <= 4 * seen["seconds"] + 2


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[str]:
    """``oncue serve`` with its worker, as a process of its own, on the database of ``shop``; yields the address."""
    (folder / "served.py").write_text(SERVED)
    server = Running(folder, environment(folder / "shop.db"), ["serve", "served:app", "--port", "0"])
    try:
        said = await asyncio.to_thread(server.says, "serving http")
        yield said[said.index("http") :].split()[0].rstrip("/") + "/"
    finally:
        server.close()


async def produce(made: Shop, enough: asyncio.Event) -> int:
    number = 0
    while number < 8000 or not enough.is_set():
        number += len(await made.app.schedule_many([Scheduled(made.send.call("letter"))] * 500))
        # Some of the machine is for the browser.
        await asyncio.sleep(0.1)
    return number


async def test_thousands_of_jobs_a_second_leave_it_live_and_end_with_the_right_counts(
    chromium: Browser, tmp_path: Path
) -> None:
    made, answered, read_anew = shop(tmp_path), asyncio.Event(), list[str]()

    async def refuse(asked: Asked) -> None:
        read_anew.append(asked.request.url)
        await asked.abort()

    async with served(tmp_path) as url, made.app, tab(chromium) as page:
        await view(page, url)
        await expect(page.locator(LIVE)).to_have_text("Live")
        listed = await page.context.new_page()
        await view(listed, url, "jobs")
        await expect(listed.locator(LIVE)).to_have_text("Live")
        for one in (page, listed):
            await one.evaluate(WATCH)
        # From here on the overview knows what the stream tells, and nothing else.
        await page.route("**/api/overview?*", refuse)

        began, producing = time.monotonic(), asyncio.create_task(produce(made, answered))
        table = page.locator("figure").first.locator("tbody")
        try:
            for count in (1, 0, 1):
                await page.locator("figure summary").first.click()
                await expect(table).to_have_count(count)
            await follow(listed.get_by_role("link", name="Completed"))
            await expect(listed.locator("tbody tr")).to_have_count(50)
            await follow(listed.get_by_role("link", name="Workers"))
            await expect(listed.locator("tbody tr")).to_have_count(1)
            await follow(listed.get_by_role("link", name=re.compile("^Jobs")))
        finally:
            answered.set()
            total = await producing
        tiles = page.locator(".tiles")
        await expect(tiles.locator(".completed b")).to_have_attribute("title", f"{total:,}")
        took = time.monotonic() - began
        for state in ("Late", "Due", "Running", "Scheduled", "Discarded"):
            await expect(tiles.locator("li", has_text=state)).to_have_text(re.compile("^0"))
        first = listed.locator("tbody tr").first
        await expect(first).to_contain_text(f"#{total}")
        await expect(first).to_contain_text("completed")
        assert read_anew == []
        assert (await made.app.jobs.counts()).completed == total
        for one in (page, listed):
            assert set(await one.evaluate("window.said")) <= {"Live"}
        longest = max([0, *await page.evaluate("window.long"), *await listed.evaluate("window.long")])
    print(f"{total} jobs, {total / took:,.0f} a second; the page was busy for {longest:.0f} ms at most")


async def test_a_token_is_asked_for_once_and_kept_for_the_tab_alone(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path)
    async with dashboard(made.app, loopback=False) as url, tab(chromium, complaints="401") as page:
        secret = await Operator(made.app, "test").tokens.create("ana", ["read"])
        await page.goto(url)
        await expect(page.get_by_role("dialog")).to_contain_text("This server lets in whoever has a token.")
        assert await faults(page) == []
        await page.get_by_label("Token, kept").fill("a wrong one")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_contain_text("unknown, has expired or was revoked")
        await page.get_by_label("Token, kept").fill(secret)
        await page.keyboard.press("Enter")
        await expect(page.locator("#who")).to_contain_text("token:ana")
        await expect(page.locator(LIVE)).to_have_text("Live")
        job = await made.app.schedule(made.send.call("a"), delay=600)
        await follow(page.get_by_role("link", name="Jobs"))
        await follow(page.get_by_role("link", name=f"#{job.id}"))
        await page.locator(".life").wait_for()
        assert await page.locator("main").get_by_role("button").count() == 0, (
            "who may only read is offered nothing else"
        )
        await page.reload()
        await page.locator(".life").wait_for()
        assert await page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        other = await page.context.new_page()
        await other.goto(url)
        await expect(other.get_by_role("dialog")).to_contain_text("Token")


async def test_a_search_that_found_nothing_yet_offers_to_go_on(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path)
    async with dashboard(made.app) as url, tab(chromium) as page:
        await made.app.schedule(made.send.call("needle"), delay=600)
        await made.app.schedule(made.send.call("hay"), delay=600)
        await page.route("**/api/jobs?*", bounded)
        await view(page, url, "jobs")
        await page.get_by_label("Text in arguments or error").fill("needle")
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_contain_text("Nothing found so far.")
        await expect(page.locator("main")).to_contain_text("Searched the jobs 2 to 2.")
        await follow(page.get_by_role("link", name="Go on with older jobs"))
        await expect(page.locator("tbody tr")).to_have_count(1)
        await follow(page.get_by_role("link", name="First page"))
        await expect(page.locator("main")).to_contain_text("Nothing found so far.")


async def bounded(route: Asked) -> None:
    """Answer as the API does where a search stopped at its bound: the first page holds the newest job alone."""
    asked = parse_qs(urlsplit(route.request.url).query)
    if "text" not in asked or "cursor" in asked:
        await route.continue_()
        return
    await route.fulfill(json={"items": [], "next": "2", "scanned": {"from": 2, "to": 2}})


async def test_what_is_typed_stays_while_the_page_is_drawn_anew(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path)
    async with dashboard(made.app) as url, tab(chromium) as page, made.app.worker():
        await view(page, url, "jobs")
        await page.get_by_label("Queue").fill("half a na")
        await made.app.schedule(made.send.call("a"), key="news")
        await expect(page.locator("tbody tr", has_text="news")).to_contain_text("completed")
        assert await page.get_by_label("Queue").input_value() == "half a na"
        await expect(page.get_by_label("Queue")).to_be_focused()


async def test_jobs_are_moved_paused_and_resumed(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path)
    async with dashboard(made.app) as url, tab(chromium) as page, made.app.worker():
        job = await made.app.schedule(made.send.call("a"), delay=600)
        before = await made.app.jobs.get(job.id)
        await view(page, url, f"job/{job.id}")
        await page.get_by_role("button", name="Reschedule").click()
        await page.get_by_label("or in so many minutes").fill("90")
        await confirm(page, "Reschedule 1 job")
        await expect(page.locator("main")).to_contain_text("in 1 h 29 min")
        after = await made.app.jobs.get(job.id)
        assert before is not None
        assert after is not None
        assert 4700 < (after.scheduled_at - before.scheduled_at) / 1e6 < 4900
        for view_name, name in (
            ("queues", "queue default"),
            ("queues", "task send"),
            ("schedules", "schedule nightly"),
        ):
            await view(page, url, view_name)
            for verb, other in (("Pause", "Resume"), ("Resume", "Pause")):
                await page.get_by_role("button", name=f"{verb}: {name}").click()
                await confirm(page, verb)
                await page.get_by_role("button", name=f"{other}: {name}").wait_for()
        await page.get_by_role("button", name="Run now: schedule nightly").click()
        await confirm(page, "Run now")
        assert [one.task for one in await made.app.jobs.list(limit=1)] == ["report"]
