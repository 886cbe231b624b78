"""Failover: the primary is killed, a standby that was synchronous is promoted, and nothing promised is lost."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests import pg
from tests.crash.stage import Stage
from tests.pgfaults import Proxy
from tests.pgprocess import popen


class Standby(pg.Server):
    """A copy of a running server, which follows it under the name ``standby``, by way of a proxy."""

    def __init__(self, primary: pg.Server, link: Proxy) -> None:
        super().__init__(primary.version, pg.DURABLE)
        self.link = link

    def _make_data(self) -> None:
        source = f"host=127.0.0.1 port={self.link.port} user=postgres application_name=standby"
        command = [self._bin / "pg_basebackup", "-D", self.data, "-d", source, "--write-recovery-conf"]
        process = popen([*command, "--checkpoint=fast"], self.folder, subprocess.DEVNULL, subprocess.PIPE)
        output, _ = process.communicate()
        assert process.returncode == 0, output.decode(errors="replace")

    def promote(self) -> None:
        """Make it the primary; the old one must be gone."""
        with psycopg.connect(self.dsn(), autocommit=True) as conn:
            assert conn.execute("SELECT pg_promote()").fetchone() == (True,)


@contextmanager
def _pair() -> Iterator[tuple[pg.Server, Standby, str]]:
    """A primary and a standby on which every commit waits; with the name of a database that is on both."""
    with (
        pg.Server(pg.NEWEST, pg.DURABLE) as primary,
        Proxy(primary.dsn()) as link,
        Standby(primary, link) as standby,
    ):
        database = primary.create_database()
        with psycopg.connect(database.dsn, autocommit=True) as conn:
            conn.execute("CREATE TABLE note (token text PRIMARY KEY)")
            conn.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            conn.execute("SELECT pg_reload_conf()")
        _await(primary, "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
        yield primary, standby, database.name


def _await(server: pg.Server, query: str) -> None:
    """Wait until a query finds something."""
    end = time.monotonic() + 30
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        while not conn.execute(query.encode()).fetchall():
            assert time.monotonic() < end, f"not within 30 s: {query}"
            time.sleep(0.02)


def test_a_failover_to_a_synchronous_standby_loses_nothing_that_was_promised(tmp_path: Path) -> None:
    with _pair() as (primary, standby, name), Stage(tmp_path, primary.dsn(name)) as stage:
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = f"postgresql://postgres@{hosts}/{name}?target_session_attrs=read-write"
        workers = [stage.start("worker", database=url, lease=2.0, sweep=5.0) for _ in range(2)]
        producers = [stage.start("producer", database=url, kind="stormy", seed=seed) for seed in (1, 2)]
        for producer in producers:
            stage.seen("promised", 30, pid=producer.pid)
        stage.seen("end", 30)
        with stage.away():
            # Commits that the standby does not get are never confirmed: with an asynchronous one they would be.
            standby.link.silence()
            _await(primary, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' OFFSET 1")
            primary.kill()
            standby.link.refuse()
            standby.link.cut()
            stage.database = standby.dsn(name)
            standby.promote()
        so_far = {player.pid: len(stage.lines("promised", player.pid)) for player in producers}
        for producer in producers:
            stage.seen("promised", so_far[producer.pid] + 30, pid=producer.pid)
            stage.stop(producer)
        stage.rest()
        for worker in workers:
            stage.seen("ready", pid=worker.pid)
            stage.stop(worker)
        verdict = stage.verdict()
        assert not verdict.wrong, verdict
        assert {one.pid for one in stage.lines("acked")} == {worker.pid for worker in workers}
        print(f"{verdict.promised} promised, {verdict.again} ran again")
