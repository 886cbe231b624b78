"""Each role can do exactly what it may: every operation of the API, asked by everybody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from oncue.operate.tokens import ROLES
from oncue.web import web_app
from oncue.web.api import OPERATIONS
from tests.web.operator_stage import clients, declared

MAY = {
    "read": {
        "GET /overview", "GET /jobs", "GET /jobs/{id}", "GET /queues", "GET /tasks", "GET /schedules",
        "GET /schedules/{name}", "GET /workers", "GET /sources", "GET /blockers", "GET /checks", "GET /audit",
        "GET /conversations", "GET /conversations/{id}", "GET /people", "GET /people/{id}", "GET /channels",
    },
    "operate": {
        "POST /jobs/many", "POST /jobs/{id}/run-now", "POST /jobs/{id}/retry", "POST /jobs/{id}/cancel",
        "POST /jobs/{id}/reschedule", "POST /queues/{name}/pause", "POST /queues/{name}/resume",
        "POST /tasks/{name}/pause", "POST /tasks/{name}/resume", "POST /schedules/{name}/pause",
        "POST /schedules/{name}/resume", "POST /schedules/{name}/run-now", "POST /workers/reconnect",
        "POST /conversations/{id}/pause",
        "POST /conversations/{id}/resume", "POST /conversations/{id}/restart", "POST /conversations/{id}/takeover",
        "POST /conversations/{id}/stop", "POST /conversations/{id}/release",
    },
    "schedule": {"POST /jobs"},
    "cron": set(),
}  # fmt: skip
EVERYBODY = {"GET /me", "GET /openapi.json"}
REFUSED = (401, 403)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, httpx.Client]]:
    folder: Path = tmp_path_factory.mktemp("roles")
    app = declared(f"sqlite:///{folder}/jobs.db")
    with clients(app, web_app(app, worker=False)) as made:
        yield made


def _ask(client: httpx.Client, name: str) -> int:
    method, _, path = name.partition(" ")
    path = path.replace("{id}", "4711").replace("{name}", "some-name")
    if path == "/people":
        path += "?name=p1"
    body: dict[str, object] | None = {} if method == "POST" else None
    if path == "/jobs/many":
        body = {"action": "cancel", "filter": {"task": "none"}}
    elif name == "POST /jobs":
        body = {"task": "note", "args": {"n": 1}}
    elif path.endswith("/reschedule"):
        body = {"delay": 5}
    return client.request(method, f"/api{path}", json=body).status_code


def test_the_table_names_every_operation_once() -> None:
    names = [f"{one.method} {one.path}" for one in OPERATIONS]
    assert sorted(names) == sorted([*EVERYBODY, *(name for may in MAY.values() for name in may)])


@pytest.mark.parametrize("name", sorted({f"{one.method} {one.path}" for one in OPERATIONS}))
def test_who_may_and_nobody_else(served: dict[str, httpx.Client], name: str) -> None:
    got = {who: _ask(client, name) for who, client in served.items() if who != "loopback"}
    for role in ROLES:
        if name in EVERYBODY or name in MAY[role]:
            assert got[role] in (200, 201, 404, 409), (role, got)
        else:
            assert got[role] == 403, (role, got)
    assert got["nobody"] == 401


def test_the_stream_and_the_metrics_are_for_readers(served: dict[str, httpx.Client]) -> None:
    for path in ("/api/events", "/metrics"):
        for who, client in served.items():
            with client.stream("GET", path) as answer:
                assert (answer.status_code == 200) == (who in ("read", "loopback")), (path, who, answer.status_code)


def test_cron_is_for_its_role_and_for_the_secret_alone(served: dict[str, httpx.Client]) -> None:
    path = "/api/cron/process-scheduled"
    assert served["cron"].post(path).json()["success"] is True
    for who in ("read", "operate", "schedule", "nobody", "loopback"):
        # No secret is set here, so there is no other way in.
        assert served[who].post(path).status_code == 503, who
    assert served["cron"].get("/api/jobs").status_code == 403


def test_health_and_the_page_hold_nothing_and_are_open(served: dict[str, httpx.Client]) -> None:
    for path in ("/health/live", "/health/ready", "/"):
        assert served["nobody"].get(path).status_code == 200


def test_what_is_refused_says_why(served: dict[str, httpx.Client]) -> None:
    nobody = served["nobody"].get("/api/jobs")
    assert nobody.headers["www-authenticate"] == 'Bearer realm="oncue"'
    assert nobody.headers["content-type"] == "application/problem+json"
    assert "oncue tokens create" in nobody.json()["detail"]
    lacking = served["read"].post("/api/queues/q/pause", json={})
    assert lacking.json()["detail"] == "This needs the role operate; token:read has: read."
