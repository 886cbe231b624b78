"""What the page consists of: small, with nothing inline or from elsewhere, under a policy that lets nothing else in."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from oncue import OnCue
from oncue.web import dashboard_app
from oncue.web.dashboard import routes

STATIC = {each.name: each.read_text(encoding="utf-8") for each in (files("oncue.web.dashboard") / "static").iterdir()}
SCRIPTS = {name: text for name, text in STATIC.items() if name.endswith(".js")}


@pytest.fixture(params=["", "/tools/oncue"])
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def client(prefix: str) -> httpx.AsyncClient:
    app = Starlette(routes=[Mount(prefix, routes=routes())])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


async def test_every_file_is_served_under_a_strict_policy(prefix: str) -> None:
    async with client(prefix) as http:
        for path in ("/", *(f"/assets/{name}" for name in STATIC)):
            response = await http.get(prefix + path)
            assert response.status_code == 200
            policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
            assert policy.pop("img-src") == "'self' data:"
            assert {name: policy.pop(name) for name in ("script-src", "style-src", "connect-src")} == {
                "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'",
            }  # fmt: skip
            assert set(policy) == {"default-src", "frame-ancestors", "base-uri", "form-action"}
            assert set(policy.values()) == {"'none'"}
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "no-referrer"


async def test_a_file_that_did_not_change_is_not_sent_again(prefix: str) -> None:
    async with client(prefix) as http:
        first = await http.get(prefix + "/assets/app.js")
        again = await http.get(prefix + "/assets/app.js", headers={"if-none-match": first.headers["etag"]})
        other = await http.get(prefix + "/assets/app.js", headers={"if-none-match": '"another"'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert other.content == first.content


@pytest.mark.parametrize("name", ["__init__.py", "..%2f__init__.py", "%2e%2e/__init__.py", "app.js%00", "", "index"])
async def test_nothing_else_is_served(name: str) -> None:
    async with client("") as http:
        assert (await http.get(f"/assets/{name}")).status_code == 404


def test_the_whole_page_is_smaller_than_fifty_kilobytes() -> None:
    sizes = {name: len(text.encode()) for name, text in STATIC.items()}
    assert sum(sizes.values()) < 50_000, sizes
    assert all(text.count("\n") < 400 for text in STATIC.values())


def test_nothing_is_inline_or_from_elsewhere() -> None:
    page = STATIC["index.html"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)
    assert not re.search(r"""(?:src|href)="(?!assets/|data:,|#)""", page)
    for name, text in STATIC.items():
        found = set(re.findall(r"https?://[^'\"\s)]*", text)) - {"http://www.w3.org/2000/svg"}
        assert not found, name
    assert not re.search(r"@import|url\(", STATIC["dashboard.css"])


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_no_script_makes_elements_of_text(name: str) -> None:
    dangerous = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function|srcdoc"
    assert not re.search(dangerous, SCRIPTS[name])


def test_the_scripts_find_what_they_look_for_on_the_page() -> None:
    asked = {name for text in SCRIPTS.values() for name in re.findall(r'\bat\("(\w+)"\)', text)}
    made = {name for text in STATIC.values() for name in re.findall(r"""\bid(?:=|: )"(\w+)\"""", text)}
    assert asked <= made


@pytest.mark.parametrize("host", [FastAPI, Starlette])
async def test_mounted_without_its_slash_it_leads_to_the_page(host: type[FastAPI | Starlette], tmp_path: Path) -> None:
    mounting = host()
    mounting.mount("/tools/oncue", dashboard_app(OnCue(f"sqlite:///{tmp_path / 'host.db'}")))
    transport = httpx.ASGITransport(mounting)
    async with httpx.AsyncClient(transport=transport, base_url="http://here", follow_redirects=True) as http:
        page = await http.get("/tools/oncue")
        assert (page.url.path, page.status_code) == ("/tools/oncue/", 200)
        assert "assets/app.js" in page.text
        assert (await http.get("/tools/oncue/assets/app.js")).text == STATIC["app.js"]
        assert (await http.get("/tools/oncue/api/me")).status_code == 401
