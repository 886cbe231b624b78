"""What a type checker says of calls: a wrong argument is an error, a right one is none, the context is no argument."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
CODE = """
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from oncue import JobContext, OnCue, Retry, Scheduled

app = OnCue("sqlite:///x.db")


@app.task(retry=Retry(3), timeout=30)
async def send(trial_id: str, number: int = 1) -> int:
    return number


@app.task()
async def with_context(ctx: JobContext, trial_id: str) -> str:
    return trial_id


@app.task()
def in_a_thread(ctx: JobContext, *, size: float) -> None: ...


@app.task()
def plain(names: list[str]) -> bool:
    return True


@app.every(timedelta(minutes=5))
async def tick() -> None: ...


@app.provide
async def client() -> AsyncIterator[dict[str, int]]:
    yield {}


async def right(ctx: JobContext) -> None:
    handle = await app.schedule(send.call("t-1", number=2), delay=2, key="k", group="g")
    number: int = await handle.result()
    text: str = await (await app.schedule(with_context.call("t-1"), at=datetime.now())).result(timeout=5)
    truth: bool = await app.sync.schedule(plain.call(["a"])).result()
    await app.schedule_many([Scheduled(in_a_thread.call(size=1.5), delay=1), tick.call()])
    await app.schedule(in_a_thread.call(size=1), on_conflict="debounce", key="k")
    found: dict[str, int] = ctx.resource(dict[str, int])
    await app.reschedule(key="k", delay=timedelta(hours=1))
    print(number, text, truth, found)


async def wrong() -> None:
    send.call(1)  # E: arg-type
    send.call()  # E: call-arg
    send.call("t-1", "two")  # E: arg-type
    send.call("t-1", colour="red")  # E: call-arg
    with_context.call()  # E: call-arg
    with_context.call(7)  # E: arg-type
    in_a_thread.call(1.5)  # E: call-arg
    in_a_thread.call(size="large")  # E: arg-type
    plain.call([1])  # E: list-item
    tick.call(1)  # E: call-arg
    await app.schedule(send.call("t-1"), on_conflict="merge")  # E: arg-type
    await app.schedule(send.call("t-1"), delay="soon")  # E: arg-type
    await app.schedule(send.call("t-1"), at="tomorrow")  # E: arg-type
    text: str = await (await app.schedule(send.call("t-1"))).result()  # E: assignment
    app.task(when_late="never")  # E: arg-type
    print(text)


asyncio.run(wrong())
"""


def test_calls_are_checked_against_the_tasks_signature(tmp_path: Path) -> None:
    path = tmp_path / "user.py"
    path.write_text(CODE)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", "--no-pretty"]
    done = subprocess.run(
        [*command, "--cache-dir", str(tmp_path / "cache"), str(path)],
        cwd=tmp_path,
        env={"MYPYPATH": str(SRC), "PATH": ""},
        capture_output=True,
        text=True,
    )
    found: dict[int, set[str]] = {}
    for line in done.stdout.splitlines():
        if told := re.match(r"user\.py:(\d+): error: .*\[([a-z-]+)\]$", line.removeprefix(str(tmp_path) + "/")):
            found.setdefault(int(told[1]), set()).add(told[2])
    wanted = {
        number: line.partition("# E: ")[2].split(", ")
        for number, line in enumerate(CODE.splitlines(), 1)
        if "# E: " in line
    }
    assert {n: sorted(codes) for n, codes in found.items()} == wanted, done.stdout + done.stderr
