"""Several connections and processes on one database; callers' own transactions; opening and closing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from oncue.errors import InvalidJob, OnCueError
from oncue.store import Store, open_store
from oncue.store.steps import manage
from oncue.store.steps.insert import insert_jobs
from tests.databases import Backend
from tests.store.kit import Bench, HandClock, S, job

ROOT = Path(__file__).parents[2]
CLAIMER = """
import asyncio, socket, sys
from oncue.store import open_store
from tests.store.kit import Bench, HandClock

async def main(url, name, hold):
    store = open_store(url, HandClock())
    await store.open()
    bench = Bench(store, HandClock())
    worker = await bench.worker(name, host=socket.gethostname())
    print("ready", flush=True)
    sys.stdin.readline()
    while jobs := await bench.claim(worker, count=7):
        print("took", *[one.id for one in jobs], flush=True)
        if hold:
            sys.stdin.readline()
        await bench.ask(worker, [bench.ack(one) for one in jobs], count=0)
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] == "hold"))
"""
ADDER = """
import asyncio, sys
from oncue.store import open_store
from tests.store.kit import HandClock, job

async def main(url, name):
    store = open_store(url, HandClock())
    await store.open()
    for n in range(40):
        await store.insert_many([job(key=f"k{n}"), job(metadata='{"by": "%s"}' % name)])
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@contextmanager
def process(script: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", script, *args]
    made = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with made:
        try:
            yield made
        finally:
            made.kill()


def line(one: subprocess.Popen[str]) -> list[str]:
    assert one.stdout is not None
    return one.stdout.readline().split()


def go(one: subprocess.Popen[str]) -> None:
    assert one.stdin is not None
    one.stdin.write("go\n")
    one.stdin.flush()


async def test_what_one_connection_stores_another_claims(bench: Bench, opened: Callable[[], Awaitable[Store]]) -> None:
    other = Bench(await opened(), bench.clock)
    worker = await other.worker()
    (id,) = await bench.add(job(key="k"))
    assert (await other.put(job(key="k"))).id == id
    (got,) = await other.claim(worker)
    await other.done(worker, got)
    assert await bench.state(id) == "completed"
    other.lives[worker].release()


async def test_a_store_notices_the_writes_of_others(
    bench: Bench, backend: Backend, opened: Callable[[], Awaitable[Store]]
) -> None:
    other = await opened()
    await other.changed_elsewhere()
    await other.insert(job())
    # A server doesn't tell what others wrote: there everybody looks who is asked to.
    assert await other.changed_elsewhere() is not backend.is_sqlite
    await bench.put(job())
    assert await other.changed_elsewhere()
    assert await other.changed_elsewhere() is not backend.is_sqlite


async def test_a_ping_is_noticed_by_others(bench: Bench, opened: Callable[[], Awaitable[Store]]) -> None:
    other = await opened()
    await other.changed_elsewhere()
    for _ in range(3):
        await asyncio.to_thread(bench.store.ping_sync)
        assert await other.changed_elsewhere()


async def test_processes_that_claim_at_once_share_the_jobs(bench: Bench, backend: Backend) -> None:
    ids = await bench.add(*[job(group=f"g{n % 50}") for n in range(300)])
    with process(CLAIMER, backend.url, "a", "") as first, process(CLAIMER, backend.url, "b", "") as second:
        took: list[list[str]] = [[], []]
        readers = []
        for one, mine in ((first, took[0]), (second, took[1])):
            assert line(one) == ["ready"]
            readers.append(threading.Thread(target=lambda one=one, mine=mine: mine.extend(one.stdout or [])))
        for thread, one in zip(readers, (first, second), strict=True):
            thread.start()
            go(one)
        for thread in readers:
            await asyncio.to_thread(thread.join)
    claimed = [int(id) for mine in took for text in mine for id in text.split()[1:]]
    assert len(claimed) == len(set(claimed))
    # A process ends when it finds nothing; a lane that the other one held may be left.
    worker = await bench.worker()
    while rest := await bench.claim(worker):
        claimed += [one.id for one in rest]
        await bench.ask(worker, [bench.ack(one) for one in rest], count=0)
    assert sorted(claimed) == ids
    assert (await bench.store.counts(bench.now)).completed == 300


async def test_processes_that_add_at_once_agree_on_keys(bench: Bench, backend: Backend) -> None:
    with process(ADDER, backend.url, "a") as first, process(ADDER, backend.url, "b") as second:
        assert await asyncio.to_thread(first.wait) == 0
        assert await asyncio.to_thread(second.wait) == 0
    jobs = await bench.store.list_jobs(limit=500)
    keyed = [one for one in jobs if one.key is not None]
    assert len({one.id for one in jobs}) == len(jobs) == 120
    assert sorted(one.key for one in keyed if one.key) == sorted(f"k{n}" for n in range(40))
    assert all(one.folded == 1 for one in keyed)


async def test_the_death_of_a_process_is_proved_and_its_jobs_come_back_at_once(bench: Bench, backend: Backend) -> None:
    (id,) = await bench.add(job())
    with process(CLAIMER, backend.url, "victim", "hold") as victim:
        assert line(victim) == ["ready"]
        go(victim)
        assert line(victim) == ["took", str(id)]
        assert await bench.store.rescue(bench.now, None) == [], "it lives"
        assert await bench.store.proved_dead() == set()
        victim.kill()
        victim.wait()
    (row,) = await bench.store.workers()
    assert await bench.store.proved_dead() == {row.id}
    ((got, ack),) = await bench.store.rescue(bench.now, None)
    assert (got.id, ack.outcome) == (id, "rescued")
    assert "died" in (ack.reason or "")
    assert await bench.ids(await bench.worker()) == [id]


async def test_many_callers_share_commits_and_each_gets_its_own_answer(bench: Bench) -> None:
    before = bench.store.writes
    found = await asyncio.gather(*[bench.put(job(key=f"k{n % 250}")) for n in range(500)])
    assert [one.status for one in found].count("created") == 250
    assert len({one.id for one in found}) == 250
    for n in range(250):
        assert {found[n].id} == {found[n + 250].id}
    assert bench.store.writes - before < 250


async def test_one_bad_batch_fails_alone(bench: Bench) -> None:
    """Callers that happen to share a commit share nothing else."""
    calls = [bench.store.insert_many([job(), job(priority=1000 if n == 1 else 0)]) for n in range(3)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(one, Exception) for one in found] == [False, True, False]
    assert len(await bench.store.list_jobs(limit=9)) == 4


async def test_a_batch_is_stored_whole_or_not_at_all(bench: Bench) -> None:
    with pytest.raises(Exception, match=r"priority|CHECK"):
        await bench.store.insert_many([job(), job(key="k"), job(priority=1000)])
    assert await bench.store.list_jobs(limit=9) == []
    assert await bench.store.insert_many([]) == []


async def test_the_callers_transaction_decides(bench: Bench, backend: Backend) -> None:
    store = bench.store
    (kept,) = await bench.add(job(60, key="old"))
    with backend.connect() as conn:
        store.within_sync(conn, lambda: insert_jobs([job(key="k")]), bench.now)
        cancelled = store.within_sync(conn, lambda: manage.cancel(bench.now, None, id=None, key="old"), bench.now)
        assert cancelled == "prevented"
        conn.rollback()
        assert [one.id for one in await store.list_jobs(limit=9)] == [kept]
        store.within_sync(conn, lambda: insert_jobs([job(key="k")]), bench.now)
        assert store.within_sync(conn, lambda: manage.reschedule(bench.now, id=None, key="old"), bench.now)
        assert len(await store.list_jobs(limit=9)) == 1, "not before the commit"
        conn.commit()
    assert sorted(one.key or "" for one in await store.list_jobs(limit=9)) == ["k", "old"]
    assert (await bench.get(kept)).scheduled_at == bench.now


async def test_an_error_in_the_callers_transaction_takes_back_only_itself(bench: Bench, backend: Backend) -> None:
    with backend.connect() as conn:
        bench.store.within_sync(conn, lambda: insert_jobs([job(key="good")]), bench.now)
        with pytest.raises(Exception, match=r"priority|CHECK"):
            bench.store.within_sync(conn, lambda: insert_jobs([job(key="bad"), job(priority=1000)]), bench.now)
        conn.commit()
    assert [one.key for one in await bench.store.list_jobs(limit=9)] == ["good"]


async def test_what_is_no_connection_to_this_database_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(InvalidJob, match="connection="):
        bench.store.within_sync(object(), lambda: insert_jobs([job()]), bench.now)


async def test_synchronous_calls_from_many_threads(bench: Bench) -> None:
    def add(n: int) -> None:
        for m in range(20):
            jobs = [job(key=f"k{n}-{m}"), job()]
            bench.store.within_sync(None, partial(insert_jobs, jobs), bench.now)

    await asyncio.gather(*[asyncio.to_thread(add, n) for n in range(5)])
    assert len(await bench.store.list_jobs(limit=500)) == 200


async def test_opening_twice_is_opening_once_and_a_closed_store_says_so(backend: Backend, clock: HandClock) -> None:
    store = open_store(backend.url, clock)
    with pytest.raises(OnCueError, match="not open"):
        await store.insert(job())
    await store.open()
    await store.open()
    await store.insert(job())
    await store.close()
    await store.close()
    with pytest.raises(OnCueError, match="not open"):
        await store.insert(job())
    await store.open()
    assert len(await store.list_jobs(limit=9)) == 1
    await store.close()


async def test_what_was_handed_in_before_the_close_is_stored(backend: Backend, clock: HandClock) -> None:
    store = open_store(backend.url, clock)
    await store.open()
    calls = [asyncio.create_task(store.insert(job(n))) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert len({one.id for one in await asyncio.gather(*calls)}) == 50
    await store.open()
    assert len(await store.list_jobs(limit=99)) == 50
    assert (await store.counts(clock.now())).next_due == clock.now()
    assert (await store.list_jobs(limit=1))[0].scheduled_at == clock.now() + 49 * S
    await store.close()
