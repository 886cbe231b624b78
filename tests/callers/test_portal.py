"""``app.sync`` without a connection: from any thread and process, whether or not the application is open."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oncue import OnCue
from oncue.errors import StoreUnavailable
from tests import pg
from tests.callers.conftest import Ear, make_app

ROOT = Path(__file__).parents[2]


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "oncue-sync"]


async def test_it_is_durable_and_heard_while_the_application_is_open(app: OnCue, ear: Ear) -> None:
    call = app.tasks["work"].call("a")
    first = app.sync.schedule(call, delay=60, key="k")
    assert len(await ear.heard()) == 1
    assert [job.id for job in await app.jobs.list()] == [first.id]
    assert app.sync.schedule(call, key="k").status == "kept"
    assert app.sync.reschedule(key="k", delay=3600)
    assert app.sync.cancel(key="k") == "prevented"
    assert [job.state for job in await app.jobs.list()] == ["cancelled"]
    await ear.heard()
    app.store.ping_sync()
    assert await ear.heard() == [""]
    app.sync.schedule(call, delay=3600)
    assert await ear.heard() == [], "the sweep announces what is far off"


async def test_many_threads_use_one_loop(app: OnCue) -> None:
    before = len(_threads())

    def add(number: int) -> None:
        for one in range(10):
            app.sync.schedule(app.tasks["work"].call(), key=f"{number}-{one}", delay=3600)

    with ThreadPoolExecutor(8) as pool:
        await asyncio.gather(*[asyncio.get_running_loop().run_in_executor(pool, add, number) for number in range(8)])
    assert len(_threads()) == before + 1
    assert len(await app.jobs.list(limit=500)) == 80


async def test_never_opened_it_makes_the_tables_first(pg_database: pg.Database) -> None:
    app = make_app(pg_database.dsn)
    made = await asyncio.to_thread(app.sync.schedule, app.tasks["work"].call(), delay=3600)
    async with app:
        assert [job.id for job in await app.jobs.list()] == [made.id]
        app.sync.schedule(app.tasks["work"].call(), delay=3600)
    # Closed, it starts anew.
    app.sync.schedule(app.tasks["work"].call(), delay=3600)
    async with app:
        assert len(await app.jobs.list()) == 3


async def test_dropped_it_ends(url: str) -> None:
    before = set(_threads())
    app = make_app(url)
    app.sync.schedule(app.tasks["work"].call(), delay=3600)
    (thread,) = set(_threads()) - before
    del app
    gc.collect()
    await asyncio.to_thread(thread.join, 30)
    assert not thread.is_alive()


def test_a_server_that_is_away_is_said_to_be_so() -> None:
    app = OnCue("postgresql://nobody@127.0.0.1:1/none", busy_timeout=0.1)

    @app.task(name="work")
    async def work() -> None: ...

    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/none can't be reached"):
            app.sync.schedule(work.call())


PROGRAM = """
import atexit, os, sys, threading
from oncue import OnCue

app = OnCue(sys.argv[1])

@app.task(name="work")
async def work(token: str = "") -> None: ...

def add(token):
    app.sync.schedule(work.call(token), key=token, delay=3600)

"""

FORK = """
add("before")
child = os.fork()
if not child:
    add("child")
    app.sync.cancel(key="before")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
add("parent")
"""

UNUSED_AT_EXIT = "atexit.register(add, 'at exit')\n"
USED_AT_EXIT = "add('used')\natexit.register(add, 'at exit')\n"
THREAD_AT_EXIT = "threading.Timer(0.2, add, ['thread']).start()\n"


@pytest.mark.parametrize(
    ("program", "keys"),
    [
        (FORK, {"before", "child", "parent"}),
        (UNUSED_AT_EXIT, {"at exit"}),
        (USED_AT_EXIT, {"used", "at exit"}),
        (THREAD_AT_EXIT, {"thread"}),
    ],
    ids=["fork", "unused-at-exit", "used-at-exit", "thread-at-exit"],
)
async def test_in_a_process_that_forks_or_ends(app: OnCue, url: str, program: str, keys: set[str]) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", PROGRAM + program, url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {job.key for job in await app.jobs.list()} == keys
