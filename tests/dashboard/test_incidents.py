"""The incidents that wake people, each found and mended by clicks in a browser."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from oncue import OnCue
from oncue.conversation import Chat
from oncue.transport import Template
from oncue.wake.postgres import Timing
from oncue.worker import WorkerOptions
from tests import pg, pgfaults
from tests.browser import tab
from tests.conversation.engine_stage import talk
from tests.dashboard.stage import confirm, dashboard, faults, follow, shop, view
from tests.databases import database
from tests.wake.pgkit import HASTY

pytestmark = pytest.mark.asyncio(loop_scope="module")
DOOMED = """
import asyncio, sys
from oncue import OnCue, Retry

app = OnCue(sys.argv[1])

@app.task(name="slow", retry=Retry(1))
async def slow(what: str) -> None:
    print("begun", flush=True)
    await asyncio.sleep(3600)

async def main() -> None:
    async with app.worker():
        await asyncio.sleep(3600)

asyncio.run(main())
"""


async def row(page: Page, text: str) -> None:
    await page.locator("tbody tr", has_text=text).first.wait_for()


async def act(page: Page, verb: str, answer: str | None = None) -> str:
    """Press a button, answer its question, and return what the question was."""
    await page.get_by_role("main").get_by_role("button", name=re.compile(f"^{verb}")).click()
    await page.locator("dialog h2").wait_for()
    asked = await page.locator("dialog").inner_text()
    await confirm(page, answer or verb)
    return asked


async def test_a_poisoned_task_is_found_and_its_jobs_are_retried_or_cancelled(
    chromium: Browser, tmp_path: Path
) -> None:
    made = shop(tmp_path)
    made.broken = True
    async with dashboard(made.app) as url, tab(chromium) as page, made.app.worker():
        await view(page, url)
        await expect(page.locator(".verdict")).to_contain_text("All is well")
        for number in range(5):
            await made.app.schedule(made.send.call(f"letter {number}"))
        await made.app.schedule(made.slow.call("another"), delay=3600)

        # Nobody reloads: the page says so by itself.
        await follow(page.get_by_role("link", name="5 jobs discarded in the past hour"))
        await row(page, "no template for letter 4")
        await follow(page.get_by_role("link", name="#5"))
        await expect(page.locator(".life")).to_contain_text("ValueError: no template for letter 4")
        await expect(page.get_by_role("region", name="Error")).to_contain_text("raise ValueError")

        made.broken = False
        await follow(page.get_by_role("link", name="send", exact=True))
        await follow(page.get_by_role("link", name="Discarded"))
        await page.get_by_label("Choose job 1", exact=True).check()
        await page.get_by_label("Choose job 2", exact=True).check()
        await expect(page.locator("main")).to_contain_text("2 jobs chosen:")
        assert "Retry: 2 jobs?" in await act(page, "Retry", "Retry 2 jobs")
        await expect(page.locator("#note")).to_contain_text("2 jobs done")
        await expect(page.get_by_label("Choose job 2", exact=True)).to_have_count(0)
        asked = await act(page, "Retry", "Retry 3 jobs")
        assert "Task: send" in asked
        assert "State: discarded" in asked
        await expect(page.locator("main")).to_contain_text("No job is like that.")
        await follow(page.get_by_role("link", name="Completed"))
        await expect(page.locator("tbody tr")).to_have_count(5)
        assert sorted(made.sent) == [f"letter {number}" for number in range(5)]

        await follow(page.get_by_role("link", name="Clear"))
        await page.get_by_label("Task").fill("slow")
        await follow(page.get_by_role("button", name="Search"))
        await act(page, "Cancel", "Cancel 1 job")
        await row(page, "cancelled")
        await follow(page.get_by_role("link", name="Audit"))
        await expect(page.locator("tbody tr", has_text="loopback")).to_have_count(4)
        await expect(page.locator("tbody tr")).to_have_count(4)
        await follow(page.get_by_role("link", name="Overview"))
        await expect(page.locator(".verdict")).to_contain_text("All is well")


async def test_a_stuck_group_is_found_by_what_holds_it_up(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path)
    async with dashboard(made.app) as url, tab(chromium) as page, made.app.worker():
        await made.app.schedule(made.slow.call("stuck"), group="ana")
        for number in range(3):
            await made.app.schedule(made.send.call(f"next {number}"), group="ana")
        await view(page, url)
        await follow(page.get_by_role("link", name="3 jobs late"))
        await row(page, "behind group:ana")
        await follow(page.get_by_role("link", name="#4"))
        await expect(page.locator(".lead")).to_contain_text("it waits behind job 1 of the same group 'ana', which has")
        await follow(page.get_by_role("link", name="group:ana"))
        await follow(page.get_by_role("link", name="#1"))
        await expect(page.locator(".lead")).to_contain_text("it runs")
        await act(page, "Cancel", "Cancel 1 job")
        await expect(page.locator(".lead .badge")).to_contain_text("cancelled")
        await follow(page.get_by_role("link", name="Blockers"))
        await expect(page.locator("main")).to_contain_text("Nothing waits behind anything.")
        await view(page, url)
        await expect(page.locator(".tiles .late")).to_have_count(0)
    assert made.sent == ["next 0", "next 1", "next 2"]


async def test_a_dead_worker_is_found_and_what_it_left_is_done_by_another(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path)
    async with dashboard(made.app) as url, tab(chromium) as page:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DOOMED, made.app.url, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        job = await made.app.schedule(made.slow.call("left"), max_attempts=1)
        assert await process.stdout.readline() == b"begun\n"
        await view(page, url, "workers")
        await row(page, "alive")
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        made.gate.set()
        async with made.app.worker():
            await view(page, url, "")
            await (
                page.get_by_role("link", name="1 job discarded in the past hour")
                .or_(page.locator(".tiles .discarded a"))
                .first.click()
            )
            await follow(page.get_by_role("link", name=f"#{job.id}"))
            await expect(page.locator(".life")).to_contain_text("worker")
            await act(page, "Retry", "Retry 1 job")
            await expect(page.locator(".lead .badge")).to_contain_text("completed")
            await follow(page.get_by_role("link", name="Workers"))
            await expect(page.locator("tbody tr")).to_have_count(1)
    assert made.sent == ["left"]


async def test_a_silent_listen_is_said_and_so_is_its_end(
    chromium: Browser, pg_database: pg.Database, pg_proxy: pgfaults.Proxy
) -> None:
    app = OnCue(pg_database.dsn, wake=pg_proxy.dsn(pg_database.dsn))
    app.wake._timing = HASTY  # type: ignore[attr-defined]
    async with dashboard(app) as url, tab(chromium) as page:
        await view(page, url)
        await expect(page.locator(".health").last).to_contain_text("hints of other processes arrive at once")
        pg_proxy.silence("to_client")
        while app.wake.healthy is None:  # noqa: ASYNC110 - a thread and a server
            await asyncio.sleep(0.02)
        await follow(page.get_by_role("link", name="Run every check"))
        wake = page.locator(".health li").filter(has=page.get_by_text("wake", exact=True))
        await expect(wake).to_contain_text("warn")
        await expect(wake.locator(".remedy")).to_contain_text("start late meanwhile")
        await follow(page.get_by_role("link", name="Overview"))
        pg_proxy.heal()
        while app.wake.healthy is not None:  # noqa: ASYNC110 - a thread and a server
            await asyncio.sleep(0.02)
        await follow(page.get_by_role("link", name="Run every check"))
        await expect(wake).to_contain_text("ok")


async def test_a_worker_whose_listen_is_silent_is_found_and_hears_again_by_a_click(
    chromium: Browser, pg_database: pg.Database, pg_proxy: pgfaults.Proxy
) -> None:
    deaf = OnCue(pg_database.dsn, wake=pg_proxy.dsn(pg_database.dsn))
    deaf.task(name="note")(lambda: None)
    # It finds out by itself, and would not try again before somebody asks.
    deaf.wake._timing = Timing(0.1, prove_within=0.3, poll_every=0.02, first_pause=3600)  # type: ignore[attr-defined]
    async with (
        dashboard(OnCue(pg_database.dsn)) as url,
        tab(chromium) as page,
        deaf.worker(WorkerOptions(name="deaf-1")),
    ):
        await view(page, url)
        await expect(page.locator(".verdict")).to_contain_text("All is well")
        pg_proxy.silence("to_client")
        verdict = page.locator(".verdict .health li", has_text="wake of workers")
        await expect(verdict).to_contain_text("deaf-1")
        await expect(verdict).to_contain_text("did not arrive")
        await follow(page.get_by_role("link", name="wake of workers").first)
        await expect(page.locator("tr", has_text="deaf-1")).to_contain_text("hears late")
        await follow(page.get_by_role("link", name="Overview"))
        await page.get_by_role("button", name="Reconnect").wait_for()
        assert await faults(page) == []
        pg_proxy.heal()
        await act(page, "Reconnect")
        await expect(page.locator("#note")).to_contain_text("deaf-1")
        await expect(page.locator(".verdict")).to_contain_text("All is well")
        assert deaf.wake.healthy is None


async def test_a_conversation_whose_window_shut_is_resumed_once_the_person_wrote(
    chromium: Browser, tmp_path: Path
) -> None:
    async def daily(chat: Chat) -> None:
        await chat.sleep("night", timedelta(hours=30))
        await chat.say("again", "Good morning", template=Template("again"))
        await chat.ask("how", "How did it go?")

    with database("sqlite", tmp_path) as backend:
        async with talk(backend, daily) as t, dashboard(t.app) as url, tab(chromium) as page:
            await t.write("start")
            await t.advance(30 * 3600 + 1)
            await view(page, url)
            await follow(page.get_by_role("link", name="Conversations", exact=True))
            await follow(page.get_by_role("link", name="Parked"))
            await row(page, "window is shut")
            await follow(page.get_by_role("link", name="#1"))
            await t.write("hello?")
            await act(page, "Resume")
            await t.drain()
            await expect(page.locator(".lead .badge")).to_contain_text("active")
            await expect(page.locator(".life")).to_contain_text("How did it go?")
            assert t.shown[-1] == "How did it go?"
