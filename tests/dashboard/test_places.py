"""Addresses and the way to them: which view an address shows, and that all of them can be seen on a phone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from oncue.service import Service
from tests.browser import PHONE, tab
from tests.dashboard.stage import dashboard, shop, view

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_address_of_a_list_with_an_id_shows_that_one(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path)
    async with dashboard(made.app) as url, tab(chromium) as page:
        await made.app.schedule(made.send.call("letter"), delay=600)
        await Service(made.app, worker=False).planner.sync()
        for name, heading, list_ in (
            ("job/1", "Job 1", "Jobs"), ("jobs/1", "Job 1", "Jobs"), ("jobs/", "Jobs", "Jobs"),
            ("schedules/nightly", "Schedule nightly", "Schedules"),
        ):  # fmt: skip
            await view(page, url, name)
            await expect(page.get_by_role("heading", level=1)).to_have_text(heading)
            current = page.get_by_role("navigation", name="Views").locator("[aria-current]")
            await expect(current).to_have_text(list_)


@pytest.mark.parametrize(
    "name", ["nowhere", "workers/3", "job-1", "job", "schedule/", "audit/1", "%", "jobs%", "%zz/1"]
)
async def test_an_address_that_leads_nowhere_says_so(chromium: Browser, tmp_path: Path, name: str) -> None:
    async with dashboard(shop(tmp_path).app) as url, tab(chromium) as page:
        await page.goto(f"{url}#/{name}")
        await expect(page.get_by_role("heading", level=1)).to_have_text("No such page")
        await expect(page.get_by_role("alert")).to_have_text("Nothing is at this address.")
        await page.get_by_role("link", name="Overview").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
        await expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("id", ["%", "100%", "%25", "..%2Faudit", "1%3Flimit=2", "%3Cimg%20src=x%3E"])
async def test_an_address_of_a_job_that_no_job_can_have_says_so(chromium: Browser, tmp_path: Path, id: str) -> None:
    made = shop(tmp_path)
    async with dashboard(made.app) as url, tab(chromium, complaints="404") as page:
        await made.app.schedule(made.send.call("letter"), delay=600)
        await page.goto(f"{url}#/job/{id}")
        await expect(page.get_by_role("alert")).to_have_text(re.compile("^There is no job |^Not Found$"))
        await page.get_by_role("link", name="Jobs").click()
        await expect(page.get_by_role("row", name="send")).to_be_visible()
        await expect(page.get_by_role("alert")).to_have_count(0)


async def test_the_name_of_the_tab_tells_of_late_jobs_wherever_one_goes(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path)
    async with dashboard(made.app) as url, tab(chromium) as page:
        await made.app.schedule(made.send.call("letter"), at=datetime.now(UTC) - timedelta(hours=1))
        await view(page, url)
        await expect(page).to_have_title("(1 late) Overview \N{EN DASH} OnCue")
        await page.evaluate("""() => {
            window.titles = []
            const title = document.querySelector("title")
            new MutationObserver(() => titles.push(title.text)).observe(title, {childList: true})
        }""")
        for name in ("Audit", "Jobs 1 late"):
            await page.get_by_role("link", name=name).click()
            await expect(page.get_by_role("heading", level=1)).to_have_text(name.split()[0])
        assert set(await page.evaluate("titles")) == {
            "(1 late) Audit \N{EN DASH} OnCue",
            "(1 late) Jobs \N{EN DASH} OnCue",
        }


async def test_a_phone_shows_where_all_there_is_to_see_is(chromium: Browser, tmp_path: Path) -> None:
    async with dashboard(shop(tmp_path).app) as url, tab(chromium, size=PHONE) as page:
        await view(page, url)
        links = page.get_by_role("navigation", name="Views").get_by_role("link")
        await expect(links).to_have_count(8)
        for link in await links.all():
            box = await link.bounding_box()
            assert box is not None
            assert 0 <= box["x"] < box["x"] + box["width"] <= PHONE["width"]
