"""Each view, in a browser: it shows what is there, keeps nobody out, and does nothing that a job tells it to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from oncue.conversation import Chat
from tests.browser import PHONE, tab, violations
from tests.conversation.engine_stage import talk
from tests.dashboard.stage import Shop, dashboard, follow, shop, view
from tests.databases import database

pytestmark = pytest.mark.asyncio(loop_scope="module")
EVIL = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>{{7*7}}\'"javascript:alert(1)'
VIEWS = (
    "", "jobs", "jobs?state=discarded&text=img", "job/1", "job/3", "blockers", "schedules", "schedule/nightly",
    "queues", "workers", "sources", "audit", "checks",
)  # fmt: skip


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[tuple[Shop, str]]:
    """Something on each view: 1 and 2 are discarded, 3 runs and holds up 4, and 5 waits for its time."""
    made = shop(folder)
    made.broken = True
    async with dashboard(made.app) as url:
        for _ in range(2):
            await made.app.schedule(made.send.call(EVIL), queue="bulk", metadata={EVIL: EVIL})
        await made.app.drain()
        async with made.app.worker():
            await made.app.schedule(made.slow.call("first"), group=EVIL[:200])
            await made.app.schedule(made.slow.call("second"), group=EVIL[:200], key=EVIL[:200])
            await made.app.schedule(made.send.call("later"), delay=300)
            await made.started.wait()
            yield made, url
            made.gate.set()


async def test_no_view_keeps_anybody_out(chromium: Browser, tmp_path: Path) -> None:
    async with stage(tmp_path) as (_, url), tab(chromium) as page:
        for name in VIEWS:
            await view(page, url, name)
            await page.emulate_media(color_scheme="light")
            assert await violations(page) == [], name
            for role in ("banner", "navigation", "main"):
                assert await page.get_by_role(role).count() >= 1, (name, role)
            assert await page.locator("h1").count() == 1
            assert await page.locator("th:not([scope])").count() == 0
            await page.emulate_media(color_scheme="dark")
            assert await violations(page, "color-contrast") == [], name
        await follow(page.get_by_role("link", name="Overview"))
        await page.locator("figure summary").first.click()
        assert await violations(page) == [], "a chart as a table"


async def test_on_a_phone_nothing_hangs_over_the_edge(chromium: Browser, tmp_path: Path) -> None:
    async with stage(tmp_path) as (_, url), tab(chromium, size=PHONE) as page:
        for name in VIEWS:
            await view(page, url, name)
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


async def test_what_a_job_holds_is_shown_and_does_nothing(chromium: Browser, tmp_path: Path) -> None:
    async with stage(tmp_path) as (_, url), tab(chromium) as page:
        for name in VIEWS:
            await view(page, url, name)
            assert await page.evaluate("window.hurt === undefined"), name
            assert await page.locator("main img, main script, main iframe").count() == 0
            links = await page.locator("a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
            assert all(link.startswith("#") for link in links), links
        await view(page, url, "job/1")
        shown = await page.get_by_role("region", name="Args").text_content()
        assert shown is not None
        assert EVIL in shown.replace('\\"', '"')
        await view(page, url, "jobs?state=blocked")
        await follow(page.get_by_role("link", name="#4"))
        await expect(page.locator("main")).to_contain_text(EVIL[:200])


async def test_the_keyboard_alone_is_enough(chromium: Browser, tmp_path: Path) -> None:
    async with stage(tmp_path) as (made, url), tab(chromium) as page:
        await view(page, url)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        discarded = page.get_by_role("link", name="2 jobs discarded in the past hour")
        # What is late on a slow machine comes before it.
        for _ in range(6):
            await page.keyboard.press("Tab")
            if await discarded.evaluate("link => link === document.activeElement"):
                break
        await expect(discarded).to_be_focused()
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1, name="Jobs")).to_be_focused()
        await page.get_by_role("link", name="#2").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1, name="Job 2")).to_be_focused()
        await page.get_by_role("button", name="Retry").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_contain_text("Retry: 1 job?")
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        await expect(page.get_by_role("button", name="Retry")).to_be_focused()
        found = await made.app.jobs.get(2)
        assert found is not None
        assert found.state == "discarded"


async def trial(chat: Chat) -> None:
    await chat.say("welcome", f"Welcome {EVIL}")
    await chat.ask("english", "How is your English?")


async def test_a_conversation_is_found_stopped_and_taken_up_again(chromium: Browser, tmp_path: Path) -> None:
    with database("sqlite", tmp_path) as backend:
        async with talk(backend, trial) as t, dashboard(t.app) as url, tab(chromium) as page:
            await t.write("start")
            await view(page, url)
            await follow(page.get_by_role("link", name="Conversations", exact=True))
            await follow(page.get_by_role("link", name="#1"))
            await expect(page.locator("main")).to_contain_text(f"Welcome {EVIL}")
            assert await violations(page) == []
            for verb, state in (("Pause", "paused"), ("Resume", "active")):
                await page.get_by_role("button", name=verb).click()
                await page.locator("dialog").get_by_role("button", name=verb).click()
                await expect(page.locator(".lead .badge")).to_contain_text(state)
                assert (await t.state())[0] == state
            assert await page.evaluate("window.hurt === undefined")


async def test_a_person_is_taken_over_and_given_back(chromium: Browser, tmp_path: Path) -> None:
    with database("sqlite", tmp_path) as backend:
        async with talk(backend, trial) as t, dashboard(t.app) as url, tab(chromium) as page:
            await t.write("start")
            await view(page, url, "conversation/1")
            main = page.locator("main")
            for verb, gone in (("Takeover", "Resume"), ("Release", "Release")):
                await page.get_by_role("button", name=verb).click()
                await page.locator("dialog").get_by_role("button", name=verb).click()
                await expect(page.get_by_role("button", name=gone)).to_have_count(0)
                await expect(main).to_contain_text(
                    "a human has taken over" if verb == "Takeover" else "waits for an answer"
                )
            assert await t.state() == ("active", "english")


async def test_conversations_have_a_next_page(chromium: Browser, tmp_path: Path) -> None:
    with database("sqlite", tmp_path) as backend:
        async with talk(backend, trial) as t, dashboard(t.app) as url, tab(chromium) as page:
            for number in range(52):
                await t.write("start", address=f"16505550{number:03}", drain=False)
            await t.drain()
            await view(page, url, "conversations")
            await expect(page.locator("tbody tr")).to_have_count(50)
            await follow(page.get_by_role("link", name="Next page"))
            await expect(page.locator("tbody tr")).to_have_count(2)
            await follow(page.get_by_role("link", name="#1", exact=True))
            await expect(page.locator("h1")).to_have_text("Conversation 1")


async def broken(chat: Chat) -> None:
    await chat.ask("english", "How is your English?")
    raise LookupError("no lesson for that")


async def test_a_parked_conversation_is_on_the_overview_and_leads_to_its_traceback(
    chromium: Browser, tmp_path: Path
) -> None:
    with database("sqlite", tmp_path) as backend:
        async with talk(backend, broken) as t, dashboard(t.app) as url, tab(chromium) as page:
            await t.write("start")
            await t.write("good")
            await t.advance(3600)
            await view(page, url)
            await expect(page.locator(".verdict")).to_contain_text("1 conversation is parked")
            await follow(page.locator(".verdict").get_by_role("link", name="conversations"))
            await follow(page.get_by_role("link", name="Parked"))
            await follow(page.get_by_role("link", name="#1"))
            await expect(page.get_by_role("region", name="Error")).to_contain_text("raise LookupError")
            await expect(page.locator(".lead")).to_contain_text("p1")
            await expect(page.locator(".life")).to_contain_text("Bot, sending: question english")
            assert await violations(page) == []


async def test_what_has_completed_is_not_offered_to_be_tried_again(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path)
    async with dashboard(made.app) as url, tab(chromium) as page:
        await made.app.schedule(made.send.call("letter"))
        await made.app.drain()
        await view(page, url, "job/1")
        await expect(page.locator(".lead .badge")).to_contain_text("completed")
        await expect(page.get_by_role("main").get_by_role("button")).to_have_count(0)
