"""What makes jobs, what runs them and who is talked with, in a browser: as the API and the command line tell it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from oncue.conversation import Chat
from oncue.operate import Operator
from oncue.operate.shape import iso
from oncue.store import Claim, WorkerRow
from oncue.store.steps.operate import set_wake
from oncue.testing import TestClock
from tests.browser import tab
from tests.conversation.engine_stage import talk
from tests.dashboard.stage import cells, dashboard, faults, follow, shop, view
from tests.databases import database

pytestmark = pytest.mark.asyncio(loop_scope="module")
MINUTE = 60_000_000


async def test_a_worker_shows_what_it_runs_its_weights_and_since_when_it_hears_late(
    chromium: Browser, tmp_path: Path
) -> None:
    made = shop(tmp_path, clock := TestClock())
    async with dashboard(made.app) as url, tab(chromium) as page:
        now, ids, workers = clock.now(), [], {}
        for name, queues in (("mixed", '{"bulk": 3, "default": 1}'), ("idle", None)):
            row = WorkerRow(0, name, "elsewhere", 17, queues, now, now, now + 60 * MINUTE, 0, '["send"]', "0.1.0")
            workers[name], _ = await made.app.store.register(row)
        for _ in range(4):
            ids.append((await made.app.schedule(made.send.call("letter"))).id)
            clock.advance(1)
        claim = Claim(workers["mixed"], clock.now(), clock.now(), 60 * MINUTE, 9)
        assert len((await made.app.store.claim(claim)).jobs) == 4
        why, began = "its LISTEN connection is silent: no answer", clock.now()
        await made.app.store.change(lambda: set_wake(workers["idle"], why, began))
        await view(page, url, "workers")
        row_of = {name: page.locator("tbody tr", has_text=name) for name in ("mixed", "idle")}
        ((_, state, running, queues, *_),) = await cells(row_of["mixed"])
        assert (state, queues) == ("✓ alive", "bulk=3, default=1")
        assert running.split()[0] == "4"
        links = row_of["mixed"].get_by_role("link")
        assert await links.all_inner_texts() == [f"#{id}" for id in ids[:3]], "those that began first"
        ((_, state, running, queues, *_),) = await cells(row_of["idle"])
        assert state.startswith("✓ alive hears late since ")
        assert state.endswith(why)
        assert (running, queues) == ("0", "all")
        (since, *_) = await row_of["idle"].locator("time").evaluate_all("all => all.map(time => time.dateTime)")
        assert since == iso(began)
        assert await faults(page) == [], "workers"
        await follow(links.first)
        await expect(page.locator("h1")).to_have_text(f"Job {ids[0]}")


async def test_a_paused_schedule_says_so_and_shows_the_fires_that_it_would_have(
    chromium: Browser, tmp_path: Path
) -> None:
    made = shop(tmp_path, TestClock(datetime(2030, 1, 1, 12, 0, tzinfo=UTC)))
    async with dashboard(made.app) as url, tab(chromium) as page:
        await made.app.drain()
        await Operator(made.app, "cli:ana").pause("schedule", "nightly")
        await view(page, url, "schedule/nightly")
        await expect(page.locator(".lead .badge")).to_have_text("‖ paused")
        rows = await cells(page.get_by_role("region", name="Next fires, if resumed now").locator("tbody tr"))
        assert [row[0] for row in rows[:2]] == ["Wed 2030-01-02 02:30:00 +01:00", "Thu 2030-01-03 02:30:00 +01:00"]
        assert len(rows) == 10


async def trial(chat: Chat) -> None:
    await chat.say("welcome", "Welcome")


async def test_a_persons_timeline_goes_over_all_their_conversations(chromium: Browser, tmp_path: Path) -> None:
    with database("sqlite", tmp_path) as backend:
        async with talk(backend, trial) as t, dashboard(t.app) as url, tab(chromium) as page:
            for _ in range(2):
                await t.write("start")
                await t.advance(60)
            await t.write("start", address="1650555099")
            await t.advance(60)
            await view(page, url, "conversation/2")
            life = page.locator(".life li")
            await expect(life.filter(has_text="trial began")).to_have_count(1)
            await follow(page.locator(".lead").get_by_role("link"))
            await expect(page.locator("tbody tr")).to_have_count(2)
            await expect(life.filter(has_text="trial began")).to_have_count(2)
            told = (await Operator(t.app, "cli:ana").person(1)).timeline
            await expect(life).to_have_count(len(told))
            assert await faults(page) == [], "a person"
