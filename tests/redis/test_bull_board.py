"""Bull Board pointed at the same Redis shows what is announced, and whatever is done there, the rows decide."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

from tests.nodejs import Node
from tests.redis.conftest import Make
from tests.valkey import Server


def ask(port: str, path: str, method: str = "GET") -> Any:
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", method=method)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        said = answer.read().decode()
    return json.loads(said) if "json" in (answer.headers["Content-Type"] or "") else said


async def test_announced_jobs_show_as_delayed_and_promoting_or_removing_one_changes_nothing(
    make: Make, server: Server, node: Node
) -> None:
    stage = make()
    async with stage.app.worker():
        await stage.until_healthy()
        handles = [await stage.app.schedule(stage.note.call(n), delay=60) for n in range(3)]
        await stage.until(lambda: stage.wake.stats.announced == 3)
        with node.start("board.mjs", "oncue", env={"REDIS_URL": server.url}) as board:
            port = await asyncio.to_thread(board.expect, "listening")
            page = await asyncio.to_thread(ask, port, "")
            found = await asyncio.to_thread(ask, port, "api/queues?activeQueue=oncue&status=delayed")
            (queue,) = found["queues"]
            first, promoted, removed = sorted(queue["jobs"], key=lambda one: int(one["data"]["id"]))
            for job, what in ((promoted, "promote"), (removed, "clean")):
                await asyncio.to_thread(ask, port, f"api/queues/oncue/{job['id']}/{what}", "PUT")
            await stage.until(lambda: stage.wake.stats.delivered == 1)
            assert not stage.ran
        for handle in handles:
            await stage.app.reschedule(id=handle.id, delay=0)
        await stage.once_each(3)
    assert "Bull" in page
    assert queue["name"] == "oncue"
    assert queue["counts"]["delayed"] == 3
    assert [one["name"] for one in (first, promoted, removed)] == [f"job {handle.id}" for handle in handles]
    due = int(handles[0].scheduled_at.timestamp() * 1000)
    assert abs(first["timestamp"] + first["delay"] - due) < 1000
