"""The command line, with ``--json``, and the HTTP API say the same of one database."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from oncue.operate.views import JobSummary
from oncue.store import Claim, WorkerRow
from oncue.web import dashboard_app
from tests.cli.stage import ANA, STOPPED, TALK, Stage
from tests.web.conftest import serving

MORE = """
app.redact("phone")


@app.task(name="call", retry=Retry(delay=3600.0))
async def call(phone: str) -> None:
    raise RuntimeError(f"nobody at {phone}")


app.source(name="trials", table="free_trials", key="question-{id}", due="due_at",
           task=greet, args=lambda row: greet.call("x"))
"""
NIGHTS = """
@app.cron("30 2 * 3 SUNL", timezone="Europe/Berlin", name="spring")
async def spring() -> None: ...


@app.cron("30 * * 10 SUNL", timezone="Europe/Berlin", name="autumn")
async def autumn() -> None: ...
"""
TABLE = "CREATE TABLE free_trials (id INTEGER PRIMARY KEY, due_at TEXT)"
SPAN = re.compile(r"[0-9.]+ (ms|s|min|h|d)( ago|\b)")
"""Spans as seen from now, which differ from one question to the next."""
HOUR = 3_600_000_000
APP = ("--app", "trial:app")
SUMMARY = JobSummary.__struct_fields__


@pytest.fixture
def faces(stage: Stage) -> Iterator[tuple[Stage, httpx.Client]]:
    """Job 1 completed, 2 is to be tried again, 3 discarded, 4 waits behind 5's lane, and 6 runs elsewhere."""
    (stage.folder / "trial.py").write_text((stage.folder / "trial.py").read_text() + MORE)
    with closing(sqlite3.connect(stage.database)) as conn:
        conn.execute(TABLE)
    names = stage.load()
    app = names["app"]

    async def fill() -> None:
        async with app:
            await app.schedule(names["greet"].call("Ana"))
            await app.schedule(names["call"].call("555-1234"), key="caller")
            await app.schedule(names["fail"].call("Bo"))
            await app.drain()
            await app.schedule(names["greet"].call("Cy"), delay=3600, group="lane", queue="slow")
            await app.schedule(names["greet"].call("Di"), delay=1800, group="lane", queue="slow")
            await app.schedule(names["hang"].call(), queue="mail")
            now = app.clock.now()
            far = WorkerRow(0, "far", "elsewhere", 17, '{"mail": 3}', now, now, now + HOUR, 0, '["greet"]', "0.1.0")
            worker, _ = await app.store.register(far)
            assert len((await app.store.claim(Claim(worker, now, now, HOUR, 9))).jobs) == 1

    asyncio.run(fill())
    assert stage.here("tasks", "pause", "greet").exit_code == 0
    assert stage.here("queues", "pause", "slow").exit_code == 0
    with serving(dashboard_app(stage.load()["app"], loopback=True)) as client:
        yield stage, client


def api(client: httpx.Client, path: str) -> Any:
    answer = client.get(f"/api{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def same(theirs: Any, ours: Any) -> None:
    """What the API says the command line says too, and nothing else."""
    told, wanted = (SPAN.sub("?", json.dumps(one, indent=1, sort_keys=True)) for one in (ours, theirs))
    assert told == wanted


def test_all_faces_say_the_same(faces: tuple[Stage, httpx.Client]) -> None:
    stage, client = faces
    theirs, ours = api(client, "/overview"), stage.json("status", *APP)
    # A minute may begin between the two.
    assert [one for one in ours["past"] if one["started"]] == [one for one in theirs["past"] if one["started"]]
    assert ours["counts"] == theirs["counts"]
    assert theirs["counts"]["discarded"] == 1
    assert sum(minute["retried"] for minute in theirs["past"]) == 1
    assert [(one["name"], one["state"]) for one in ours["health"]] == [
        (one["name"], one["state"]) for one in theirs["health"]
    ]
    for id in range(1, 7):
        same(api(client, f"/jobs/{id}"), stage.json("jobs", "show", str(id), *APP))
    # A list on the command line has what its table shows besides: of each job what `jobs show` says of it.
    listed = stage.json("jobs", "list", *APP)
    same(api(client, "/jobs")["items"], [{name: job[name] for name in SUMMARY} for job in listed])
    for job in listed:
        known = api(client, f"/jobs/{job['id']}")["job"]
        del known["traceback"]
        same(known, job)
    same(api(client, "/overview")["counts"], stage.json("jobs", "counts", *APP))
    for path in ("queues", "tasks", "schedules"):
        same(api(client, f"/{path}")["items"], stage.json(path, "list", *APP))
    for path, count in (("workers", 1), ("sources", 1), ("blockers", 0), ("audit", 2)):
        items = api(client, f"/{path}")["items"]
        assert len(items) == count
        same(items, stage.json(path, *APP))
    (worker,) = api(client, "/workers")["items"]
    assert (worker["weights"], [(job["id"], job["task"]) for job in worker["jobs"]]) == ({"mail": 3.0}, [(6, "hang")])
    (slow,) = [queue for queue in api(client, "/queues")["items"] if queue["name"] == "slow"]
    assert (slow["scheduled"], slow["blocked"], slow["paused"]) == (2, 0, True)


def test_all_faces_list_the_fires_of_a_paused_schedule_and_say_that_it_is_paused(
    faces: tuple[Stage, httpx.Client],
) -> None:
    stage, client = faces
    before = api(client, "/schedules/nightly")
    same(before, stage.json("schedules", "show", "nightly", *APP))
    assert stage.here("schedules", "pause", "nightly").exit_code == 0
    paused = api(client, "/schedules/nightly")
    assert (paused["paused"], paused["next"], paused["next_fires"]) == (True, None, before["next_fires"])
    same(paused, stage.json("schedules", "show", "nightly"))
    same(paused["next_fires"], stage.json("schedules", "preview", "nightly"))
    same(api(client, "/schedules")["items"], stage.json("schedules", "list"))
    told = stage.lines("schedules", "show", "nightly")
    assert ["paused", "yes"] in told
    assert [line[0] for line in told[7:]] == ["if resumed"] * 10


def test_the_doctor_says_what_the_checks_say_and_what_only_a_command_can_try(faces: tuple[Stage, httpx.Client]) -> None:
    stage, client = faces
    theirs = {one["name"]: one for one in api(client, "/checks")["items"]}
    ours = {one["name"]: one for one in stage.json("doctor", "trial:app")["checks"]}
    assert ours.keys() - theirs.keys() == {"cron secret", "writing"}
    assert theirs.keys() <= ours.keys()
    # What a clock shows, and the room on a disk, differ from one question to the next.
    for name in theirs.keys() - {"wake", "clock", "disk"}:
        same(theirs[name], ours[name])


def test_what_the_application_hides_is_hidden_in_both(faces: tuple[Stage, httpx.Client]) -> None:
    stage, client = faces
    for said in (
        client.get("/api/jobs/2").text, stage.here("jobs", "show", "2", "--json", *APP).stdout,
        stage.here("jobs", "show", "2", *APP).stdout, stage.here("jobs", "list", *APP).stdout,
        stage.here("jobs", "list", "--json", *APP).stdout,
    ):  # fmt: skip
        assert "555-1234" not in said
        assert "•••" in said
    assert "555-1234" in stage.here("jobs", "show", "2").stdout, "without --app nothing is known to be hidden"
    for text, found in (("555-1234", []), ("Cy", ["4"])):
        assert [row[0] for row in stage.lines("jobs", "list", "--text", text, *APP)] == found


def test_an_action_of_one_face_is_in_the_audit_of_the_other(faces: tuple[Stage, httpx.Client]) -> None:
    stage, client = faces
    assert stage.here("jobs", "run-now", "4").exit_code == 0
    assert client.post("/api/jobs/4/cancel", headers={"X-OnCue": "1"}).json()["done"]
    latest, before = (entry for entry in stage.json("audit", "--target", "job:4"))
    assert (latest["who"], latest["action"]) == ("loopback", "cancel")
    assert (before["who"].partition("@")[0][:4], before["action"]) == ("cli:", "run-now")
    assert [entry["id"] for entry in api(client, "/audit?target=job:4")["items"]] == [latest["id"], before["id"]]
    life = api(client, "/jobs/4")["life"]
    assert any(before["who"] in event["text"] for event in life)


def test_both_faces_answer_an_action_in_the_same_words(faces: tuple[Stage, httpx.Client]) -> None:
    stage, client = faces
    for kind, name in (("queue", "mail"), ("task", "call"), ("schedule", "nightly")):
        for verb in ("pause", "resume"):
            theirs = act(client, f"/{kind}s/{name}/{verb}")
            assert act(client, f"/{kind}s/{name}/{'resume' if verb == 'pause' else 'pause'}")["done"]
            assert stage.json(f"{kind}s", verb, name) == theirs
    theirs, ours = act(client, "/schedules/nightly/run-now"), stage.json("schedules", "run-now", "nightly")
    assert [re.sub(r"\d+", "N", one["text"]) for one in (theirs, ours)] == ["Job N is due now."] * 2
    assert theirs["done"] is ours["done"] is True
    theirs = act(client, "/jobs/4/cancel")
    assert stage.json("jobs", "cancel", "5") == [{"id": 5, **theirs, "answer": "prevented"}]
    assert act(client, "/workers/reconnect") == stage.json("reconnect", code=1)
    assert stage.json("tokens", "create", "ana", "--role", "read")["name"] == "ana"
    assert stage.json("tokens", "revoke", "ana") == {"name": "ana", "revoked": True}


def act(client: httpx.Client, path: str) -> Any:
    answer = client.post(f"/api{path}", headers={"X-OnCue": "1"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_both_faces_mark_the_same_fires_at_a_clock_change(stage: Stage) -> None:
    """The nights of both changes; where they are is asked of Python's own zone."""
    (stage.folder / "trial.py").write_text((stage.folder / "trial.py").read_text() + NIGHTS)
    assert stage.here("sweep", "trial:app").exit_code == 0
    marks: dict[str, set[str]] = {}
    with serving(dashboard_app(stage.load()["app"], loopback=True)) as client:
        for name, count in (("spring", 2), ("autumn", 50)):
            fires = api(client, f"/schedules/{name}?n={count}")["next_fires"]
            assert len(fires) == count
            assert stage.json("schedules", "show", name, "-n", str(count))["next_fires"] == fires
            assert stage.json("schedules", "preview", name, "-n", str(count)) == fires
            expression = api(client, f"/schedules/{name}")["rule"]
            given = ("--cron", expression, "--timezone", "Europe/Berlin", "-n", str(count))
            assert stage.json("schedules", "preview", *given) == fires
            for fire in fires:
                local = datetime.fromisoformat(fire["at"]).astimezone(ZoneInfo("Europe/Berlin"))
                assert (fire["local"], fire["offset"]) == (f"{local:%a %Y-%m-%d %H:%M:%S}", local.isoformat()[-6:])
                if (expected := _edge(local)) is not None:
                    assert fire["shift"] == expected
                    marks.setdefault(name, set()).add(expected)
    assert marks == {
        "spring": {"right after the hour that the clock leaves out"},
        "autumn": {"the repeated hour, first time", "the repeated hour, second time"},
    }


def _edge(local: datetime) -> str | None:
    before = (local.astimezone(UTC) - timedelta(minutes=1)).astimezone(local.tzinfo)
    if before.replace(tzinfo=None) + timedelta(minutes=1) < local.replace(tzinfo=None):
        return "right after the hour that the clock leaves out"
    if local.replace(fold=0).utcoffset() == local.replace(fold=1).utcoffset():
        return None
    return f"the repeated hour, {('first', 'second')[local.fold]} time"


@pytest.mark.parametrize("kind", ["queue", "task"])
def test_both_faces_say_that_nothing_was_done_and_keep_it_out_of_the_audit(
    faces: tuple[Stage, httpx.Client], kind: str
) -> None:
    stage, client = faces
    name = "nothere"

    def ask(verb: str, done: bool, text: str) -> None:
        """Nobody knows that name, which both faces say too."""
        answers = [act(client, f"/{kind}s/{name}/{verb}")]
        if not done:
            answers.append(stage.json(f"{kind}s", verb, name))
        for answer in answers:
            said, _, doubt = answer["text"].partition(". No ")
            assert (answer["done"], said) == (done, f"{kind.title()} {name} {text}")
            assert f"a {kind} '{name}'; {kind}s that are known: " in doubt

    ask("resume", False, "was not paused")
    assert stage.here(f"{kind}s", "resume", name).stdout == f"{name}\twas not paused\n"
    assert stage.json("audit", "--target", f"{kind}:{name}") == []
    ask("pause", True, "is paused" + (": nobody starts its jobs" if kind == "task" else ""))
    ask("pause", False, "is paused already")
    assert stage.here(f"{kind}s", "pause", name).stdout == f"{name}\tpaused\n"
    assert stage.here(f"{kind}s", "resume", name).stdout == f"{name}\tresumed\n"
    ask("resume", False, "was not paused")
    assert [line["action"] for line in stage.json("audit", "--target", f"{kind}:{name}")] == ["resume", "pause"]


def test_a_token_that_was_made_here_lets_in_there_until_it_is_revoked(faces: tuple[Stage, httpx.Client]) -> None:
    stage, client = faces
    made = stage.json("tokens", "create", "ana", "--role", "read", "--expires", "+1d")
    headers = {"Authorization": f"Bearer {made['token']}"}
    me = client.get("/api/me", headers=headers).json()
    assert (me["who"], me["roles"]) == ("token:ana", ["read"])
    assert client.post("/api/queues/slow/resume", headers=headers).status_code == 403
    ((name, good, roles, *_),) = stage.lines("tokens", "list")
    assert (name, good, roles) == ("ana", "yes", "read")
    assert made["token"] not in stage.here("tokens", "list", "--json").stdout + stage.here("audit", "--json").stdout
    assert "token" in stage.here("tokens", "create", "ana", "--role", "read").stderr
    assert stage.here("tokens", "revoke", "ana").stdout == "ana\trevoked\n"
    assert stage.here("tokens", "revoke", "ana").exit_code == 1
    assert client.get("/api/me", headers=headers).status_code == 401


@contextmanager
def talks(stage: Stage) -> Iterator[httpx.Client]:
    """Three conversations, of whose people a human has taken over the second, on a channel that was stopped."""
    (stage.folder / "trial.py").write_text(TALK)
    names = stage.load()

    async def begin() -> None:
        async with names["app"] as app:
            for number in range(3):
                await names["trial"].start(f"{ANA}{number}", name="Ana")
            await app.drain(limit=3)

    asyncio.run(begin())
    assert stage.here("conversations", "takeover", "trial:app", "p2").exit_code == 0
    with closing(sqlite3.connect(stage.database)) as conn, conn:
        conn.executescript(STOPPED)
    with serving(dashboard_app(stage.load()["app"], loopback=True)) as client:
        yield client


def test_all_faces_say_the_same_of_conversations(stage: Stage) -> None:
    with talks(stage) as client:
        first = api(client, "/conversations?limit=2")
        same(first["items"], stage.json("conversations", "list", "--limit", "2"))
        second = api(client, f"/conversations?limit=2&cursor={first['next']}")
        same(second["items"], stage.json("conversations", "list", "--before", first["next"]))
        assert [one["id"] for page in (first, second) for one in page["items"]] == [3, 2, 1]
        assert second["next"] is None
        for id in (1, 2):
            same(api(client, f"/conversations/{id}"), stage.json("conversations", "show", str(id)))
        for id in (1, 2):
            same(api(client, f"/people/{id}"), stage.json("conversations", "timeline", f"p{id}"))
        for name in ("p2", f"+{ANA}1", f"{ANA}1"):
            (found,) = client.get("/api/people", params={"name": name}).json()["items"]
            same(found, stage.json("conversations", "timeline", name)["person"])
            assert found["id"] == 2
        assert api(client, "/people?name=p99")["items"] == []
        same(
            api(client, "/conversations?person=2&channel=whatsapp")["items"],
            stage.json("conversations", "list", "--person", "p2", "--channel", "whatsapp"),
        )
        channels = api(client, "/channels")["items"]
        same(channels, stage.json("conversations", "channels"))
        disabled = [one for channel in channels for one in channel["disabled"]]
        same(disabled, stage.json("conversations", "templates"))
        checks = {one["name"]: one for one in api(client, "/checks")["items"]}
        told = {one["name"]: one for one in stage.json("doctor", code=1)["checks"]}
        for name in ("conversations", "running long", "tokens", "overdue jobs"):
            assert set(told[name]) == set(checks[name]) == {"name", "state", "found", "remedy"}
            same(checks[name], told[name])


def test_all_faces_do_the_same_to_conversations(stage: Stage) -> None:
    with talks(stage) as client:
        assert act(client, "/conversations/2/release")["done"]
        assert stage.json("conversations", "show", "2")["conversation"]["state"] == "active"
        for verb, target in (("pause", "2"), ("resume", "2"), ("takeover", "p2"), ("release", "p2"), ("stop", "2")):
            theirs = act(client, f"/conversations/3/{verb}")
            ours = stage.json("conversations", verb, "trial:app", target)
            assert ours == {**theirs, "text": theirs["text"].replace("3", "2")}
        theirs, ours = act(client, "/conversations/3/restart"), stage.json("conversations", "restart", "trial:app", "2")
        assert [re.sub(r"\d+", "N", one["text"]) for one in (theirs, ours)] == [
            "Conversation N has ended; N begins anew with the same person."
        ] * 2
