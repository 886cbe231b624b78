"""After a failover the new primary is found, a standby is named as one, and nobody works on when a lease is over."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from oncue.errors import StoreReadOnly, StoreUnavailable
from tests import pg
from tests.pgfaults import Proxy
from tests.pgprocess import OWNER
from tests.postgres.failure import Ledger, application, hold, holding, note, rows, until_rows, working

STANDBY = r"takes no writes now: it is a standby, or set to read-only.* with several hosts in the URL it is found"


class Standby(pg.Server):
    """A streaming replica of a running server, until it is promoted. Commits there wait until it has them."""

    def __init__(self, primary: pg.Server) -> None:
        super().__init__(primary.version)
        self._primary = primary

    def _make_data(self) -> None:
        where = f"host=127.0.0.1 port={self._primary.port} user=postgres application_name=standby"
        command = [
            str(self._bin / "pg_basebackup"),
            "-D",
            str(self.data),
            "-d",
            where,
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
        ]
        user = None if OWNER is None else OWNER.pw_uid
        subprocess.run(command, check=True, cwd=self.folder, user=user, capture_output=True)

    def promote(self) -> None:
        with holding(self.dsn(), "SELECT pg_promote(true)"):
            pass


@pytest.fixture(scope="module")
def primary() -> Iterator[pg.Server]:
    with pg.Server(pg.NEWEST) as server:
        yield server


def both(first: str, second: str) -> str:
    """A URL that names the hosts of two."""
    one, other = urlsplit(first), urlsplit(second)
    return one._replace(netloc=f"{one.netloc},{other.netloc.rpartition('@')[2]}").geturl()


async def test_the_new_primary_is_found_and_every_promised_job_runs_there(primary: pg.Server) -> None:
    ledger = Ledger()
    with Standby(primary) as standby:
        database = primary.create_database()
        setting = "ALTER SYSTEM SET synchronous_standby_names = 'standby'"
        with holding(primary.dsn(), "SELECT 1") as admin:
            admin.commit()
            admin.autocommit = True
            admin.execute(setting)
            admin.execute("SELECT pg_reload_conf()")
        app = application(both(database.dsn, standby.dsn(database.name)), ledger, busy_timeout=30.0)
        async with working(app):
            first = await app.schedule(note(app, 1))
            assert await first.result(timeout=20) == 1
            later = [await app.schedule(note(app, number), delay=3600) for number in range(10, 15)]
            await asyncio.to_thread(primary.kill)
            waiting = asyncio.create_task(app.schedule(note(app, 2)))
            await asyncio.to_thread(standby.promote)
            second = await waiting
            assert await second.result(timeout=20) == 2
            for handle in later:
                assert await app.reschedule(id=handle.id, delay=0)
            await ledger.until(lambda: len(ledger.lines) >= 7)
        found = rows(standby.dsn(database.name), "SELECT count(*) FROM oncue_finished")
    assert found == [(7,)]
    assert set(ledger.counts().values()) == {1}


async def test_a_host_that_is_silent_keeps_nobody_from_the_next(
    pg_server: pg.Cluster, pg_database: pg.Database
) -> None:
    with Proxy(pg_database.dsn) as dead:
        dead.silence()
        app = application(both(dead.dsn(pg_database.dsn), pg_database.dsn), Ledger(), busy_timeout=1.0)
        async with app:
            assert (await app.schedule(note(app, 1))).id


async def test_a_server_that_takes_no_writes_is_named_and_ends_the_lease(pg_server: pg.Cluster) -> None:
    ledger = Ledger()
    with pg.Server(pg.OLDEST) as server, server.database() as database:

        def read_only(value: str) -> None:
            with holding(server.dsn(), "SELECT 1") as admin:
                admin.commit()
                admin.autocommit = True
                admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
                admin.execute("SELECT pg_reload_conf()")

        app = application(database.dsn, ledger, busy_timeout=0.5)
        async with working(app, lease=1.0) as worker:
            before = worker.id
            handle = await app.schedule(hold(app, 1))
            await ledger.until(lambda: ledger.of("began") == [1])
            await asyncio.to_thread(read_only, "on")
            await ledger.until(lambda: ledger.of("lost") == [1])
            with pytest.raises(StoreReadOnly, match=STANDBY):
                await app.schedule(note(app, 2))
            with pytest.raises(StoreReadOnly, match=STANDBY):
                async with application(database.dsn, Ledger(), busy_timeout=0.1):
                    pass
            await asyncio.to_thread(read_only, "off")
            ledger.go.set()
            await handle.result(timeout=20)
            assert worker.id not in (0, before)
        assert rows(database.dsn, "SELECT state, attempt FROM oncue_finished") == [("completed", 2)]


async def test_a_full_server_is_named_and_waited_for(pg_server: pg.Cluster) -> None:
    with pg.Server(pg.NEWEST, settings={"max_connections": "6", "superuser_reserved_connections": "0"}) as server:
        database = server.create_database()
        made = application(database.dsn, Ledger())
        async with made:
            pass
        others = [holding(server.dsn(), "SELECT 1") for _ in range(6)]
        for other in others:
            await asyncio.to_thread(other.__enter__)
        with pytest.raises(StoreUnavailable, match=r"has no connection left .*raise max_connections, or put a pooler"):
            async with application(database.dsn, Ledger(), busy_timeout=0.2):
                pass
        patient = application(database.dsn, Ledger(), busy_timeout=30.0)
        opening = asyncio.create_task(patient.open())
        for other in others:
            await asyncio.to_thread(other.__exit__, None, None, None)
        await opening
        try:
            await patient.schedule(note(patient, 1))
        finally:
            await patient.close()
        assert await until_rows(database.dsn, "SELECT count(*) FROM oncue_job") == [(1,)]
