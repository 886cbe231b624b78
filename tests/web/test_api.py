"""The API over HTTP: what it answers, that it answers as it describes itself, and that no input does harm."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from oncue import OnCue
from oncue.web import web_app
from oncue.web.api import OPERATIONS
from tests.web.conftest import serving
from tests.web.operator_stage import ACTS, declared

HTML = "<img src=x onerror=alert(1)>"
NASTY = [
    HTML,
    "=cmd|' /C calc'!A0",
    "'; DROP TABLE oncue_job; --",
    "\\",
    "%",
    "_",
    '"',
    "\r\nX-Evil: 1",
    "\u202e",
    "日本",
    "a/b",
]


class Served:
    """A client at this machine, and an application apart to schedule with."""

    def __init__(self, outside: OnCue, client: httpx.Client) -> None:
        self.outside, self.client = outside, client
        self.note, self.fail = outside.tasks["note"], outside.tasks["fail"]
        self.document: dict[str, Any] = client.get("/api/openapi.json").json()

    def get(self, path: str, status: int = 200, /, **params: Any) -> Any:
        answer = self.client.get(f"/api{path}", params=params)
        assert answer.status_code == status, answer.text
        self.fits("get", path, answer)
        return answer.json()

    def post(self, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        named = {**ACTS, **{name.replace("_", "-"): value for name, value in headers.items()}}
        answer = self.client.post(f"/api{path}", json=body or {}, headers=named)
        assert answer.status_code == status, answer.text
        self.fits("post", path, answer)
        return answer.json()

    def fits(self, method: str, path: str, answer: httpx.Response) -> None:
        """The answer is one that the description has, and of its form."""
        template = next(one.path for one in OPERATIONS if _matches(one.path, path) and one.method == method.upper())
        described = self.document["paths"][template][method]["responses"]
        assert str(answer.status_code) in described, f"{method} {path} answered {answer.status_code}"
        content = described[str(answer.status_code)]["content"]
        media = answer.headers["content-type"]
        assert media in content
        schema = {**content[media]["schema"], "components": self.document["components"]}
        jsonschema.Draft202012Validator(schema).validate(answer.json())


def _matches(template: str, path: str) -> bool:
    wanted, given = template.split("/"), path.split("/")
    return len(wanted) == len(given) and all(
        one == other or (one.startswith("{") and path != "/jobs/many") for one, other in zip(wanted, given, strict=True)
    )


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    url = f"sqlite:///{tmp_path}/jobs.db"
    with serving(web_app(declared(url), worker=False)) as client:
        yield Served(declared(url), client)


def _schedule(served: Served, *texts: str, **options: Any) -> list[int]:
    calls = [served.note.call(number, phone="+49 151 12345", text=text) for number, text in enumerate(texts)]
    return [served.outside.sync.schedule(call, delay=1000, **options).id for call in calls]


def test_every_read_answers_as_it_is_described(served: Served) -> None:
    (id,) = _schedule(served, "hello", key="k")
    served.post("/schedules/night/run-now", status=404)
    for path in ("/overview", "/jobs", f"/jobs/{id}", "/queues", "/tasks", "/schedules", "/workers", "/sources"):
        served.get(path)
    for path in ("/blockers", "/checks", "/audit", "/me"):
        served.get(path)
    served.get("/jobs/4711", 404)
    served.get("/schedules/none", 404)
    served.get("/conversations", 404)


def test_a_job_is_found_by_what_it_says_and_what_is_redacted_is_not(served: Served) -> None:
    (id,) = _schedule(served, "hello")
    assert [job["id"] for job in served.get("/jobs", text="hel")["items"]] == [id]
    assert served.get("/jobs", text="151 123")["items"] == []
    life = served.get(f"/jobs/{id}")
    assert life["job"]["args"] == {"n": 0, "phone": "•••", "text": "hello"}
    assert life["why"].startswith("it is due at")


@pytest.mark.parametrize("text", NASTY)
def test_what_people_write_comes_back_as_it_is_and_does_nothing(served: Served, text: str) -> None:
    _schedule(served, "other")
    (id,) = _schedule(served, text)
    assert served.get(f"/jobs/{id}")["job"]["args"]["text"] == text
    assert [job["id"] for job in served.get("/jobs", text=text)["items"]] == [id]
    for name in ("task", "queue", "key", "group"):
        if text.isprintable():
            assert served.get("/jobs", **{name: text})["items"] == []
    answer = served.client.get("/api/jobs", params={"cursor": text})
    assert answer.status_code == 400
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize("name", ["%2e%2e%2f", "..%2f..%2fetc%2fpasswd", "%00", "%0d%0aX-Evil:1", "a%2fb", HTML])
def test_a_path_is_a_name_and_nothing_else(served: Served, name: str) -> None:
    for path in (f"/api/jobs/{name}", f"/api/schedules/{name}", f"/assets/{name}", f"/{name}"):
        answer = served.client.get(path)
        assert answer.status_code in (400, 404), path
        assert "x-evil" not in answer.headers
        assert "html" not in answer.headers["content-type"]


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/jobs?state=odd", "state"), ("/jobs?limit=0", "limit"), ("/jobs?limit=201", "limit"),
        ("/jobs?n=1", "no parameter"),
        ("/jobs?task=a&task=b", "more than once"), ("/jobs?task=", "task"), ("/queues?x=1", "no parameter"),
        ("/schedules/night?n=0", "n`"), ("/schedules/night?n=101", "n`"), ("/schedules/night?n=ten", "n`"),
        ("/schedules/night?limit=5", "no parameter"), ("/jobs?cursor=x", "cursor"), ("/jobs?text=" + "x" * 201, "text"),
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_read_is_said_so(served: Served, path: str, word: str) -> None:
    answer = served.client.get(f"/api{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert word in answer.json()["detail"]


def test_bodies_that_cannot_be_read_are_refused(served: Served) -> None:
    def post(content: bytes, media: str = "application/json") -> int:
        headers = {**ACTS, "content-type": media}
        return served.client.post("/api/jobs", content=content, headers=headers).status_code

    assert post(b"{") == 400
    assert post(b"[]") == 422
    assert post(b'{"task": "note", "odd": 1}') == 422
    assert post(b'{"task": "note"}', "text/plain") == 415
    assert post(b"[" * 100_000) in (400, 422)
    assert post(b'"' + b"x" * 1_100_000 + b'"') == 413
    assert post(b"\xff\xfe") == 400


def test_scheduling_by_http_is_checked_as_by_python(served: Served) -> None:
    made = served.post("/jobs", {"task": "note", "args": {"n": 5}, "delay": 60, "key": "k", "priority": -3}, 201)
    job = served.get(f"/jobs/{made['id']}")["job"]
    assert (job["key"], job["priority"], job["origin"]) == ("k", -3, "api:loopback")
    again = served.post("/jobs", {"task": "note", "args": {"n": 6}, "key": "k"}, 201)
    assert (again["id"], again["status"]) == (made["id"], "kept")
    served.post("/jobs", {"task": "none"}, 404)
    for body in (
        {"task": "note", "args": {"n": "five"}}, {"task": "note", "args": {"m": 5}},
        {"task": "note", "args": {"n": 1}, "at": "yesterday"},
        {"task": "note", "args": {"n": 1}, "at": "2030-01-01T00:00:00"},
        {"task": "note", "args": {"n": 1}, "at": "2030-01-01T00:00:00Z", "delay": 5},
    ):  # fmt: skip
        served.post("/jobs", body, 422)
    served.post("/jobs", {"task": "note", "args": {"n": 1, "text": "x" * 300_000}}, 413)
    assert len(served.get("/jobs")["items"]) == 1


@pytest.mark.parametrize(
    ("at", "due"),
    [
        ("1970-01-01T00:30:00+01:00", "1970-01-01T00:00:00.000000Z"),
        ("1970-06-01T00:00:00Z", "1970-06-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.9-05:00", "9999-12-31T23:59:59.000000Z"),
    ],
)
def test_a_due_time_whose_zone_moves_it_over_an_end_is_that_end(served: Served, at: str, due: str) -> None:
    made = served.post("/jobs", {"task": "note", "args": {"n": 5}, "at": at}, 201)
    assert made["scheduled_at"] == due
    served.post("/jobs", {"task": "note", "args": {"n": 5}, "at": "1969-12-31T12:00:00Z"}, 422)
    for name in ("due_before", "finished_after"):
        assert served.get("/jobs", **{name: "0001-01-01T00:00:00+14:00"}) is not None
        assert served.get("/jobs", **{name: at}) is not None


def test_an_idempotency_key_makes_one_job_of_many_requests(served: Served) -> None:
    body = {"task": "note", "args": {"n": 1}, "delay": 60}
    first = served.post("/jobs", body, 201, idempotency_key="a-1")
    assert served.post("/jobs", body, 200, idempotency_key="a-1") == first
    assert served.post("/jobs", body, 201, idempotency_key="a-2")["id"] != first["id"]
    told = served.post("/jobs", {**body, "delay": 61}, 409, idempotency_key="a-1")
    assert "another request before" in told["detail"]
    assert len(served.get("/jobs")["items"]) == 2
    for wrong in ("x" * 201, "two words"):
        served.post("/jobs", body, 400, idempotency_key=wrong)


def test_a_request_that_failed_may_be_sent_again_with_its_key(served: Served) -> None:
    served.post("/jobs", {"task": "note", "args": {}}, 422, idempotency_key="a-1")
    served.post("/jobs", {"task": "note", "args": {"n": 1}}, 201, idempotency_key="a-1")


def test_actions_say_what_they_did_or_why_not(served: Served) -> None:
    (id,) = _schedule(served, "x")
    assert served.post(f"/jobs/{id}/reschedule", {"delay": 500})["done"] is True
    served.post(f"/jobs/{id}/reschedule", {}, 422)
    served.post(f"/jobs/{id}/reschedule", {"delay": 5, "at": "2030-01-01T00:00:00Z"}, 422)
    assert "due now" in served.post(f"/jobs/{id}/run-now")["text"]
    assert served.post(f"/jobs/{id}/cancel") == {"done": True, "text": "It is cancelled, and will not run."}
    assert "is cancelled" in served.post(f"/jobs/{id}/cancel", status=409)["detail"]
    assert served.post(f"/jobs/{id}/retry")["done"] is True
    served.post("/jobs/4711/run-now", status=404)
    served.post("/jobs/nonsense/run-now", status=404)
    done = [line["action"] for line in served.get("/audit", target=f"job:{id}")["items"]]
    assert done == ["retry", "cancel", "run-now", "reschedule"]
    life = [event["text"] for event in served.get(f"/jobs/{id}")["life"] if event["event"] == "asked"]
    assert life[0].startswith("it was moved by loopback, to 20")


def test_many_are_counted_first_and_done_once_confirmed(served: Served) -> None:
    ids = _schedule(served, "a", "b", "c")
    _schedule(served, "d", queue="other")
    ask = {"action": "cancel", "filter": {"queue": "default", "late": None}}
    counted = served.post("/jobs/many", ask)
    assert counted["count"] == 3
    (late,) = _schedule(served, "too late to be counted")
    for wrong in ({"confirm": 2}, {"confirm": 3, "action": "run-now"}, {"confirm": 3, "filter": {"queue": "other"}}):
        served.post("/jobs/many", {**ask, "token": counted["token"], **wrong}, 409)
    served.post("/jobs/many", {**ask, "token": "00", "confirm": 3}, 409)
    done = served.post("/jobs/many", {**ask, "token": counted["token"], "confirm": 3})
    assert (done["done"], done["refused"]) == (3, [])
    assert [job["id"] for job in served.get("/jobs", state="cancelled")["items"]] == sorted(ids, reverse=True)
    assert served.get(f"/jobs/{late}")["job"]["state"] == "scheduled"
    (line,) = [line for line in served.get("/audit")["items"] if line["target"] == "jobs"]
    assert (line["action"], line["count"], line["detail"]["filter"]) == ("cancel", 3, {"queue": "default"})
    served.post("/jobs/many", {"action": "cancel", "filter": {}}, 409)
    served.post("/jobs/many", {"action": "cancel", "filter": {"odd": "x"}}, 422)
    served.post("/jobs/many", {"action": "cancel", "filter": {"queue": "default", "late": ""}}, 422)


def test_an_entity_tag_saves_the_answer(served: Served) -> None:
    (id,) = _schedule(served, "x", key="k")
    first = served.client.get(f"/api/jobs/{id}")
    tag = {"if-none-match": first.headers["etag"]}
    again = served.client.get(f"/api/jobs/{id}", headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    served.post(f"/jobs/{id}/cancel")
    assert served.client.get(f"/api/jobs/{id}", headers=tag).status_code == 200
    assert first.headers["cache-control"] == "no-store"


def test_other_methods_and_paths_are_told_apart(served: Served) -> None:
    wrong = served.client.delete("/api/jobs")
    assert (wrong.status_code, wrong.headers["allow"], wrong.json()["title"]) == (
        405,
        "GET, POST",
        "Method Not Allowed",
    )
    assert served.client.get("/api/nowhere").json()["status"] == 404
    assert served.client.put("/api/events").status_code == 405
    assert served.client.get("/api/jobs/many").status_code == 405
    # The routes that were there before answer as before.
    assert served.client.delete("/api/cron/process-scheduled").json() == {"error": "Method Not Allowed"}


def test_the_description_is_openapi_and_names_what_there_is(served: Served) -> None:
    document = served.document
    assert document["openapi"] == "3.1.0"
    names = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert names == {f"{one.method} {one.path}" for one in OPERATIONS} | {"GET /events"}
    ids = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(ids) == len(set(ids))
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    (queue,) = (one for one in document["paths"]["/jobs"]["get"]["parameters"] if one["name"] == "queue")
    wanted = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[^\x00]*$"}
    assert queue == {"name": "queue", "in": "query", "required": False, "schema": wanted}


def test_a_schedule_tells_as_many_next_fires_as_are_asked_for(served: Served) -> None:
    asyncio.run(served.outside.drain())
    for given, count in (({}, 10), ({"n": 1}, 1), ({"n": 100}, 100)):
        assert len(served.get("/schedules/night", **given)["next_fires"]) == count
    (_, n) = served.document["paths"]["/schedules/{name}"]["get"]["parameters"]
    assert (n["name"], n["in"], n["required"]) == ("n", "query", False)
    assert {name: n["schema"][name] for name in ("type", "minimum", "maximum", "default")} == {
        "type": "integer", "minimum": 1, "maximum": 100, "default": 10,
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/api/audit?target=a%00", "/api/conversations?conversation=a%00"])
def test_what_no_database_can_hold_is_refused_before_it_is_asked(served: Served, path: str) -> None:
    # PostgreSQL's text holds no NUL, and an error of the database would be a 503.
    assert served.client.get(path).status_code == 400
