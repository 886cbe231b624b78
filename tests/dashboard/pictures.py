"""Takes the pictures of the page for the documentation: `python -m tests.dashboard.pictures`, into docs/images/."""

from __future__ import annotations

import asyncio
import json
import math
import random
import tempfile
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser, async_playwright

from oncue import OnCue, Retry
from oncue.clock import SECOND
from oncue.store.operating import MinuteRow
from oncue.store.steps import operate
from tests.browser import CHROMIUM, FLAGS, PHONE, tab
from tests.dashboard.png import smaller
from tests.dashboard.stage import dashboard, view

IMAGES = Path(__file__).parents[2] / "docs" / "images"
MOST_BYTES = 80_000
DESK: Any = {"width": 1280, "height": 800}
Scheme = Literal["dark", "light"]


def academy(folder: Path) -> tuple[OnCue, dict[str, Any]]:
    """Return an application that sends trial lessons, with its tasks."""
    app = OnCue(f"sqlite:///{folder / 'academy.db'}")

    @app.task(name="send_question", retry=Retry(5, delay=30))
    async def send_question(trial: int) -> None:
        await asyncio.sleep(0.02)

    @app.task(name="render_certificate", retry=Retry(1))
    async def render_certificate(trial: int, template: str) -> None:
        raise LookupError(f"no template {template!r} for trial {trial}")

    @app.task(name="import_contacts")
    async def import_contacts(file: str) -> None:
        await asyncio.sleep(3600)

    @app.cron("30 2 * * *", timezone="Europe/Berlin", name="nightly-report", task=app.task(name="report"))
    async def report() -> None: ...

    return app, {"ask": send_question, "render": render_certificate, "import": import_contacts}


async def fill(app: OnCue, tasks: dict[str, Any]) -> None:
    """Make an hour of work: most of it well, one template missing, one import that holds up others."""
    rng, now = random.Random(7), app.clock.now()
    minute = 60 * SECOND
    rows = []
    for ago in range(1, 60):
        started = int(70 + 45 * math.sin(ago / 9) + rng.uniform(-8, 8))
        slow = 30 if 22 < ago < 27 else 1
        spans = {str(3_000 * slow): started * 9 // 10, str(24_000 * slow): started // 10, str(80_000 * slow): 1}
        retried, gone = started // 14, 3 if ago in (11, 12) else 0
        at = now - now % minute - ago * minute
        rows.append(_minute(at, started, started - retried - gone, retried, gone, json.dumps(spans)))
    await app.store.change(lambda: operate.save_minutes(rows))
    for number in range(6):
        await app.schedule(tasks["render"].call(180 + number, "c1-winter"), key=f"certificate-{180 + number}")
    for number in range(5):
        await app.schedule(tasks["import"].call(f"contacts-{number}.csv"), group="import", queue="bulk")
    for number in range(40):
        await app.schedule(tasks["ask"].call(number), key=f"question-trial-{number}", group=f"trial-{number}")
    for number in range(420):
        delay = 30 + 285 * (1 + math.sin(number / 67)) + rng.uniform(-25, 25)
        await app.schedule(tasks["ask"].call(900 + number), delay=max(5, delay), key=f"question-trial-{900 + number}")


def _minute(at: int, started: int, completed: int, retried: int, discarded: int, lateness: str) -> MinuteRow:
    return MinuteRow(
        minute=at, worker=1, task="send_question", started=started, completed=completed, retried=retried,
        discarded=discarded, skipped=0, lateness=lateness, ran_us=started * 20_000,
    )  # fmt: skip


async def take(browser: Browser, url: str, name: str, to: str, scheme: Scheme, *, phone: bool = False) -> None:
    """Take a picture of a view."""
    async with tab(browser, scheme=scheme, size=PHONE if phone else DESK) as page:
        await view(page, url, name)
        await page.locator("#live", has_text="Live").wait_for()
        await page.wait_for_timeout(1500)
        picture = smaller(await page.screenshot())
    print(to, len(picture), "bytes")
    assert len(picture) < MOST_BYTES
    (IMAGES / f"dashboard-{to}.png").write_bytes(picture)


async def main() -> None:
    """Take all pictures."""
    with tempfile.TemporaryDirectory() as folder:
        app, tasks = academy(Path(folder))
        async with dashboard(app) as url, async_playwright() as playwright, app.worker():
            await fill(app, tasks)
            # A worker writes down what it did every 5 s: the charts are to show it.
            await asyncio.sleep(8)
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            await take(browser, url, "", "overview", "light")
            await take(browser, url, "", "overview-dark", "dark")
            await take(browser, url, "", "phone", "dark", phone=True)
            await take(browser, url, "jobs?state=discarded", "jobs", "light")
            await take(browser, url, "job/8", "job", "light")
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
