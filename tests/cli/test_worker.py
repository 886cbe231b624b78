"""``oncue worker`` and ``oncue serve`` as real processes."""

from __future__ import annotations

import re
import signal
import socket

import httpx
import pytest

from tests.cli.conftest import Start
from tests.cli.stage import SECRET, Stage


async def test_a_worker_runs_what_another_process_schedules_and_gives_back_what_runs_at_sigterm(
    stage: Stage, start: Start
) -> None:
    worker = start("worker", "trial:app", "--grace", "0.1", "--name", "w-1")
    ready = worker.says("ready")
    assert ready == f"oncue: worker w-1 ready, database {stage.database}, 4 tasks, 1 schedule"
    names = stage.load()
    async with names["app"] as app:
        greeting = await app.schedule(names["greet"].call("Ana"))
        assert await greeting.result(timeout=60) == "hello Ana"
        hanging = await app.schedule(names["hang"].call())
        worker.says("hanging")
        assert [(one.name, one.state) for one in await app.jobs.workers()] == [("w-1", "alive")]
        assert worker.ends(signal.SIGTERM) == 0
        back = await app.jobs.get(hanging.id)
        assert back is not None
        assert back.state == "scheduled"
        assert [one.outcome for one in await app.jobs.attempts(hanging.id)] == ["released"]
        assert await app.jobs.workers() == []
    assert sum("ready" in line for line in worker.said) == 1


async def test_a_second_signal_ends_the_worker_at_once(stage: Stage, start: Start) -> None:
    worker = start("worker", "trial:app", "--grace", "3600")
    worker.says("ready")
    names = stage.load()
    async with names["app"] as app:
        await app.schedule(names["hang"].call())
        worker.says("hanging")
    worker.process.send_signal(signal.SIGINT)
    worker.says("SIGINT: stopping")
    assert worker.ends(signal.SIGTERM) == 128 + signal.SIGTERM


async def test_a_worker_of_one_queue_leaves_the_others_alone(stage: Stage, start: Start) -> None:
    names = stage.load()
    async with names["app"] as app:
        other = await app.schedule(names["greet"].call("Bo"))
        mine = await app.schedule(names["greet"].call("Cy"), queue="fast")
        start("worker", "trial:app", "--queues", "fast, faster").says("ready")
        assert await mine.result(timeout=60) == "hello Cy"
        assert [one.queues for one in await app.jobs.workers()] == [["fast", "faster"]]
        left = await app.jobs.get(other.id)
        assert left is not None
        assert left.state == "scheduled"


@pytest.mark.parametrize(
    ("own", "then"), [("", 10_000), ("gc.set_threshold(0)", 0), ("gc.set_threshold(20_000)", 20_000)]
)
async def test_a_worker_looks_for_garbage_less_often_unless_the_application_says_when(
    stage: Stage, start: Start, own: str, then: int
) -> None:
    task = "@app.task(name='garbage')\nasync def garbage() -> int:\n    return gc.get_threshold()[0]\n"
    source = f"import gc\nfrom oncue import OnCue\n{own}\napp = OnCue()\n{task}"
    (stage.folder / "tidy.py").write_text(source)
    start("worker", "tidy:app").says("ready")
    app = stage.app()

    @app.task(name="garbage")
    async def garbage() -> int:
        return -1

    async with app:
        assert await (await app.schedule(garbage.call())).result(timeout=60) == then


def test_the_log_is_readable_unless_the_application_set_one_up(stage: Stage, start: Start) -> None:
    worker = start("worker", "trial:app")
    assert re.search(r"^\d{4}-\d\d-\d\d .* INFO +oncue\.planner: schedule nightly added", worker.says("nightly"))
    trial = stage.folder / "trial.py"
    trial.write_text("import logging; logging.basicConfig(format='mine: %(message)s', level=20)\n" + trial.read_text())
    assert worker.ends(signal.SIGTERM) == 0
    stage.database.unlink()
    assert start("worker", "trial:app").says("nightly").startswith("mine: schedule nightly")


def test_a_database_that_cannot_be_used_is_one_line(stage: Stage) -> None:
    stage.database.write_text("this is no database, though it is long enough to be taken for one: " * 20)
    for command in (("worker", "trial:app"), ("serve", "trial:app", "--port", "0")):
        done = stage.apart(*command)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ")
        assert str(stage.database) in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        *(["--queues", queues] for queues in (" , ", "mail=", "mail=x", "=3", "mail=0", "mail=-1,a", "mail=nan")),
        ["--concurrency", "0"],
        ["--lease", "0"],
        ["--grace", "-1"],
    ],
)
def test_a_wrong_option_is_a_usage_error(stage: Stage, wrong: list[str]) -> None:
    done = stage.here("worker", "trial:app", *wrong)
    assert done.exit_code == 2
    assert wrong[0] in done.stderr


def address(line: str) -> str:
    found = re.search(r"serving (http://\S+)$", line)
    assert found is not None, line
    return found[1]


async def test_serve_answers_and_works_in_one_process_and_stops_at_sigterm(stage: Stage, start: Start) -> None:
    served = start("serve", "trial:app", "--port", "0", "--name", "s-1", "--grace", "0.1", CRON_SECRET=SECRET)
    ready = served.says("ready")
    assert ready.startswith(f"oncue: worker s-1 ready, database {stage.database}, 4 tasks, 1 schedule, serving ")
    names = stage.load()
    async with httpx.AsyncClient(base_url=address(ready), trust_env=False) as client, names["app"] as app:
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.post("/api/cron/process-scheduled")).status_code == 401
        answer = await client.post("/api/cron/process-scheduled", headers={"Authorization": f"Bearer {SECRET}"})
        assert answer.json()["success"] is True
        greeting = await app.schedule(names["greet"].call("Di"))
        assert await greeting.result(timeout=60) == "hello Di"
        hanging = await app.schedule(names["hang"].call())
        served.says("hanging")
        assert served.ends(signal.SIGTERM) == 0
        back = await app.jobs.get(hanging.id)
        assert back is not None
        assert back.state == "scheduled"
        assert await app.jobs.workers() == []


async def test_serve_without_a_worker_runs_jobs_when_it_is_called(stage: Stage, start: Start) -> None:
    served = start("serve", "trial:app", "--port", "0", "--no-worker", CRON_SECRET=SECRET)
    ready = served.says("ready")
    assert ready.startswith("oncue: ready without a worker, ")
    names = stage.load()
    async with names["app"] as app:
        greeting = await app.schedule(names["greet"].call("Ed"))
        headers = {"Authorization": f"Bearer {SECRET}"}
        async with httpx.AsyncClient(base_url=address(ready), headers=headers, trust_env=False, timeout=60) as client:
            assert (await client.get("/api/cron/process-scheduled")).json()["ran"] == 1
        assert await greeting.result(timeout=1) == "hello Ed"
        assert await app.jobs.workers() == []
    assert served.ends(signal.SIGINT) == 0


def test_serve_on_a_taken_port_says_so(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = stage.apart("serve", "trial:app", "--port", str(port))
    assert done.returncode == 1
    assert f"Can't listen on 127.0.0.1:{port}" in done.stderr
    assert not stage.database.exists()


def test_serve_with_a_secret_that_is_too_short_says_so(stage: Stage) -> None:
    done = stage.apart("serve", "trial:app", "--port", "0", CRON_SECRET="short")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: CRON_SECRET has 5 characters")


def test_serve_ends_without_waiting_for_an_open_page(start: Start) -> None:
    served = start("serve", "trial:app", "--port", "0", "--grace", "600")
    url = address(served.says("ready"))
    with httpx.stream("GET", f"{url}/api/events", trust_env=False, timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": welcome"
        served.process.send_signal(signal.SIGTERM)
        # It comes to its end by itself, long before the grace does.
        assert list(lines)
    _, rest = served.process.communicate()
    assert served.process.returncode == 0
    assert "Traceback" not in rest
