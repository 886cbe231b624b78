"""An operator who has the list of jobs open: ``python -m bench.page URL [--client]``.

In Chromium, or by a client that holds the stream of events and reads what the page reads, as often as it does. The
list is the page that asks for the most: it hears every job, and every overview too. Says "live" once it is, and on
SIGTERM how often it asked for what, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections import Counter
from urllib.parse import urlsplit

import httpx

_PACE_S = 2.0
_IDLE_S = 30.0


async def main(url: str, *, client: bool) -> None:
    """Have the page open until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asked: Counter[str] = Counter()
    await (_client if client else _chromium)(url, stop, asked)
    print(json.dumps(asked), flush=True)


async def _chromium(url: str, stop: asyncio.Event, asked: Counter[str]) -> None:
    from playwright.async_api import async_playwright, expect

    from tests.browser import CHROMIUM, FLAGS

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = await browser.new_page()
        page.on("request", lambda request: asked.update([urlsplit(request.url).path]))
        await page.goto(f"{url}/#/jobs")
        live = expect(page.locator("#live"))
        await live.to_have_text("Live", timeout=40_000)
        print("live", flush=True)
        await stop.wait()
        await live.to_have_text("Live", timeout=5_000)
        await browser.close()


async def _client(url: str, stop: asyncio.Event, asked: Counter[str]) -> None:
    changed = asyncio.Event()

    async def read(path: str, **params: int) -> None:
        asked[f"/api/{path}"] += 1
        (await http.get(f"/api/{path}", params=params)).raise_for_status()

    async def listen() -> None:
        asked["/api/events"] += 1
        async with http.stream("GET", "/api/events") as events:
            events.raise_for_status()
            print("live", flush=True)
            async for line in events.aiter_lines():
                if line.startswith("event:"):
                    changed.set()
        raise RuntimeError("the stream of events has ended")

    async def reload() -> None:
        while True:
            await read("jobs", limit=50)
            await asyncio.sleep(_PACE_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), _IDLE_S - _PACE_S)
            changed.clear()

    async with httpx.AsyncClient(base_url=url, timeout=60.0, trust_env=False) as http:
        for path in ("me", "tasks", "overview"):
            await read(path)
        work = [asyncio.create_task(one) for one in (listen(), reload(), stop.wait())]
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        for task in work:
            task.cancel()
        await asyncio.gather(*done)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], client="--client" in sys.argv[2:]))
