"""Each view, in a browser: it shows what is there, keeps nobody out, and does nothing that a job tells it to."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from oncue.conversation import Chat
from oncue.metrics import MINUTE
from oncue.operate import Operator
from oncue.store.operating import MinuteRow
from oncue.store.steps.operate import save_minutes
from oncue.testing import TestClock
from tests.browser import PHONE, tab, violations
from tests.conversation.engine_stage import talk
from tests.dashboard.stage import Shop, cells, confirm, dashboard, faults, follow, shop, view
from tests.databases import database

pytestmark = pytest.mark.asyncio(loop_scope="module")
EVIL = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>{{7*7}}\'"javascript:alert(1)'
VIEWS = (
    "", "jobs", "jobs?state=discarded&text=img", "job/1", "job/3", "blockers", "schedules", "schedule/nightly",
    "queues", "workers", "sources", "audit", "checks",
)  # fmt: skip

# How many rows there are in views that were empty otherwise.
FULL = {"sources": 2, "audit": 1}


def fill(folder: Path, **tables: str) -> None:
    """Make tables of one row, due at what is given."""
    with closing(sqlite3.connect(folder / "shop.db")) as db, db:
        for table, due in tables.items():
            db.execute(f"CREATE TABLE {table} (id TEXT PRIMARY KEY, due TEXT)")
            db.execute(f"INSERT INTO {table} VALUES (?, ?)", [EVIL[:200], due])


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[tuple[Shop, str]]:
    """Something on each view: 1 and 2 are discarded, 3 runs and holds up 4, and 5 waits for its time."""
    made = shop(folder)
    made.broken = True
    for table in ("good", "bad"):
        made.app.source(table, key=f"{table}-{{id}}", due="due", task=made.send)
    async with dashboard(made.app) as url:
        fill(folder, good="2999-12-31 12:00", bad="tomorrow")
        await made.app.sources.reconcile()
        await Operator(made.app, EVIL).pause("queue", EVIL[:200])
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
            if name in FULL:
                assert await page.locator("tbody tr").count() == FULL[name], f"nothing to see in {name}"
            await page.emulate_media(color_scheme="dark")
            assert await violations(page, "color-contrast") == [], name
        await follow(page.get_by_role("link", name="Overview"))
        await page.locator("figure summary").first.click()
        await page.locator("figure table").wait_for()
        assert await faults(page) == [], "a chart as a table"


async def test_no_question_keeps_anybody_out(chromium: Browser, tmp_path: Path) -> None:
    async with stage(tmp_path) as (_, url), tab(chromium) as page:
        await view(page, url, "job/1")
        await page.locator(".life summary").click()
        await expect(page.get_by_role("region", name="Traceback")).to_contain_text("ValueError")
        await expect(page.get_by_role("region", name="Error")).to_contain_text("ValueError")
        assert await faults(page) == [], "a traceback"
        await view(page, url, "job/5")
        for verb in ("Reschedule", "Cancel"):
            await page.get_by_role("button", name=verb).click()
            await page.get_by_role("dialog", name=f"{verb}: 1 job?").wait_for()
            assert await faults(page) == [], f"the question whether to {verb.lower()}"
            if verb != "Cancel":
                await page.get_by_role("button", name="Back").click()
        await confirm(page, "Cancel 1 job")
        assert await faults(page) == [], "what was done"
        await view(page, url, "jobs?state=discarded")
        await page.get_by_label("Choose all on this page").check()
        await page.locator("form summary").click()
        await expect(page.locator("main")).to_contain_text("2 jobs chosen:")
        assert await faults(page) == [], "the form, and jobs that are chosen"


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
            await page.get_by_role("link", name="#1").wait_for()
            assert await faults(page) == [], "the list"
            await follow(page.get_by_role("link", name="#1"))
            await expect(page.locator("main")).to_contain_text(f"Welcome {EVIL}")
            assert await faults(page) == [], "one conversation"
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
            await follow(page.get_by_role("link", name="p2", exact=True))
            await expect(page.locator("tbody tr")).to_have_count(1)
            await follow(page.get_by_role("link", name="#2", exact=True))
            await expect(page.locator("h1")).to_have_text("Conversation 2")


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
            assert await faults(page) == [], "the list"
            await follow(page.get_by_role("link", name="#1"))
            await expect(page.get_by_role("region", name="Error")).to_contain_text("raise LookupError")
            await expect(page.locator(".lead")).to_contain_text("p1")
            await expect(page.locator(".life")).to_contain_text("Bot, sending: question english")
            assert await faults(page) == [], "one that is parked"


async def test_what_has_completed_is_not_offered_to_be_tried_again(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path)
    async with dashboard(made.app) as url, tab(chromium) as page:
        await made.app.schedule(made.send.call("letter"))
        await made.app.drain()
        await view(page, url, "job/1")
        await expect(page.locator(".lead .badge")).to_contain_text("completed")
        await expect(page.get_by_role("main").get_by_role("button")).to_have_count(0)


async def test_the_charts_and_health_show_what_was_counted(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path, clock := TestClock())
    async with dashboard(made.app) as url, tab(chromium) as page:
        for delay in (45, 50, 301):
            await made.app.schedule(made.send.call("letter"), delay=delay)
        spans = '{"1000": 9, "50000": 1}'
        row = MinuteRow(clock.now() - MINUTE, 1, "send", 24, 20, 3, 1, 0, MINUTE, spans)
        before = [MinuteRow(row.minute - n * MINUTE, 1, "send", 1, 0, 0, 0, 0, MINUTE, '{"1000": 1}') for n in (30, 31)]
        await made.app.store.change(lambda: save_minutes([row, *before]))
        await view(page, url)
        # The browser is in Berlin, where noon is 13:00.
        for name, drawn, headings, wanted in (
            ("Coming due", {"rect.s1": 2}, "From due", [["13:00", "2"], ["13:05", "1"]]),
            ("The past hour", {"rect.s1": 1, "rect.s2": 1, "rect.s3": 1}, "From completed retried discarded",
             [["12:59", "20", "3", "1"]]),
            ("Lateness", {"path.l1": 1, "path.l2": 1, "path.l3": 1}, "From p50 p99 max",
             [["12:28", "0.5 ms", "1 ms", "1 ms"], ["12:29", "0.5 ms", "1 ms", "1 ms"],
              ["12:59", "0.6 ms", "47 ms", "50 ms"]]),
        ):  # fmt: skip
            card = page.locator("section.card").filter(has=page.get_by_role("heading", name=name, exact=True))
            for shape, count in drawn.items():
                await expect(card.locator(f".plot {shape}")).to_have_count(count)
            await card.locator("summary").click()
            await card.locator("tbody tr").first.wait_for()
            assert (await card.locator("th").all_inner_texts()) == headings.split(), name
            rows = await cells(card.locator("tbody tr"))
            assert [row for row in rows if set(row[1:]) - {"0", "\N{EN DASH}"}] == wanted, name
            assert len(rows) == (20 if name == "Coming due" else 60)
        # Two minutes beside each other are joined; where nothing started there is no line.
        path = await page.locator(".plot path.l3").get_attribute("d")
        assert path is not None
        assert [move.count("L") for move in path.split("M")[1:]] == [1, 0]
        await expect(page.get_by_role("img", name="In the next 10 minutes 3 jobs come due.")).to_be_visible()
        told = "In the past hour no job started more than 50 ms late."
        await expect(page.get_by_role("img", name=told)).to_be_visible()
        # Under the pointer, the figures of one bin: the second of twenty.
        plot = page.locator("figure .plot").first
        box = await plot.bounding_box()
        assert box is not None
        await plot.hover(position={"x": box["width"] * 1.5 / 20, "y": 5})
        await expect(page.locator("figcaption").first).to_contain_text("due 2")
        health = page.locator("section.card").filter(has=page.get_by_role("heading", name="Health", exact=True))
        facts = await health.locator("dl div").all_inner_texts()
        assert [fact.split("\n") for fact in facts] == [
            ["Lateness p50", "0.6 ms"], ["Lateness p99", "47 ms"], ["Lateness max", "50 ms"], ["Jobs a second", "0.1"],
        ]  # fmt: skip


async def test_each_filter_leaves_the_jobs_that_are_wanted(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path, clock := TestClock())
    async with dashboard(made.app) as url, tab(chromium) as page:
        for _ in range(2):
            await made.app.schedule(made.send.call("done"))
            await made.app.drain()
            clock.advance(600)
        await made.app.schedule(made.send.call("next"), key="k-3", delay=2400)
        await made.app.schedule(made.slow.call("last"), group="g-4", queue="bulk", delay=6000)
        await view(page, url, "jobs")
        # In the browser's zone: 1 was done at 13:00, 2 at 13:10; 3 is due at 14:00, 4 at 15:00.
        for label, value, wanted in (
            ("Task", "slow", "#4"),
            ("Queue", "bulk", "#4"),
            ("Text in arguments or error", "next", "#3"),
            ("Key", "k-3", "#3"),
            ("Group", "g-4", "#4"),
            ("Due after", "2030-01-01T13:59:59", "#4 #3"),
            ("Due before", "2030-01-01T13:05:01", "#1"),
            ("Finished after", "2030-01-01T13:05:01", "#2"),
            ("Finished before", "2030-01-01T13:05:01", "#1"),
        ):
            field = page.get_by_label(label, exact=True)
            if not await field.is_visible():
                await page.locator("form summary").click()
            await field.fill(value)
            await follow(page.get_by_role("button", name="Search"))
            found = page.locator("tbody").get_by_role("link", name=re.compile(r"^#\d$"))
            assert (await found.all_inner_texts()) == wanted.split(), label
            # What is searched for stays to be seen.
            await expect(field).to_be_visible()
            await expect(field).to_have_value(value)
            await follow(page.get_by_role("link", name="Clear"))
            await expect(page.locator("tbody tr")).to_have_count(4)


async def test_a_source_says_what_is_wrong_with_it_and_since_when(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path, clock := TestClock())
    for table in ("good", "bad"):
        made.app.source(table, key=f"{table}-{{id}}", due="due", task=made.send)
    async with dashboard(made.app) as url, tab(chromium) as page:
        fill(tmp_path, good="2030-01-01 12:00:30", bad="tomorrow")
        await made.app.sources.reconcile()
        clock.advance(30)
        await made.app.sources.reconcile()
        await view(page, url, "sources")
        good, bad = page.locator("tbody tr", has_text="good"), page.locator("tbody tr", has_text="bad")
        ((_, state, _, made_of_it, drift, found),) = await cells(good)
        assert (state, made_of_it, drift) == ("✓ well", "1", "0")
        assert found.endswith("made 1, moved 0, cancelled 0 so far")
        ((_, state, _, made_of_it, drift, found),) = await cells(bad)
        assert (state, made_of_it, drift) == ("✕ fails", "0", "1")
        assert re.fullmatch(r"since .+: row .*'tomorrow'.*", found), found
        times = await bad.locator("time").evaluate_all("all => all.map(time => time.dateTime)")
        assert times == ["2030-01-01T12:00:30.000000Z", "2030-01-01T12:00:00.000000Z"], "swept, and failing since"


async def test_a_schedule_shows_its_fires_and_where_the_clock_changes(chromium: Browser, tmp_path: Path) -> None:
    made = shop(tmp_path, clock := TestClock(datetime(2030, 3, 30, 1, 0, tzinfo=UTC)))
    async with dashboard(made.app) as url, tab(chromium) as page:
        await made.app.drain()
        clock.advance(1800)
        await made.app.drain()
        fired = (await made.app.jobs.list(task="report"))[0].id
        await view(page, url, "schedules")
        row = page.locator("tbody tr", has_text="nightly")
        times = await row.locator("time").evaluate_all("all => all.map(time => time.dateTime)")
        assert times == ["2030-03-31T01:00:00.000000Z", "2030-03-30T01:30:00.000000Z"], "next, and last"
        await follow(page.get_by_role("link", name="nightly"))
        last = page.get_by_role("region", name="Last fires").locator("tbody tr")
        rows = await cells(page.get_by_role("region", name="Next fires").locator("tbody tr"))
        assert [row[:2] for row in rows[:3]] == [
            ["Sun 2030-03-31 03:00:00 +02:00 right after the hour that the clock leaves out", "31 Mar 2030 03:00:00"],
            ["Mon 2030-04-01 02:30:00 +02:00", "1 Apr 2030 02:30:00"],
            ["Tue 2030-04-02 02:30:00 +02:00", "2 Apr 2030 02:30:00"],
        ]
        assert len(rows) == 10
        assert rows[0][2].startswith("in ")
        assert await cells(last) == [["Sat 2030-03-30 02:30:00 +01:00", "02:30:00", f"#{fired}"]]
        await follow(last.get_by_role("link"))
        await expect(page.locator(".lead")).to_contain_text("report")
