"""What the doctor says of queues that jobs are handed to, and what is counted for metrics."""

from __future__ import annotations

import asyncio
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from oncue import OnCue, errors
from oncue.bridge.examine import node_checks
from oncue.operate import Operator
from tests.databases import Backend
from tests.handoff.stage import PAIRS, QUEUE, Stage
from tests.pgprocess import free_port

on_one = pytest.mark.parametrize(("backend", "redis_url"), PAIRS[:1], indirect=True)
APP = """\
from oncue import OnCue
app = OnCue("sqlite:///jobs.db")

@app.adopt("theirs", redis={redis!r})
def choose(job):
    return None

@app.node_task("images", redis={redis!r})
async def resize(image: str) -> None: ...
"""


@on_one
async def test_who_listens_and_what_waits_is_told(stage: Stage, redis_url: str) -> None:
    async with stage.worker():
        (check,) = await node_checks(stage.app)
        assert (check.level, check.found) == ("warn", "no worker in Node listens; 0 jobs wait, 0 run")
        handle = await stage.resize("cat")
        with redis.Redis.from_url(redis_url) as link:
            while not link.llen(f"bull:{QUEUE}:wait"):
                await stage.job(handle)
            (check,) = await node_checks(stage.app)
            assert (check.level, check.found) == ("FAIL", "no worker in Node listens; 1 job waits, 0 run")
            async with stage.node():
                await handle.result(timeout=20)
                (check,) = await node_checks(stage.app)
                assert (check.level, check.found) == ("ok", "1 worker in Node; 0 jobs wait, 0 run")
                with pytest.raises(errors.JobFailed):
                    await (await stage.resize("hopeless")).result(timeout=20)
            link.hset(f"bull:{QUEUE}:meta", "paused", 1)
        (check,) = await node_checks(stage.app)
        assert (check.level, "it is paused in BullMQ" in check.found) == ("warn", True)
    (target,) = stage.app.node_targets
    assert (target.counts.added, target.counts.completed, target.counts.failed) == (2, 1, 1)


async def test_a_redis_that_is_down_or_unknown_is_a_failure(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    app = OnCue(backend.url)

    @app.node_task("here", redis=f"redis://:hidden-word@127.0.0.1:{free_port()}")
    async def one() -> None: ...

    @app.node_task("nowhere")
    async def other() -> None: ...

    down, unknown = await node_checks(app)
    assert (down.level, unknown.level) == ("FAIL", "FAIL")
    assert "no job can be handed over" in down.found
    assert "No Redis is known" in unknown.found
    assert "hidden-word" not in str(down)


@on_one
async def test_without_the_right_to_ask_who_listens_that_is_said(stage: Stage, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as link:
        link.execute_command("ACL", "SETUSER", "least", "on", ">word", "~*", "&*", "+@all", "-client|list")
        try:
            app = OnCue(stage.app.url)
            app.node_task("images", redis=redis_url.replace("//", "//least:word@"))(_resize)
            (check,) = await node_checks(app)
        finally:
            link.execute_command("ACL", "DELUSER", "least")
    assert check.level == "ok"
    assert "can't be told without the right to CLIENT LIST" in check.found


async def _resize(image: str) -> None: ...


@pytest.mark.parametrize("redis_url", [PAIRS[0][1]], indirect=True)
async def test_the_command_and_the_api_say_both(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trial.py").write_text(APP.format(redis=redis_url))
    command = [sys.executable, "-m", "oncue"]
    await asyncio.to_thread(subprocess.run, [*command, "migrate", "--database", "sqlite:///jobs.db"], check=True)
    asked = [*command, "doctor", "--json", "trial:app"]
    done = await asyncio.to_thread(subprocess.run, asked, capture_output=True, text=True)
    assert done.stdout, done.stderr
    found = {one["name"]: one["state"] for one in json.loads(done.stdout)["checks"]}
    assert (found["adoption of theirs"], found["node queue images"]) == ("ok", "warn")
    app = runpy.run_path(str(tmp_path / "trial.py"))["app"]
    async with app:
        told = {one.name: one.state for one in await Operator(app, "cli:test").checks()}
    assert (told["adoption of theirs"], told["node queue images"]) == ("ok", "warn")
