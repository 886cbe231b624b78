"""The server stops, is killed and comes back, under a worker and under those who schedule."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from oncue import OnCue
from oncue.errors import StoreUnavailable
from tests import pg
from tests.postgres.failure import Ledger, application, note, rows, working


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
