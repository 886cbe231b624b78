"""The stream of events over HTTP: who reconnects goes on where they were, or is told that there is a gap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request

from oncue import OnCue
from oncue.operate import Operator, events
from oncue.web import Identity, dashboard_app, web_app
from oncue.web.api import stream
from tests.web.conftest import serving
from tests.web.operator_stage import declared, done


@pytest.fixture
def outside(tmp_path: Path) -> OnCue:
    return declared(f"sqlite:///{tmp_path}/jobs.db")


@pytest.fixture
def client(tmp_path: Path, outside: OnCue, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setattr(events, "_TICK", 0.01)
    with serving(web_app(declared(outside.url), worker=False)) as made:
        yield made


def _until(client: httpx.Client, name: str, last: str | None = None) -> list[tuple[str, str, str]]:
    """Read (id, event, data) until the first event of that name has come."""
    found: list[tuple[str, str, str]] = []
    headers = {} if last is None else {"last-event-id": last}
    with client.stream("GET", "/api/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        parts: dict[str, str] = {}
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if line:
                parts[field] = value
            elif "event" in parts:
                found.append((parts["id"], parts["event"], parts["data"]))
                parts = {}
                if found[-1][1] == name:
                    break
    return found


def test_who_reconnects_hears_what_came_meanwhile(client: httpx.Client, outside: OnCue) -> None:
    last = _until(client, "overview")[-1][0]
    note = outside.tasks["note"]
    made = [outside.sync.schedule(note.call(number), delay=100).id for number in range(3)]
    heard = _until(client, "overview", last)
    while len([one for one in heard if one[1] == "job"]) < 3:
        heard += _until(client, "job", heard[-1][0])
    jobs = [one for one in heard if one[1] == "job"]
    assert [f'"id":{id},' in data for (_, _, data), id in zip(jobs, made, strict=True)] == [True] * 3
    numbers = [int(id.rpartition("-")[2]) for id, _, _ in heard]
    first = int(last.rpartition("-")[2]) + 1
    assert numbers == list(range(first, first + len(numbers)))


def test_who_comes_from_another_life_of_the_server_is_told(client: httpx.Client) -> None:
    _until(client, "overview")
    (id, name, data), *_ = _until(client, "reset", "long-ago-7")
    assert (name, data) == ("reset", "{}")
    assert _until(client, "reset", "x" * 5000)[0][1] == "reset"
    assert id.count("-") == 1


def test_it_ends_when_its_token_is_revoked(
    client: httpx.Client, outside: OnCue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tokens(revoke: bool) -> str:
        async with outside:
            made = Operator(outside, "cli:test").tokens
            return str(await made.revoke("ana")) if revoke else await made.create("ana", ["read"])

    monkeypatch.setattr(stream, "_ANEW", 0.02)
    headers = {"authorization": f"Bearer {done(tokens(revoke=False))}"}
    with client.stream("GET", "/api/events", headers=headers) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": welcome"
        done(tokens(revoke=True))
        # It comes to its end, though nothing but the token has changed.
        assert not [line for line in lines if line.startswith("event: job")]
    assert client.get("/api/events", headers=headers).status_code == 401


def test_it_ends_when_the_hosts_login_says_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"ana"}

    async def login(request: Request) -> Identity | None:
        name = request.cookies.get("user")
        return Identity.of(f"host:{name}", ["read"]) if name in known else None

    monkeypatch.setattr(stream, "_ANEW", 0.02)
    app = declared(f"sqlite:///{tmp_path}/jobs.db")
    with serving(dashboard_app(app, login=login)) as client:
        with client.stream("GET", "/api/events", headers={"cookie": "user=ana"}) as answer:
            lines = answer.iter_lines()
            assert next(lines) == ": welcome"
            known.clear()
            assert list(lines)
        assert client.get("/api/events", headers={"cookie": "user=ana"}).status_code == 401
