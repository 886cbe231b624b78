"""A headless Chromium for tests, driven by Playwright; one for each module that asks for it.

    pytestmark = pytest.mark.asyncio(loop_scope="module")

    async def test_it(chromium: Browser) -> None:
        async with tab(chromium) as page:
            await page.goto(url)
            assert await violations(page) == []

`tab` fails where the page complained about something, such as what its policy keeps out. Without Chromium the tests are
skipped, and the end of pytest's output says so.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import pytest
import pytest_asyncio

from tests.nodejs import FOLDER, install
from tests.nodejs import MISSING as NO_NODE

if TYPE_CHECKING:
    # Only who asks for a browser pays for this import.
    from playwright.async_api import Browser, Page, ViewportSize

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
DESK: ViewportSize = {"width": 1280, "height": 860}
PHONE: ViewportSize = {"width": 390, "height": 780}
# Far longer than it takes: the machine may have much else to do.
WAIT_MS = 40_000
# A page that reads anew each half a minute comes right in the end though its live stream is dead. Here it never does.
NEVER_LATER = """{
    const later = window.setTimeout
    window.setTimeout = (work, ms, ...given) => ms >= 30_000 ? 0 : later(work, ms, ...given)
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """A browser for the tests of a module, with a profile of its own that is gone afterwards."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: Debian's package chromium")
    from playwright.async_api import async_playwright, expect

    expect.set_options(timeout=WAIT_MS)

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        await browser.close()


@asynccontextmanager
async def tab(
    browser: Browser, *, scheme: Literal["dark", "light"] = "light", size: ViewportSize = DESK, complaints: str = ""
) -> AsyncIterator[Page]:
    """A page with cookies and storage of its own, where no timer of half a minute or more ever ends.

    ``complaints``: part of an error that it is meant to log.
    """
    errors: list[str] = []
    context = await browser.new_context(viewport=size, color_scheme=scheme, timezone_id="Europe/Berlin")
    context.set_default_timeout(WAIT_MS)
    await context.add_init_script(NEVER_LATER)
    page = await context.new_page()
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error.stack or error)))
    try:
        yield page
    finally:
        await context.close()
    unexpected = [error for error in errors if not (complaints and complaints in error)]
    assert unexpected == []


@cache
def _axe() -> str:
    if NO_NODE:
        pytest.skip(f"no {NO_NODE} here: axe-core, which looks for what keeps people out, comes by npm")
    install()
    return (FOLDER / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


async def violations(page: Page, *rules: str) -> list[str]:
    """Return what axe-core finds that keeps people out, a line for each; by these rules alone, if any are named."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(_axe())
    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    found: dict[str, Any] = await page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{rule['id']}: {rule['help']}: {node['html'][:200]} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud that no page was tried in a browser."""
    if CHROMIUM is None:
        terminalreporter.section("Chromium", yellow=True, bold=True)
        terminalreporter.line(
            "WARNING: not installed: chromium. So no page was tried in a browser. Debian's package chromium brings it.",
            yellow=True,
        )
