"""Who is let in: loopback and its traps, tokens that end, a host application's own login, other sites."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Mount

from oncue import OnCue
from oncue.errors import ConfigError
from oncue.operate import Operator
from oncue.operate.tokens import hash_of
from oncue.store.steps import operate
from oncue.testing import TestClock
from oncue.web import Identity, dashboard_app, web_app
from oncue.web.access import is_here
from tests.web.conftest import serving


def _request(
    headers: dict[str, str] | None = None, client: str = "127.0.0.1", server: str = "127.0.0.1", **more: Any
) -> Request:
    given = {"host": "localhost:8000", **(headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in given.items() if value]
    return Request(
        {
            "type": "http", "method": "GET", "path": "/", "headers": raw, "client": (client, 9),
            "server": (server, 8000),
            "http_version": "1.1", **more,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "here"),
    [
        (_request(), True),
        (_request({"host": "127.0.0.1:8000"}), True),
        (_request({"host": "[::1]:8000"}, client="::1", server="::1"), True),
        (_request({"host": "localhost"}), True),
        (_request(client="10.0.0.7"), False),
        (_request(server="10.0.0.1"), False),
        # A name that a foreign page has its own server answer for, with this machine's address.
        (_request({"host": "evil.example:8000"}), False),
        (_request({"host": "localhost.evil.example"}), False),
        (_request({"host": ""}), False),
        (_request({"x-forwarded-for": "10.0.0.7"}), False),
        (_request({"forwarded": "for=10.0.0.7"}), False),
        (_request({"via": "1.1 proxy"}), False),
        (_request({"x-real-ip": "127.0.0.1"}), False),
        # What a proxy speaks that adds no header.
        (_request(http_version="1.0"), False),
    ],
)
def test_only_a_person_at_this_machine_counts_as_here(request_: Request, here: bool) -> None:
    assert is_here(request_) is here


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def app(tmp_path: Path, clock: TestClock) -> OnCue:
    return OnCue(f"sqlite:///{tmp_path}/jobs.db", clock=clock)


def _client(served: Any, *, address: str = "127.0.0.1", host: str = "127.0.0.1", **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(served, client=(address, 9))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}:8000", headers=named)


async def _status(client: httpx.AsyncClient, method: str = "GET", path: str = "/api/me", **more: Any) -> int:
    async with client:
        return (await client.request(method, path, **more)).status_code


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK") or os.getuid() != 0, reason="needs Linux, and root to be others")
@pytest.mark.parametrize(("user", "status"), [(0, 200), (65_534, 401)])
def test_a_proxy_of_another_user_on_this_machine_is_nobody(tmp_path: Path, user: int, status: int) -> None:
    """It speaks HTTP/1.1, adds no header, and asks for localhost, as nginx does from 1.29.7 on."""
    ask = (
        "import os, socket, sys\n"
        "os.setuid(int(sys.argv[2]))\n"
        "link = socket.socket()\n"
        "link.connect(('127.0.0.1', int(sys.argv[1])))\n"
        "link.sendall(b'GET /api/me HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "print(link.recv(100).split()[1].decode())\n"
    )
    app = OnCue(f"sqlite:///{tmp_path}/jobs.db")
    with serving(web_app(app, worker=False)) as client:
        done = subprocess.run(
            [sys.executable, "-c", ask, str(client.base_url.port), str(user)],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.strip() == str(status)


async def test_loopback_is_let_in_by_serve_and_not_by_what_is_mounted(
    app: OnCue, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _status(_client(web_app(app, worker=False))) == 200
    assert await _status(_client(web_app(app, worker=False), address="10.0.0.7")) == 401
    assert await _status(_client(dashboard_app(app))) == 401
    assert await _status(_client(dashboard_app(app, loopback=True))) == 200
    monkeypatch.setenv("ONCUE_LOOPBACK", "off")
    assert await _status(_client(web_app(app, worker=False))) == 401
    assert await _status(_client(dashboard_app(app, loopback=True))) == 200
    monkeypatch.setenv("ONCUE_LOOPBACK", "on")
    assert await _status(_client(dashboard_app(app))) == 200


async def test_another_site_can_make_a_browser_do_nothing(app: OnCue) -> None:
    async def pause(**headers: str) -> int:
        served = web_app(app, worker=False)
        return await _status(_client(served, **headers), "POST", "/api/queues/q/pause", json={})

    assert await pause() == 403
    assert await pause(x_oncue="1") == 200
    assert await pause(x_oncue="1", origin="http://127.0.0.1:8000", sec_fetch_site="same-origin") == 200
    assert await pause(x_oncue="1", origin="https://evil.example") == 403
    assert await pause(x_oncue="1", origin="null") == 403
    assert await pause(x_oncue="1", origin="http://[") == 403
    # Behind a proxy that asks by a name of its own.
    assert await pause(x_oncue="1", origin="https://ops.example", sec_fetch_site="same-origin") == 200
    assert await pause(x_oncue="1", sec_fetch_site="cross-site") == 403
    assert await pause(x_oncue="1", sec_fetch_site="same-site") == 403
    async with app:
        assert [queue.name for queue in await app.store.queues(app.clock.now())] == ["q"]


async def test_a_form_of_another_site_is_no_json(app: OnCue) -> None:
    served = web_app(app, worker=False)
    form = {"content": b"{}", "headers": {"content-type": "text/plain", "x-oncue": "1"}}
    assert await _status(_client(served), "POST", "/api/queues/q/pause", **form) == 415


async def test_a_token_is_good_until_its_end_or_until_it_is_revoked(app: OnCue, clock: TestClock) -> None:
    served = dashboard_app(app)
    async with app:
        tokens = Operator(app, "cli:ana").tokens
        lasting = await tokens.create("lasting", ["read"])
        brief = await tokens.create("brief", ["read"], clock.now() + 60_000_000)
        for token in (lasting, brief):
            assert await _status(_client(served, authorization=f"Bearer {token}")) == 200
        clock.advance(60)
        assert await _status(_client(served, authorization=f"Bearer {brief}")) == 401
        assert await tokens.revoke("lasting")
        assert await _status(_client(served, authorization=f"Bearer {lasting}")) == 401
        assert [(one.name, one.good) for one in await tokens.list()] == [("brief", False), ("lasting", False)]


async def test_what_is_kept_of_a_token_is_its_hash_and_no_answer_shows_it(app: OnCue) -> None:
    async with app:
        operator = Operator(app, "cli:ana")
        token = await operator.tokens.create("ana", ["read"])
        row = await app.store.look(lambda: operate.token_of(hash_of(token)))
        assert row is not None
        assert row.name == "ana"
        shown = [await operator.audit(), await operator.tokens.list()]
    assert token not in repr(shown)
    assert token not in (app.store.path.read_bytes()).decode("latin-1")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic b25jdWU6eA==",
        "Bearer oncue_",
        "bearer oncue_\u00e9",
        f"Bearer oncue_{'x' * 300}",
    ],
)
async def test_what_is_no_token_lets_nobody_in_at_this_machine_either(app: OnCue, given: str) -> None:
    # Whoever shows a token is taken at their word, so that a wrong one is noticed.
    headers = [(b"authorization", given.encode("latin-1"))]
    async with _client(web_app(app, worker=False)) as client:
        answer = await client.get("/api/me", headers=headers)
    assert answer.status_code == 401


async def test_two_authorizations_are_none(app: OnCue) -> None:
    async with app:
        token = await Operator(app, "cli:ana").tokens.create("ana", ["read"])
    headers = [("authorization", f"Bearer {token}"), ("authorization", "Bearer other")]
    async with _client(web_app(app, worker=False)) as client:
        assert (await client.get("/api/me", headers=headers)).status_code == 401


async def test_a_host_applications_login_decides_and_stands_in_the_audit(app: OnCue) -> None:
    async def login(request: Request) -> Identity | None:
        name = request.cookies.get("user")
        return None if name is None else Identity.of(f"host:{name}", ["read", "operate"])

    host = Starlette(routes=[Mount("/admin/oncue", dashboard_app(app, login=login))])
    async with _client(host, cookie="user=ana", x_oncue="1") as client:
        assert (await client.get("/admin/oncue/api/me")).json()["who"] == "host:ana"
        assert (await client.post("/admin/oncue/api/queues/q/pause", json={})).status_code == 200
        assert (await client.post("/admin/oncue/api/jobs", json={"task": "x"})).status_code == 403
        audit = (await client.get("/admin/oncue/api/audit")).json()["items"]
        page = await client.get("/admin/oncue/")
    assert [(line["who"], line["action"], line["target"]) for line in audit] == [("host:ana", "pause", "queue:q")]
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert await _status(_client(host), path="/admin/oncue/api/me") == 401
    assert await _status(_client(host, cookie="user=ana"), "POST", "/admin/oncue/api/queues/q/pause", json={}) == 403


async def test_the_hosts_login_may_use_the_authorization_header_too(app: OnCue) -> None:
    async def login(request: Request) -> Identity | None:
        given = request.headers.get("authorization")
        return Identity.of("host:ana", ["read"]) if given == "Basic YW5hOng=" else None

    async with app:
        token = await Operator(app, "cli:ana").tokens.create("ben", ["schedule"])
    async with _client(dashboard_app(app, login=login, loopback=True)) as client:

        async def who(*given: str) -> str | None:
            answer = await client.get("/api/me", headers=[("authorization", one) for one in given])
            return answer.json().get("who")  # type: ignore[no-any-return]

        assert await who("Basic YW5hOng=") == "host:ana"
        assert await who(f"Bearer {token}") == "token:ben"
        assert await who() == "loopback"
        for wrong in (["Basic eA=="], ["Bearer oncue_x"], ["Bearer other"], ["Basic eA==", f"Bearer {token}"]):
            assert await who(*wrong) is None


@pytest.mark.parametrize("path", ["/api/me", "/api/events", "/api/nothing"])
async def test_a_login_that_raises_is_a_problem_too(app: OnCue, path: str) -> None:
    async def login(_: Request) -> Identity | None:
        raise ZeroDivisionError

    for made in (dashboard_app(app, login=login), web_app(app, worker=False, login=login)):
        transport = httpx.ASGITransport(Starlette(routes=[Mount("/x", made)]), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/x") as client:
            answer = await client.get(path)
        assert answer.status_code == (404 if path == "/api/nothing" else 500)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code


async def test_a_login_may_refuse_in_its_own_words(app: OnCue) -> None:
    async def login(_: Request) -> Identity | None:
        raise HTTPException(403, "Sign in at the front door.")

    async with _client(dashboard_app(app, login=login)) as client:
        for path in ("/api/me", "/api/events"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["detail"]) == (403, "Sign in at the front door.")


@pytest.mark.parametrize(("who", "roles"), [("", {"read"}), (None, {"read"}), ("ana", "read"), ("ana", {"root"})])
def test_an_identity_has_a_name_and_roles_that_there_are(who: Any, roles: Any) -> None:
    with pytest.raises(ConfigError):
        Identity(who, roles)
    with pytest.raises(ConfigError):
        Identity.of(who, roles)
