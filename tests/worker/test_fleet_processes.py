"""Workers as real processes on one database: versions side by side, pauses, clean ends and killed ones.

No worker sweeps, and each looks by itself only once a minute: what is seen within ``SOON`` was told or taken at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from oncue import OnCue
from oncue.handle import JobHandle
from oncue.store.views import AttemptView
from tests.cli.stage import COMMAND, Running
from tests.databases import NEWEST, USUAL, Backend, database

SOON = 30.0
OLD = """
import asyncio, sys
from oncue import OnCue

app = OnCue(sweep=3600)

@app.task(name="where")
async def where() -> int:
    import os
    return os.getpid()

@app.task(name="hang")
async def hang() -> None:
    print("hanging", file=sys.stderr, flush=True)
    await asyncio.sleep(3600)

@app.task(name="once")
async def once(mark: str) -> int:
    import os
    try:
        open(mark, "x").close()
    except FileExistsError:
        return os.getpid()
    print("hanging", file=sys.stderr, flush=True)
    await asyncio.sleep(3600)
"""
NEW = (
    OLD
    + """
@app.task(name="newest")
async def newest() -> str:
    return "run"
"""
)


@pytest.fixture(params=USUAL)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with database(request.param, tmp_path) as made:
        yield made


class Fleet:
    """Starts ``oncue worker`` on one database, and schedules by name what its code declares."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.app = OnCue(url, sweep=3600)
        self.started: list[Running] = []
        self.environment = os.environ | {"DATABASE_URL": url, "ONCUE_LOCK_DIR": str(folder / "here")}
        (folder / "here").mkdir()
        (folder / "elsewhere").mkdir()
        (folder / "old.py").write_text(OLD)
        (folder / "new.py").write_text(NEW)
        declare: Any = self.app.task
        self._tasks = {name: declare(name=name)(_nothing) for name in ("where", "hang", "newest")}
        self._tasks["once"] = declare(name="once")(_marked)

    async def start(self, module: str, *options: str, elsewhere: bool = False) -> Running:
        environment = self.environment
        if elsewhere:
            environment = environment | {"ONCUE_LOCK_DIR": str(self.folder / "elsewhere")}
        one = Running(self.folder, environment, ["worker", f"{module}:app", *options])
        self.started.append(one)
        await asyncio.to_thread(one.says, "ready")
        return one

    async def schedule(self, task: str, *arguments: str, queue: str = "default") -> JobHandle[object]:
        return await self.app.schedule(self._tasks[task].call(*arguments), queue=queue)

    async def command(self, *arguments: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run,
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    async def attempts(self, id: int) -> list[AttemptView]:
        """Wait until the job has attempts that ended, and return them."""
        async with asyncio.timeout(SOON):
            while not (found := await self.app.jobs.attempts(id)):  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.02)
        return found


async def _nothing() -> object:
    return None


async def _marked(mark: str) -> object:
    return mark


@pytest.fixture
async def fleet(backend: Backend, tmp_path: Path) -> AsyncIterator[Fleet]:
    made = Fleet(tmp_path, backend.url)
    async with made.app:
        yield made
    for one in made.started:
        one.close()


async def state(fleet: Fleet, handle: JobHandle[object]) -> str:
    found = await fleet.app.jobs.get(handle.id)
    assert found is not None
    return found.state


async def test_a_task_that_only_the_new_version_knows_runs_as_soon_as_that_starts(fleet: Fleet) -> None:
    await fleet.start("old")
    waits = await fleet.schedule("newest")
    (line,) = await fleet.attempts(waits.id)
    assert (line.outcome, line.attempt) == ("released", 1)
    assert "no worker knows task 'newest'" in await fleet.command("jobs", "show", str(waits.id))
    await fleet.start("new")
    assert await waits.result(SOON) == "run"
    # Beside old workers that have met the task, and one that has yet to.
    await fleet.start("old")
    for _ in range(10):
        handle = await fleet.schedule("newest")
        assert await handle.result(SOON) == "run"
        released = [one.outcome for one in await fleet.app.jobs.attempts(handle.id)]
        assert released in ([], ["released"])


async def test_a_queue_is_paused_and_resumed_at_once_on_other_processes(fleet: Fleet) -> None:
    worker = await fleet.start("old")
    runs = await fleet.schedule("hang")
    await asyncio.to_thread(worker.says, "hanging")
    await fleet.command("queues", "pause", "default")
    held = await fleet.schedule("where")
    # The worker has looked since: it took this one.
    assert await (await fleet.schedule("where", queue="other")).result(SOON) == worker.process.pid
    assert (await state(fleet, held), await state(fleet, runs)) == ("scheduled", "running")
    (queue,) = [one for one in json.loads(await fleet.command("queues", "list", "--json")) if one["paused"]]
    assert queue["name"] == "default"
    assert queue["paused_at"] is not None
    await fleet.command("queues", "resume", "default")
    assert await held.result(SOON) == worker.process.pid
    assert await state(fleet, runs) == "running"


async def test_a_clean_shutdown_gives_jobs_back_at_once(fleet: Fleet) -> None:
    ending = await fleet.start("old", "--grace", "0.1", "--lease", "3600")
    handle = await fleet.schedule("once", str(fleet.folder / "mark"))
    await asyncio.to_thread(ending.says, "hanging")
    other = await fleet.start("old", "--lease", "3600")
    assert await asyncio.to_thread(ending.ends, signal.SIGTERM) == 0
    assert await handle.result(SOON) == other.process.pid
    assert [one.outcome for one in await fleet.app.jobs.attempts(handle.id)] == ["released"]


async def test_a_worker_restarted_on_the_host_takes_the_jobs_of_its_killed_predecessor_at_once(fleet: Fleet) -> None:
    killed = await fleet.start("old", "--lease", "3600")
    handle = await fleet.schedule("once", str(fleet.folder / "mark"))
    await asyncio.to_thread(killed.says, "hanging")
    killed.process.kill()
    killed.process.wait()
    assert '"dead"' in await fleet.command("workers", "--json")
    successor = await fleet.start("old", "--lease", "3600")
    assert await handle.result(SOON) == successor.process.pid
    (line,) = await fleet.app.jobs.attempts(handle.id)
    assert line.outcome == "rescued"
    assert "its process holds its lock no more" in (line.reason or "")


@pytest.mark.parametrize("backend", NEWEST, indirect=True)
async def test_elsewhere_the_jobs_of_a_killed_worker_are_taken_when_its_lease_is_over(fleet: Fleet) -> None:
    killed = await fleet.start("old", "--lease", "2")
    handle = await fleet.schedule("once", str(fleet.folder / "mark"))
    await asyncio.to_thread(killed.says, "hanging")
    other = await fleet.start("old", "--lease", "3600", elsewhere=True)
    killed.process.kill()
    killed.process.wait()
    assert await handle.result(SOON) == other.process.pid
    (line,) = await fleet.app.jobs.attempts(handle.id)
    assert line.outcome == "rescued"
    assert "let its lease end" in (line.reason or "")


async def test_workers_lists_who_is_alive_and_what_they_run(fleet: Fleet) -> None:
    one = await fleet.start("old", "--name", "one", "--queues", "mail=3, default", "--grace", "0.1")
    await fleet.start("new", "--name", "two", "--queues", "other")
    handle = await fleet.schedule("hang", queue="mail")
    await asyncio.to_thread(one.says, "hanging")
    first, second = json.loads(await fleet.command("workers", "--json"))
    assert (first["name"], first["state"], first["pid"]) == ("one", "alive", one.process.pid)
    assert (first["queues"], first["weights"]) == (["default", "mail"], {"default": 1, "mail": 3})
    (job,) = first["jobs"]
    assert (job["id"], job["task"]) == (handle.id, "hang")
    assert first["started_at"] < job["started_at"] < first["lease_until"]
    assert (second["name"], second["queues"], second["weights"], second["jobs"]) == ("two", ["other"], None, [])
    assert set(second["tasks"]) - set(first["tasks"]) == {"newest"}
    plain = await fleet.command("workers")
    assert "default=1, mail=3" in plain
    assert f"{handle.id} hang since {job['started_at']}" in plain
    assert await asyncio.to_thread(one.ends, signal.SIGTERM) == 0
    assert [worker["name"] for worker in json.loads(await fleet.command("workers", "--json"))] == ["two"]
