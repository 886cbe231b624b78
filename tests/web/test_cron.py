"""The route for an external cron, over real HTTP: who may call it, what it does, what it answers."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from oncue import OnCue, Retry, Scheduled
from oncue.errors import ConfigError
from oncue.settings import Settings
from oncue.web import cron_app, web_app
from tests.web.conftest import PATH, SECRET, serving

UNAUTHORIZED = {"error": "Unauthorized"}


class Trial:
    """An application with a record of what it ran, and an instance apart for the test to schedule with."""

    def __init__(self, url: str) -> None:
        self.ran: list[int] = []
        self.gate, self.started = threading.Event(), threading.Event()
        self.app, self.outside = self._declare(OnCue(url)), self._declare(OnCue(url))
        self.note = self.outside.tasks["note"]

    def _declare(self, app: OnCue) -> OnCue:
        @app.task(name="note")
        async def note(n: int) -> None:
            self.ran.append(n)

        @app.task(name="fail", retry=Retry.never())
        async def fail() -> None:
            raise ValueError("no")

        @app.task(name="wait")
        async def wait() -> None:
            self.started.set()
            await asyncio.to_thread(self.gate.wait, 60)

        return app

    def schedule(self, *numbers: int, **options: Any) -> None:
        self.outside.sync.schedule_many([Scheduled(self.note.call(n), **options) for n in numbers])


@pytest.fixture
def trial(url: str) -> Iterator[Trial]:
    trial = Trial(url)
    yield trial
    # Closing the application also closes the connection of its synchronous calls.
    asyncio.run(_counts(trial.outside))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_it_does_what_is_due_with_no_worker_running(trial: Trial, method: str, bearer: dict[str, str]) -> None:
    trial.schedule(1, 2, 3)
    trial.schedule(4, delay=3600)
    trial.outside.sync.schedule(trial.outside.tasks["fail"].call())
    trial.schedule(5, at=datetime.now(UTC) - timedelta(minutes=5), max_late=1, when_late="skip")
    with serving(cron_app(trial.app, secret=SECRET), bearer) as client:
        answer = client.request(method, PATH)
        assert answer.status_code == 200
        body = answer.json()
        told = body.pop("next_due")
        next_due = datetime.fromisoformat(told)
        assert body == {"success": True, "ran": 3, "failed": 1, "skipped": 1, "remaining": 0}
        assert f"{next_due:%Y-%m-%dT%H:%M:%S.%f}Z" == told, "as all faces write times"
        assert timedelta(minutes=55) < next_due - datetime.now(UTC) <= timedelta(hours=1)
        assert answer.headers["cache-control"] == "no-store"
    assert sorted(trial.ran) == [1, 2, 3]


def test_with_nothing_to_do_it_says_so(trial: Trial, bearer: dict[str, str]) -> None:
    with serving(cron_app(trial.app, secret=SECRET), bearer) as client:
        nothing = {"success": True, "ran": 0, "failed": 0, "skipped": 0, "remaining": 0, "next_due": None}
        assert client.post(PATH).json() == nothing


def test_nobody_gets_in_without_the_secret(trial: Trial) -> None:
    refused: list[dict[str, Any]] = [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": SECRET},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": f"Bearer {SECRET}x"},
        {"Authorization": f"Bearer {SECRET[:-1]}"},
        {"Authorization": f"Bearer {SECRET.upper()}"},
        {"Authorization": f"Bearer {SECRET},{SECRET}"},
        {"Authorization": "Bearer \u00fc\u00fc\u00fc".encode("latin-1")},
        {"X-Cron-Secret": SECRET},
    ]
    trial.schedule(1)
    with serving(cron_app(trial.app, secret=SECRET)) as client:
        for headers in refused:
            for method in ("GET", "POST"):
                answer = client.request(method, PATH, headers=headers, params={"limit": "nonsense"})
                assert (answer.status_code, answer.json()) == (401, UNAUTHORIZED), headers
                assert answer.headers["www-authenticate"].startswith("Bearer")
    assert trial.ran == []


def test_refused_calls_are_in_the_log_once_until_one_is_good(
    trial: Trial, bearer: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> int:
        return sum("it bears none of the secrets" in message for message in caplog.messages)

    with serving(cron_app(trial.app, secret=SECRET)) as client:
        client.get(PATH)
        client.post(PATH, headers={"Authorization": "Bearer an-old-secret-of-ours"})
        assert told() == 1
        assert client.get(PATH, headers=bearer).status_code == 200
        client.get(PATH)
    assert told() == 2
    assert SECRET not in caplog.text
    assert "an-old-secret" not in caplog.text
    with serving(cron_app(trial.app, secret=(), settings=Settings())) as client:
        client.get(PATH)
    assert "CRON_SECRET is not set here" in caplog.text


def test_two_authorization_headers_are_none(trial: Trial) -> None:
    with serving(cron_app(trial.app, secret=SECRET)) as client:
        twice = [("Authorization", f"Bearer {SECRET}"), ("Authorization", "Bearer other")]
        assert client.get(PATH, headers=twice).status_code == 401


def test_the_scheme_may_be_written_in_any_case(trial: Trial) -> None:
    with serving(cron_app(trial.app, secret=SECRET)) as client:
        assert client.get(PATH, headers={"Authorization": f"bearer {SECRET}"}).status_code == 200


@pytest.mark.parametrize("secret", [f"a-new-secret-to-come, {SECRET}\n", ["a-new-secret-to-come", SECRET]])
def test_two_secrets_are_good_while_one_replaces_the_other(trial: Trial, secret: Any) -> None:
    with serving(cron_app(trial.app, secret=secret)) as client:
        for good in ("a-new-secret-to-come", SECRET):
            assert client.get(PATH, headers={"Authorization": f"Bearer {good}"}).status_code == 200
        assert client.get(PATH, headers={"Authorization": "Bearer ,"}).status_code == 401
    with serving(cron_app(trial.app, secret="a-new-secret-to-come")) as client:
        assert client.get(PATH, headers={"Authorization": f"Bearer {SECRET}"}).status_code == 401


@pytest.mark.parametrize("secret", [None, "", " , ", []])
def test_without_a_secret_it_is_closed_and_says_why(trial: Trial, secret: Any, bearer: dict[str, str]) -> None:
    trial.schedule(1)
    with serving(cron_app(trial.app, secret=secret, settings=Settings()), bearer) as client:
        for headers in ({}, bearer, {"Authorization": "Bearer"}):
            answer = client.post(PATH, headers=headers)
            assert answer.status_code == 503
            assert "CRON_SECRET" in answer.json()["reason"]
    assert trial.ran == []


@pytest.mark.parametrize("secret", ["short", f"{SECRET},short", "two words of a secret", "tab\tin-the-middle-of-it"])
def test_a_bad_secret_is_refused_at_the_start_and_not_shown(trial: Trial, secret: str) -> None:
    with pytest.raises(ConfigError, match="secret") as error:
        cron_app(trial.app, secret=secret)
    assert not any(part in str(error.value) for part in ("short", "two words", "tab\t"))


def test_the_secret_comes_from_the_environment(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, bearer: dict[str, str]
) -> None:
    monkeypatch.setenv("CRON_SECRET", SECRET)
    with serving(cron_app(trial.app), bearer) as client:
        assert client.get(PATH).status_code == 200
        assert client.get(PATH, headers={"Authorization": "Bearer x"}).status_code == 401


def test_other_methods_do_nothing(trial: Trial, bearer: dict[str, str]) -> None:
    trial.schedule(1)
    with serving(cron_app(trial.app, secret=SECRET), bearer) as client:
        for method in ("HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            answer = client.request(method, PATH)
            assert answer.status_code == 405, method
            assert sorted(answer.headers["allow"].replace(" ", "").split(",")) == ["GET", "POST"]
            if method != "HEAD":
                assert answer.json() == {"error": "Method Not Allowed"}
        assert client.get("/elsewhere").json() == {"error": "Not Found"}
    assert trial.ran == []


def test_the_count_budget_leaves_the_rest_and_counts_it(trial: Trial, bearer: dict[str, str]) -> None:
    trial.schedule(*range(10))
    with serving(cron_app(trial.app, secret=SECRET, settings=Settings(cron_limit=4)), bearer) as client:
        first = client.post(PATH, params={"limit": "3"}).json()
        assert (first["ran"], first["remaining"]) == (3, 7)
        assert datetime.fromisoformat(first["next_due"]) <= datetime.now(UTC)
        second = client.post(PATH, params={"limit": "1000"}).json()
        assert (second["ran"], second["remaining"]) == (4, 3), "a larger limit is cut to the settings' bound"
        third = client.post(PATH).json()
        assert (third["ran"], third["remaining"], third["next_due"]) == (3, 0, None)
    assert sorted(trial.ran) == list(range(10))


def test_the_time_budget_ends_and_the_job_runs_later(trial: Trial, bearer: dict[str, str]) -> None:
    trial.outside.sync.schedule(trial.outside.tasks["wait"].call())
    settings = Settings(cron_seconds=60, cron_grace=0.1)
    with serving(cron_app(trial.app, secret=SECRET, settings=settings), bearer) as client:
        first = client.get(PATH, params={"seconds": "0.2"}).json()
        assert trial.started.is_set()
        assert (first["ran"], first["failed"], first["remaining"]) == (0, 0, 1)
        trial.gate.set()
        second = client.get(PATH).json()
        assert (second["ran"], second["remaining"]) == (1, 0)


def test_a_bad_budget_is_refused_and_nothing_runs(trial: Trial, bearer: dict[str, str]) -> None:
    refused = [
        "limit=0",
        "limit=-1",
        "limit=ten",
        "limit=1.5",
        "limit=1_000",
        "limit=%EF%BC%91",
        "limit=",
        "limit=1&limit=2",
        "limit=" + "9" * 5000,
        "seconds=0",
        "seconds=-1",
        "seconds=nan",
        "seconds=inf",
        "seconds=1e3",
        "seconds=soon",
        "seconds=",
        "seconds=1&seconds=2",
    ]
    trial.schedule(1)
    with serving(cron_app(trial.app, secret=SECRET), bearer) as client:
        for query in refused:
            answer = client.get(f"{PATH}?{query}")
            assert answer.status_code == 400, query
            assert answer.json()["error"] == "Bad Request"
            assert answer.json()["reason"].startswith(query.partition("=")[0])
    assert trial.ran == []


def test_calls_that_overlap_run_each_job_once(trial: Trial, bearer: dict[str, str]) -> None:
    for group in range(5):
        calls = [Scheduled(trial.note.call(100 * group + n), group=f"g{group}", key=f"{group}-{n}") for n in range(8)]
        trial.outside.sync.schedule_many(calls)
    apps = [cron_app(trial.app, secret=SECRET), cron_app(trial.outside, secret=SECRET)]
    with serving(apps[0], bearer) as one, serving(apps[1], bearer) as two, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda client: client.post(PATH), [one, two] * 3))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert sum(answer.json()["ran"] for answer in answers) == 40
    assert sum(answer.json()["failed"] for answer in answers) == 0
    assert len(trial.ran) == len(set(trial.ran)) == 40
    for group in range(5):
        mine = [n for n in trial.ran if n // 100 == group]
        assert mine == sorted(mine)


KILLED = """
import os, sys
import uvicorn
from oncue import JobContext, OnCue
from oncue.web import cron_app
app = OnCue(sys.argv[1])
@app.task(name="note")
async def note(n: int) -> None:
    os.kill(os.getpid(), 9)
uvicorn.run(cron_app(app), host="127.0.0.1", fd=int(sys.argv[2]), log_level="error")
"""


def test_a_host_that_kills_the_call_loses_nothing(trial: Trial, url: str, bearer: dict[str, str]) -> None:
    trial.schedule(1, key="k", group="g")
    trial.schedule(2, group="g")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [sys.executable, "-c", KILLED, url, str(listening.fileno())]
        environment = {**os.environ, "CRON_SECRET": SECRET}
        server = subprocess.Popen(command, pass_fds=[listening.fileno()], env=environment)
        port = listening.getsockname()[1]
    with pytest.raises(httpx.TransportError):
        httpx.post(f"http://127.0.0.1:{port}{PATH}", headers=bearer, timeout=60, trust_env=False)
    assert server.wait(60) == -9
    with serving(cron_app(trial.app, secret=SECRET), bearer) as client:
        answer = client.post(PATH).json()
    assert (answer["ran"], answer["failed"], answer["remaining"]) == (2, 0, 0)
    assert trial.ran == [1, 2]


def test_it_works_beside_the_worker_of_its_own_process(trial: Trial, bearer: dict[str, str]) -> None:
    with serving(web_app(trial.app, secret=SECRET), bearer) as client:
        trial.outside.sync.schedule(trial.outside.tasks["wait"].call(), group="g")
        assert trial.started.wait(60), "the worker runs what another instance scheduled"
        trial.schedule(7, group="g")
        answer = client.post(PATH).json()
        assert (answer["ran"], answer["remaining"]) == (0, 1), "the group's lane is the worker's"
        trial.gate.set()
        trial.schedule(*range(20, 40))
        assert client.post(PATH).status_code == 200
    # The server's end lets the worker finish; what it gave back is done by another call.
    with serving(cron_app(trial.app, secret=SECRET), bearer) as client:
        assert client.post(PATH).json()["remaining"] == 0
    assert sorted(trial.ran) == [7, *range(20, 40)]


def test_it_can_be_mounted_under_any_prefix(trial: Trial, bearer: dict[str, str]) -> None:
    trial.schedule(1)
    host = Starlette(routes=[Mount("/internal/jobs", cron_app(trial.app, secret=SECRET))])
    with serving(host, bearer) as client:
        assert client.get("/internal/jobs" + PATH).json()["ran"] == 1
        assert client.get("/internal/jobs/health/ready").json() == {"status": "ready"}
        assert client.get(PATH).status_code == 404


def test_trouble_with_the_database_is_503_and_tells_no_secret(
    tmp_path: Path, bearer: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "customers-secret-name.db"
    path.write_bytes(b"this is no database, whatever its name" * 100)
    with serving(cron_app(OnCue(f"sqlite:///{path}"), secret=SECRET), bearer) as client:
        answer = client.post(PATH)
        ready = client.get("/health/ready")
    for said in (answer, ready):
        assert said.status_code == 503
        assert said.json() == {
            "error": "Database unavailable",
            "reason": "the database is damaged, or is none; the log has the details",
        }
    assert "customers-secret-name.db" in caplog.text


def test_a_broken_provider_is_500_and_tells_no_secret(
    trial: Trial, bearer: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    @trial.app.provide
    def pool() -> Iterator[threading.Event]:
        raise RuntimeError("postgresql://user:password@host")
        yield trial.gate

    with serving(cron_app(trial.app, secret=SECRET), bearer) as client:
        answer = client.post(PATH)
        assert (answer.status_code, answer.json()) == (500, {"error": "Internal Server Error"})
        assert client.get("/health/live").status_code == 200
    assert "user:password" in caplog.text, "the log has what the answer hides"


def test_health(trial: Trial) -> None:
    with serving(cron_app(trial.app, secret=SECRET)) as client:
        assert client.get("/health/live").json() == {"status": "live"}
        assert client.get("/health/ready").json() == {"status": "ready"}
        assert client.head("/health/ready").status_code == 200
        assert client.post("/health/live").status_code == 405


def test_a_server_with_a_worker_is_ready_while_the_worker_works(trial: Trial) -> None:
    with serving(web_app(trial.app, secret=SECRET)) as client:
        assert client.get("/health/ready").json() == {"status": "ready"}
        trial.schedule(1, 2)
        handle = trial.outside.sync.schedule(trial.outside.tasks["wait"].call())
        trial.gate.set()
        assert trial.started.wait(60)
        assert handle.id


def test_a_server_without_a_worker_runs_jobs_only_when_called(trial: Trial, bearer: dict[str, str]) -> None:
    with serving(web_app(trial.app, worker=False, secret=SECRET), bearer) as client:
        trial.schedule(1)
        assert client.get("/health/ready").json() == {"status": "ready"}
        assert trial.ran == []
        assert client.post(PATH).json()["ran"] == 1


def test_a_caller_that_hangs_up_leaves_nothing_running(trial: Trial, bearer: dict[str, str]) -> None:
    trial.outside.sync.schedule(trial.outside.tasks["wait"].call())
    settings = Settings(cron_seconds=60, cron_grace=0.1)
    with serving(cron_app(trial.app, secret=SECRET, settings=settings), bearer) as client:
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as raw:
            request = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\nContent-Length: 0\r\n\r\n"
            raw.sendall(request.encode())
            assert trial.started.wait(60)
        trial.gate.set()
        assert client.get("/health/live").status_code == 200
    counts = asyncio.run(_counts(trial.outside))
    assert (counts.running, counts.completed + counts.due) == (0, 1)


async def _counts(app: OnCue) -> Any:
    async with app:
        return await app.jobs.counts()
