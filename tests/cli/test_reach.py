"""``oncue doctor``: jobs that run for long, tokens that end, sweeps that stay away, and whether cron gets through."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route

from oncue.settings import Settings
from oncue.web import CRON_PATH, cron_app
from tests.cli.stage import SECRET, Stage
from tests.web.conftest import serving
from tests.worker.conftest import until_state


def check(stage: Stage, name: str, *arguments: str) -> dict[str, Any]:
    answer = json.loads(stage.here("doctor", "--json", *arguments).stdout)
    (found,) = (one for one in answer["checks"] if one["name"] == name)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def server(stage: Stage) -> Any:
    settings = Settings(cron_secrets=(SECRET.encode(),))
    return cron_app(stage.load()["app"], settings=settings)


@pytest.mark.parametrize(
    ("secret", "state", "told"),
    [
        ("", "ok", "whether it fits was not tried"),
        (SECRET, "ok", "takes the secret; nothing was run"),
        ("another-secret-of-some-length", "fail", "refuses the secret of this environment"),
        (f"{SECRET},another-secret-of-some-length", "fail", "refuses 1 of the 2 secrets"),
        ("short", "fail", "could be guessed"),
    ],
)
def test_the_cron_route_is_called_as_cron_would(
    stage: Stage, server: Any, monkeypatch: pytest.MonkeyPatch, secret: str, state: str, told: str
) -> None:
    names = stage.load()

    async def schedule() -> None:
        async with names["app"] as app:
            await app.schedule(names["greet"].call("Ana"))

    asyncio.run(schedule())
    monkeypatch.setenv("CRON_SECRET", secret)
    with serving(server) as client:
        for url in (str(client.base_url), f"{client.base_url}{CRON_PATH}"):
            found = check(stage, "cron route", "--url", url)
            assert (found["state"], told in found["found"]) == (state, True), found
            assert SECRET not in json.dumps(found)
    assert stage.json("jobs", "show", "1")["job"]["state"] == "scheduled", "nothing is run"


@pytest.mark.parametrize(
    ("answer", "told", "remedy"),
    [
        (lambda _: JSONResponse({}, 404), "answered 404", "Is that where the application answers?"),
        (lambda _: RedirectResponse("https://example.com/"), "answered 307, a redirect", "cron follows none"),
        (lambda _: JSONResponse({}), "answered 200 to a call without a secret", "open to anybody"),
        (lambda _: JSONResponse({}, 403), "answered 403", "firewall"),
        (lambda _: JSONResponse({}, 500), "answered 500", "Look at the log"),
    ],
)
def test_what_stands_in_cron_s_way_is_told(stage: Stage, answer: Any, told: str, remedy: str) -> None:
    with serving(Starlette(routes=[Route(CRON_PATH, answer, methods=["POST"])])) as client:
        found = check(stage, "cron route", "--url", str(client.base_url))
        assert found["state"] == "fail"
        assert told in found["found"]
        assert remedy in found["remedy"]


def test_a_route_without_a_secret_and_one_that_is_away(stage: Stage) -> None:
    with serving(cron_app(stage.load()["app"], settings=Settings())) as client:
        url = str(client.base_url)
        assert "no CRON_SECRET is set there" in check(stage, "cron route", "--url", url)["found"]
    gone = check(stage, "cron route", "--url", url)
    assert (gone["state"], "can't be reached" in gone["found"]) == ("fail", True)
    for wrong in ("example.com", "ftp://example.com", "https://u:p@example.com", "https://example.com?x=1"):
        assert stage.here("doctor", "--url", wrong).exit_code == 2


def test_the_secret_is_not_sent_where_everybody_could_read_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    monkeypatch.setenv("CRON_SECRET", SECRET)
    monkeypatch.setattr("oncue.cli.reach._HERE", ())
    with serving(server) as client:
        found = check(stage, "cron route", "--url", str(client.base_url))
    assert found["state"] == "warn"
    assert "The secret was not sent" in found["remedy"]


async def test_a_job_that_runs_for_very_long_is_named(stage: Stage) -> None:
    names = stage.load()
    async with names["app"] as app, app.worker():
        handle = await app.schedule(names["hang"].call())
        await until_state(app, handle.id, "running")
        before = await asyncio.to_thread(check, stage, "running long")
        with closing(sqlite3.connect(stage.database)) as conn, conn:
            conn.execute("UPDATE oncue_job SET claimed_at = claimed_at - 7200000000, eligible_at = 1, scheduled_at = 1")
        found = await asyncio.to_thread(check, stage, "running long")
        await app.cancel(id=handle.id)
        await until_state(app, handle.id, "cancelled")
    assert before["state"] == "ok"
    assert found["state"] == "warn"
    assert f"job {handle.id} (hang) has run for 2 h, on worker" in found["found"]
    assert "oncue jobs cancel" in found["remedy"]


def test_a_token_that_ends_soon_and_a_sweeper_that_stays_away(stage: Stage) -> None:
    assert stage.here("migrate").exit_code == 0
    assert check(stage, "tokens")["found"] == "none is good"
    assert check(stage, "sweeper")["state"] == "warn"
    for name, expires in (("ci", "+30d"), ("old", "+3d")):
        assert stage.here("tokens", "create", name, "--role", "cron", "--expires", expires).exit_code == 0
    assert check(stage, "tokens")["found"] == "old ends in 3 d"
    assert stage.here("tokens", "revoke", "old").exit_code == 0
    assert check(stage, "tokens")["state"] == "ok"
    assert stage.here("sweep", "trial:app").exit_code == 0
    assert check(stage, "sweeper")["state"] == "ok"
    with closing(sqlite3.connect(stage.database)) as conn, conn:
        conn.execute("UPDATE oncue_counter SET value = value - 3600000000 WHERE name = 'swept_at'")
    found = check(stage, "sweeper")
    assert (found["state"], "last sweep 60 min ago" in found["found"]) == ("fail", True)
