"""Drains beside workers, dead ones and each other: each job runs once, and resources are shared."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oncue import JobContext, OnCue, Scheduled


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


async def test_two_drains_at_once_run_each_job_once_and_keep_groups_in_order(url: str) -> None:
    ran: list[tuple[str, int]] = []
    inside: dict[str, int] = {}

    def build() -> OnCue:
        app = OnCue(url)

        @app.task(name="step")
        async def step(group: str, n: int) -> None:
            inside[group] = inside.get(group, 0) + 1
            assert inside[group] == 1, "two jobs of a group at once"
            await asyncio.sleep(0)
            ran.append((group, n))
            inside[group] -= 1

        return app

    one, two = build(), build()
    step = one.tasks["step"]
    async with one, two:
        await one.schedule_many(
            [Scheduled(step.call(f"g{g}", n), group=f"g{g}", key=f"{g}-{n}") for n in range(6) for g in range(8)]
        )
        drained = await asyncio.gather(one.drain(), two.drain(), one.drain())
        counts = await one.jobs.counts()
    assert sum(d.ran for d in drained) == 48
    assert sum(d.failed for d in drained) == 0
    assert len(ran) == len(set(ran)) == 48
    assert (counts.completed, counts.due, counts.running) == (48, 0, 0)
    for group in inside:
        assert [n for name, n in ran if name == group] == list(range(6))


async def test_a_drain_works_beside_a_running_worker(url: str) -> None:
    app, ran, gate = OnCue(url), [], asyncio.Event()

    @app.task(name="hold")
    async def hold() -> None:
        await gate.wait()

    @app.task(name="note")
    async def note(n: int) -> None:
        ran.append(n)

    async with app.worker():
        held = await app.schedule(hold.call(), group="g")
        handles = await app.schedule_many([note.call(n) for n in range(50)])
        behind = await app.schedule(note.call(99), group="g")
        done = await app.drain(seconds=60)
        await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
        assert 99 not in ran, "a drain must not overtake a group's running job"
        assert done.ran <= 50
        gate.set()
        await held.result(timeout=60)
        await behind.result(timeout=60)
    assert sorted(ran) == [*range(50), 99]


async def test_a_dead_workers_jobs_are_run_by_the_next_drain(url: str, tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text(
        "import asyncio, os\n"
        "from oncue import OnCue\n"
        f"app = OnCue({url!r})\n"
        "@app.task(name='fragile')\n"
        "async def fragile() -> None:\n"
        "    os.kill(os.getpid(), 9)\n"
        "async def main():\n"
        "    async with app:\n"
        "        await app.schedule(fragile.call())\n"
        "        await app.drain()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.to_thread(lambda: subprocess.run([sys.executable, script], check=False))
    assert process.returncode == -9
    app, attempts = OnCue(url), []

    @app.task(name="fragile")
    async def fragile(ctx: JobContext) -> None:
        attempts.append(ctx.attempt)

    done = await app.drain()
    assert attempts == [2]
    assert (done.ran, done.failed, done.remaining) == (1, 0, 0)


async def test_resources_are_shared_with_the_worker_of_the_process_and_closed_after_the_last(url: str) -> None:
    app, events = OnCue(url), []

    class Client: ...

    async def client() -> AsyncIterator[Client]:
        events.append("open")
        yield Client()
        events.append("close")

    client.__annotations__["return"] = AsyncIterator[Client]
    app.provide(client)
    app.on_start(lambda: events.append("start"))
    app.on_stop(lambda: events.append("stop"))
    seen = set()

    @app.task(name="use")
    async def use(ctx: JobContext) -> None:
        seen.add(ctx.resource(Client))

    async with app.worker():
        await (await app.schedule(use.call())).result(timeout=60)
        await app.schedule(use.call())
        await asyncio.gather(app.drain(), app.drain())
        assert events == ["open", "start"]
    assert events == ["open", "start", "stop", "close"]
    assert len(seen) == 1
    await app.drain()
    assert events == ["open", "start", "stop", "close"] * 2


async def test_a_provider_that_fails_fails_the_drain_and_the_next_one_tries_again(url: str) -> None:
    app, broken = OnCue(url), [True]

    class Client: ...

    async def client() -> AsyncIterator[Client]:
        if broken[0]:
            raise RuntimeError("no route")
        yield Client()

    client.__annotations__["return"] = AsyncIterator[Client]
    app.provide(client)
    with pytest.raises(RuntimeError, match="no route"):
        await app.drain()
    broken[0] = False
    assert (await app.drain()).ran == 0


async def test_many_openers_at_once_share_one_opening(url: str) -> None:
    app = OnCue(url)

    @app.task(name="note")
    async def note() -> None: ...

    async def once() -> str:
        async with app:
            return (await app.schedule(note.call())).status

    assert await asyncio.gather(*(once() for _ in range(20))) == ["created"] * 20
    assert (await app.drain()).ran == 20
