"""The server stops, is killed and comes back, under a worker and under those who schedule."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from oncue import OnCue
from oncue.errors import StoreUnavailable
from oncue.service import Service
from oncue.worker import WorkerOptions
from tests import pg
from tests.postgres.failure import Ledger, application, note, rows, said, working


@pytest.fixture(scope="module")
def server() -> Iterator[pg.Server]:
    with pg.Server(pg.NEWEST) as made:
        yield made


def down(server: pg.Server, how: str) -> None:
    if how == "kill":
        server.kill()
    else:
        server.stop("fast" if how == "fast" else "immediate")


class Producer:
    """Schedules one call after the other; knows which were promised and of which nobody knows."""

    def __init__(self, app: OnCue, numbers: Iterator[int]) -> None:
        self._app, self._numbers = app, numbers
        self.promised: list[int] = []
        self.unknown: list[int] = []
        self.stop = asyncio.Event()

    async def run(self) -> None:
        while not self.stop.is_set():
            number = next(self._numbers)
            try:
                await self._app.schedule(note(self._app, number))
                self.promised.append(number)
            except StoreUnavailable:
                self.unknown.append(number)


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
async def test_over_a_restart_every_promised_job_runs_once(server: pg.Server, how: str) -> None:
    ledger = Ledger()
    with server.database() as database:
        app = application(database.dsn, ledger, busy_timeout=30.0)
        async with working(app):
            numbers = itertools.count()
            producers = [Producer(app, numbers) for _ in range(4)]
            tasks = [asyncio.create_task(one.run()) for one in producers]
            await ledger.until(lambda: len(ledger.lines) >= 30)
            await asyncio.to_thread(down, server, how)
            # Nobody can be told anything now, but those who ask wait.
            patient = asyncio.create_task(app.schedule(note(app, -1)))
            await asyncio.to_thread(server.start)
            await patient
            seen = len(ledger.lines)
            await ledger.until(lambda: -1 in ledger.of("ran") and len(ledger.lines) >= seen + 30)
            for one in producers:
                one.stop.set()
            await asyncio.gather(*tasks)
            promised = {-1, *(number for one in producers for number in one.promised)}
            unknown = {number for one in producers for number in one.unknown}
            await ledger.until(lambda: promised <= set(ledger.of("ran")))
            # Each of the three connections that calls share may break once under all of them.
            assert len(unknown) <= 3 * len(producers)
            stored = rows(database.dsn, "SELECT count(*) FROM oncue_job UNION ALL SELECT count(*) FROM oncue_finished")
            assert sum(count for (count,) in stored) <= len(promised | unknown)
        assert set(ledger.counts().values()) == {1}
        assert set(ledger.of("ran")) <= promised | unknown
        states = rows(database.dsn, "SELECT state, outcome, count(*) FROM oncue_finished GROUP BY 1, 2")
        assert states == [("completed", "completed", len(ledger.lines))]
        assert rows(database.dsn, "SELECT id FROM oncue_job") == []


async def test_a_server_that_stays_away_is_said_after_busy_timeout(server: pg.Server) -> None:
    with server.database() as database:
        app = application(database.dsn, Ledger(), busy_timeout=0.3)
        async with app:
            await asyncio.to_thread(server.stop)
            try:
                with pytest.raises(StoreUnavailable, match=r"can't be reached \(.*\): nothing was written"):
                    await app.schedule(note(app, 1))
            finally:
                await asyncio.to_thread(server.start)
            handle = await app.schedule(note(app, 2))
            assert rows(database.dsn, "SELECT id FROM oncue_job") == [(handle.id,)]


@pytest.mark.parametrize("step", ["register", "rescue"])
async def test_a_server_that_goes_away_while_a_worker_starts_is_waited_for(
    server: pg.Server, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, stop = Ledger(), asyncio.Event()
    with server.database() as database:
        app = application(database.dsn, ledger, busy_timeout=0.3)
        async with app:
            await app.schedule(note(app, 1))
            service = Service(app, WorkerOptions())
            assert service.worker is not None
            # The sweep rescues, too: it is the worker's own that must fail.
            owner = app.store if step == "register" else service.worker._rescuer
            go_on = getattr(owner, step)

            async def go_away(*args: Any) -> Any:
                monkeypatch.setattr(owner, step, go_on)
                await asyncio.to_thread(server.stop)
                return await go_on(*args)

            monkeypatch.setattr(owner, step, go_away)
            with said("oncue.worker", "could not start; again in") as told:
                run, heard = asyncio.create_task(service.run(stop)), asyncio.create_task(told.wait())
                await asyncio.wait({run, heard}, return_when=asyncio.FIRST_COMPLETED)
                heard.cancel()
            await asyncio.to_thread(server.start)
            assert told.is_set()
            await ledger.until(lambda: ledger.of("ran") == [1])
            assert len(await app.store.workers()) == 1
            stop.set()
            await run
            assert await app.store.workers() == []


async def test_a_worker_that_is_stopped_while_it_waits_for_the_server_ends(server: pg.Server) -> None:
    with server.database() as database:
        app = application(database.dsn, Ledger(), busy_timeout=0.3)
        stop = asyncio.Event()
        async with app:
            worker = Service(app, WorkerOptions()).worker
            assert worker is not None
            await asyncio.to_thread(server.stop)
            try:
                with said("oncue.worker", "could not start; again in") as told:
                    start = asyncio.create_task(worker.start(stop))
                    await told.wait()
                stop.set()
                await start
                await worker.run(stop)
            finally:
                await asyncio.to_thread(server.start)
