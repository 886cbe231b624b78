"""The page within a host application: below a prefix, beside the host's own pages, with the host's own login."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import django
import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from fastapi import FastAPI
from playwright.async_api import Browser, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from oncue.web import Identity, dashboard_app
from tests.browser import tab
from tests.dashboard.stage import PREFIX, confirm, serving, shop, view

pytestmark = pytest.mark.asyncio(loop_scope="module")

if not settings.configured:
    settings.configure(USE_TZ=True)
    django.setup()


def _greet(_: HttpRequest) -> HttpResponse:
    return HttpResponse("of the host")


urlpatterns = [path("hello", _greet)]
_DJANGO = override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[], ALLOWED_HOSTS=["*"])


def _starlette(mounted: ASGIApp) -> ASGIApp:
    async def hello(_: Request) -> PlainTextResponse:
        return PlainTextResponse("of the host")

    return Starlette(routes=[Route("/hello", hello), Mount(PREFIX, mounted)])


def _fastapi(mounted: ASGIApp) -> ASGIApp:
    host, inner = FastAPI(), FastAPI()

    @host.get("/hello")
    async def hello() -> str:
        return "of the host"

    # An application within one within one: the prefix is of both.
    outer, _, last = PREFIX.rpartition("/")
    inner.mount(f"/{last}", mounted)
    host.mount(outer, inner)
    return host


def _django(mounted: ASGIApp) -> ASGIApp:
    return Starlette(routes=[Mount(PREFIX, mounted), Mount("/", get_asgi_application())])


async def _login(request: Request) -> Identity | None:
    name = request.cookies.get("user")
    return Identity.of(name, ["read", "operate"]) if name else None


@pytest.mark.parametrize("host", [_starlette, _fastapi, _django])
async def test_it_is_live_and_acts_in_every_host(
    chromium: Browser, tmp_path: Path, host: Callable[[ASGIApp], ASGIApp]
) -> None:
    made = shop(tmp_path)
    with _DJANGO:
        asgi = host(dashboard_app(made.app, login=_login))
        async with made.app, serving(asgi) as url, tab(chromium) as page:
            await page.context.add_cookies([{"name": "user", "value": "ana", "url": url}])
            assert "of the host" in await (await page.request.get(f"{url}/hello")).text()
            await view(page, f"{url}{PREFIX}/", "jobs")
            await expect(page.get_by_text("Live", exact=True)).to_be_visible()
            job = await made.app.schedule(made.send.call("a"), delay=600)
            await page.get_by_role("link", name=f"#{job.id}").click()
            await page.get_by_role("button", name="Cancel").click()
            await confirm(page, "Cancel 1 job")
            await view(page, f"{url}{PREFIX}/", "audit")
            await expect(page.locator("main")).to_contain_text("ana")
            await expect(page.locator("main")).to_contain_text(f"job:{job.id}")
