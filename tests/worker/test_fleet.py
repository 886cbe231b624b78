"""Workers share queues by weight, and leave tasks to others that their code lacks: on every store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from oncue import OnCue, Scheduled
from oncue.channel import channel_of, is_probe
from oncue.clock import SECOND
from oncue.service import Service
from oncue.store import Claim, Claims
from oncue.worker import WorkerOptions
from tests.databases import KINDS, POSTGRES, Backend, database
from tests.worker.conftest import get

EACH = 60


@pytest.fixture(params=KINDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def app(backend: Backend) -> OnCue:
    return OnCue(backend.url, sweep=3600)


class Rounds:
    """What a worker asked its store for and was given, round by round."""

    def __init__(self, app: OnCue) -> None:
        self.asked: list[Claim] = []
        self.got: list[list[tuple[str, int]]] = []
        """The queues and ids of the jobs that each round claimed."""
        self.done = asyncio.Event()
        self._claim, app.store.claim = app.store.claim, self._spy  # type: ignore[method-assign]

    async def _spy(self, request: Claim) -> Claims:
        found = await self._claim(request)
        self.asked.append(request)
        self.got.append([(job.queue, job.id) for job in found.jobs])
        self.done.set()
        return found


@pytest.mark.parametrize("with_key", [None, 2, 5], ids=["plain", "second", "fifth"])
@pytest.mark.parametrize("concurrency", [1, 7, 40])
async def test_a_saturated_worker_starts_jobs_of_its_queues_by_their_weights(
    app: OnCue, concurrency: int, with_key: int | None
) -> None:
    weights = {"mail": 3.0, "default": 1.0}
    all_ran = asyncio.Event()
    left = Counter(mail=EACH, default=EACH)

    @app.task()
    async def work(queue: str) -> None:
        left[queue] -= 1
        if not left.total():
            all_ran.set()

    async with app:
        rounds = Rounds(app)
        # The urgent ones are all in the queue that gets less: priority orders within a queue only.
        await app.schedule_many([Scheduled(work.call("default"), queue="default", priority=-10)] * EACH)
        await app.schedule_many(
            [
                Scheduled(work.call("mail"), queue="mail", key=f"k{n}" if with_key and n % with_key == 1 else None)
                for n in range(EACH)
            ]
        )
        async with app.worker(WorkerOptions(concurrency=concurrency, queues=weights)):
            await all_ran.wait()
    started, first = Counter[str](), set[tuple[str, int]]()
    for jobs in rounds.got:
        started.update(queue for queue, _ in jobs)
        # On a busy machine some are given back, and claimed once more.
        first.update(jobs)
        if max((used_up := Counter(queue for queue, _ in first)).values(), default=0) == EACH:
            break
        assert abs(started["mail"] / 3 - started["default"]) <= 1 / 3 + 1 + 1e-9
    else:
        raise AssertionError("no queue was ever used up")
    assert used_up["mail"] == EACH, "the queue with three shares out of four is used up first"


@pytest.mark.parametrize("queues", [None, {"mail", "default"}])
async def test_without_weights_priority_comes_before_queues(app: OnCue, queues: set[str] | None) -> None:
    order: list[str] = []
    all_ran = asyncio.Event()

    @app.task()
    async def work(name: str) -> None:
        order.append(name)
        if len(order) == 6:
            all_ran.set()

    async with app:
        await app.schedule_many([Scheduled(work.call("mail"), queue="mail")] * 3)
        await app.schedule_many([Scheduled(work.call("urgent"), queue="default", priority=-1)] * 3)
        async with app.worker(WorkerOptions(queues=queues)):
            await all_ran.wait()
    assert order == ["urgent"] * 3 + ["mail"] * 3


async def test_the_share_of_an_idle_queue_goes_to_the_others(app: OnCue) -> None:
    all_ran = asyncio.Event()
    left = Counter(default=EACH)

    @app.task()
    async def work() -> None:
        left["default"] -= 1
        if not left.total():
            all_ran.set()

    async with app:
        rounds = Rounds(app)
        await app.schedule_many([work.call()] * EACH)
        async with app.worker(WorkerOptions(concurrency=40, queues={"mail": 1000, "default": 0.001})):
            await all_ran.wait()
    first = [queue for queue, _ in next(jobs for jobs in rounds.got if jobs)]
    assert first == ["default"] * 40


async def settled(service: Service, rounds: Rounds, tasks: list[str]) -> None:
    """Wait until the worker leaves these tasks alone and has gone to sleep for long."""

    def asleep() -> bool:
        assert service.worker is not None
        leaves = bool(rounds.asked) and list(rounds.asked[-1].unknown) == tasks
        return leaves and (service.worker._armed or 0) > service.app.clock.now() + 30 * SECOND

    async with asyncio.timeout(30):
        while not asleep():
            rounds.done.clear()
            await rounds.done.wait()
            # The timer is armed after the answer came.
            await asyncio.sleep(0)


@pytest.mark.parametrize("bound", [{}, {"group": "g"}, {"key": "k"}])
async def test_an_old_worker_gives_an_unknown_task_back_once_and_does_not_ask_for_it_again(
    app: OnCue, backend: Backend, bound: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    new = OnCue(backend.url, sweep=3600)

    @app.task(name="old")
    async def old() -> str:
        return "old"

    @new.task(name="newest")
    async def newest() -> str:
        return "run"

    async with app, new:
        rounds = Rounds(app)
        async with app.worker() as service:
            handle = await new.schedule(newest.call(), **bound)  # type: ignore[arg-type]
            await settled(service, rounds, ["newest"])
            # Behind the unknown one in the same lane: it is not kept waiting.
            for _ in range(3):
                assert await (await app.schedule(old.call())).result(30) == "old"
            await settled(service, rounds, ["newest"])
            view = await get(app, handle.id)
            assert (view.state, view.attempt - view.snoozes) == ("scheduled", 0)
            (line,) = await app.jobs.attempts(handle.id)
            assert (line.outcome, line.reason) == (
                "released",
                "given back unrun: this worker does not know task 'newest'",
            )
            assert "no worker knows task 'newest'" in await app.jobs.why(view)
            # A worker that knows it: it runs at once, beside the old one.
            async with new.worker():
                assert await handle.result(30) == "run"
    (line_of_log,) = told(caplog)
    assert f"'newest' (job {handle.id})" in line_of_log


@pytest.mark.parametrize("backend", POSTGRES, indirect=True)
async def test_others_are_told_of_what_a_worker_gives_back(app: OnCue, backend: Backend) -> None:
    new, heard = OnCue(backend.url, sweep=3600), asyncio.Semaphore(0)

    @new.task(name="newest")
    async def newest() -> None: ...

    listener = await asyncpg.connect(backend.url)
    try:
        async with app, new:
            rounds = Rounds(app)
            async with app.worker() as service:
                await settled(service, rounds, [])
                await listener.add_listener(
                    channel_of("oncue"), lambda *said: None if is_probe(str(said[-1])) else heard.release()
                )
                handle = await new.schedule(newest.call())
                async with asyncio.timeout(30):
                    await heard.acquire()
                    await heard.acquire()
                assert len(await app.jobs.attempts(handle.id)) == 1
    finally:
        await listener.close()


async def test_a_task_that_is_declared_later_is_asked_for_from_then_on(app: OnCue, backend: Backend) -> None:
    new = OnCue(backend.url, sweep=3600)

    async def newest() -> str:
        return "run"

    async with app, new:
        rounds = Rounds(app)
        async with app.worker() as service:
            handle = await new.schedule(new.task(name="newest")(newest).call())
            await settled(service, rounds, ["newest"])
            app.task(name="newest")(newest)
            app.wake.hint(app.clock.now())
            assert await handle.result(30) == "run"


async def test_the_log_names_each_unknown_task_once_and_not_more_than_once_a_minute(
    app: OnCue, backend: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = OnCue(backend.url, sweep=3600)
    names = ["first", "second", "third"]

    async def work() -> None: ...

    calls = {name: new.task(name=name)(work).call() for name in names}
    now = 1_000.0
    monkeypatch.setattr("oncue.unknown.monotonic", lambda: now)
    async with app, new:
        rounds = Rounds(app)
        async with app.worker() as service:
            for name in names:
                await new.schedule_many([calls[name]] * 50)
                await settled(service, rounds, sorted(names[: names.index(name) + 1]))
            assert len(told(caplog)) == 1
            now += 60
            while len(told(caplog)) < 2:
                rounds.done.clear()
                app.wake.hint(app.clock.now())
                await rounds.done.wait()
                await asyncio.sleep(0)
    first, others = told(caplog)
    assert "'first' (job " in first
    assert "'second' (job " in others
    assert "'third' (job " in others


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "oncue.worker"]
