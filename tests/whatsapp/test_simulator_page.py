"""The page like a phone: what is served, and, where there is a Chromium, a chat by hand in it."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page

from oncue.whatsapp.simulator import Config, Delays, Person, create, serving
from tests.browser import tab
from tests.whatsapp.simulated import ANA, PATH, stage

FOLDER = files("oncue.whatsapp.simulator") / "phone"
FILES = {"/": "text/html", "/phone.css": "text/css", "/phone.js": "text/javascript"}
CHOICES = {
    "type": "list", "body": {"text": "How is your English?"},
    "action": {"button": "Choose", "sections": [{"rows": [
        {"id": "new", "title": "New to me"}, {"id": "some", "title": "Some", "description": "I get along"}]}]},
}  # fmt: skip


async def test_the_page_and_its_parts_are_served_under_a_strict_policy() -> None:
    async with stage() as s:
        for path, kind in FILES.items():
            response = await s.client.get(path)
            assert response.status_code == 200
            assert response.headers["content-type"].startswith(kind)
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
        assert (await s.client.get("/core.py")).status_code == 404


def test_the_page_is_small_and_has_nothing_inline_or_from_elsewhere() -> None:
    texts = {name: (FOLDER / name).read_text(encoding="utf-8") for name in ("index.html", "phone.css", "phone.js")}
    assert sum(len(text.encode()) for text in texts.values()) < 30_000
    page = texts["index.html"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)
    assert not re.search(r"https?://|//[a-z]", page)
    assert "innerHTML" not in texts["phone.js"]
    used = set(re.findall(r'at\("(\w+)"\)', texts["phone.js"]))
    assert used <= set(re.findall(r'id="(\w+)"', page))


async def send(client: httpx.AsyncClient, content: dict[str, Any]) -> None:
    body = {"messaging_product": "whatsapp", "to": ANA} | content
    response = await client.post(PATH, json=body, headers={"authorization": "Bearer local-token"})
    assert response.status_code == 200, response.text


async def test_the_ledger_is_followed_by_server_sent_events() -> None:
    app = create(Config(people=[Person(ANA, "Ana")], delays=Delays.none()))
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
        await client.post("/_sim/messages", json={"person": ANA, "text": "start"})
        seen = []
        async with client.stream("GET", "/_sim/events?since=1") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            async for line in response.aiter_lines():
                if not line.startswith("data: "):
                    continue
                seen.append(json.loads(line.removeprefix("data: ")))
                if seen[-1]["event"] == "said":
                    await send(client, {"type": "text", "text": {"body": "Grüße"}})
                if seen[-1]["event"] == "delivered":
                    break
        assert seen[0]["event"] == "said", "what was before is not told again"
        assert next(event["text"] for event in seen if event["event"] == "accepted") == "Grüße"
        assert [event["n"] for event in seen] == list(range(2, 2 + len(seen)))


async def press_on(page: Page, selector: str) -> None:
    """Use a button by the keyboard alone."""
    await page.locator(selector).focus()
    await page.keyboard.press("Space")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_chat_by_hand_in_a_browser(chromium: Browser) -> None:
    app = create(Config(people=[Person(ANA, "Ana")], delays=Delays.none()))
    ledger = app.simulator.ledger
    async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client, tab(chromium) as page:
        await page.goto(url + "/")
        await page.locator("#link", has_text="Connected").wait_for()
        await press_on(page, f"[data-person='{ANA}']")
        await page.locator("#text:focus").wait_for()
        await page.keyboard.insert_text("start <b>bold</b>")
        await page.keyboard.press("Enter")
        await page.locator("#chat li.mine", has_text="start <b>bold</b>").wait_for()
        (said,) = ledger.of("said")

        typing = {"status": "read", "message_id": said["wamid"], "typing_indicator": {"type": "text"}}
        await send(client, typing)
        await page.locator("#typing", has_text="typing …").wait_for()
        await send(client, {"type": "interactive", "interactive": CHOICES})
        await page.locator("#chat [aria-label=read]").first.wait_for()
        assert await page.locator("#chat .options button").count() == 2
        assert await page.locator("#typing").text_content() == ""
        await press_on(page, "#chat .options button >> nth=1")
        await page.locator("#chat li.mine >> nth=1").wait_for()
        assert (ledger.of("said")[-1]["choice"], ledger.of("said")[-1]["text"]) == ("some", "Some")

        await press_on(page, "#block")
        await page.locator("#text:disabled").wait_for()
        await press_on(page, "#block")
        await page.locator("#text:enabled").wait_for()
        await press_on(page, "#marketing")
        await page.locator("#marketing[aria-pressed=true]").wait_for()
        assert [line["event"] for line in ledger.of("blocked", "unblocked", "preference")] == [
            "blocked", "unblocked", "preference",
        ]  # fmt: skip

        await page.locator("#faultbox summary").click()
        await page.locator("#fault button").first.click()
        await page.locator("#faultcount", has_text="1").wait_for()
        await page.locator("#add [name=name]").focus()
        await page.keyboard.insert_text("Zoë")
        await page.keyboard.press("Enter")
        await page.locator("#who", has_text="Zoë").wait_for()
