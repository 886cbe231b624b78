"""PostgreSQL: processes killed and stopped, the server ended in each way, connections cut and held, all at random.

ONCUE_CRASH_SEED replays a run, ONCUE_SOAK_MINUTES goes on with others.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests import pg
from tests.crash.stage import SEED, SOAK, Player, Stage
from tests.pgfaults import BOTH, Direction, Proxy

LEASE = 2.0
ROLES = ("worker", "worker", "worker", "worker", "producer", "producer")
# Each once in every round, in an order that the seed decides.
FAULTS = (
    "kill_worker", "kill_worker", "kill_worker", "kill_producer", "stop", "stop_past_lease", "cut", "cut", "cut",
    "hold", "hold_past_lease", "fast", "immediate", "sigkill",
)  # fmt: skip


class Weather:
    """Four workers and two producers, half of each behind one proxy and half behind another, and what befalls them."""

    def __init__(self, stage: Stage, server: pg.Server, database: pg.Database, rng: random.Random) -> None:
        self.stage, self.server, self.database, self.rng = stage, server, database, rng
        self.proxies = [Proxy(database.dsn), Proxy(database.dsn)]
        self.players: list[Player] = []

    def play(self) -> str:
        """Go through all faults, then let everything come to rest; return how much there was."""
        with ExitStack() as opened:
            for proxy in self.proxies:
                opened.enter_context(proxy)
            self.players = [self._start(place) for place in range(len(ROLES))]
            for player in self.players:
                self.stage.seen("ready", pid=player.pid)
            for fault in self.rng.sample(FAULTS, len(FAULTS)):
                time.sleep(self.rng.uniform(0, 0.4))  # the random moment itself: nothing is awaited
                self.stage.ledger.write("fault", note=fault)
                getattr(self, fault)()
            return self._rest()

    def _start(self, place: int) -> Player:
        """Start what belongs in this place; even places are behind the first proxy."""
        database = self.proxies[place % 2].dsn(self.database.dsn)
        if ROLES[place] == "worker":
            return self.stage.start("worker", database=database, concurrency=20, lease=LEASE, sweep=5.0)
        return self.stage.start("producer", database=database, kind="stormy", seed=self.rng.randrange(1 << 30))

    def _kill(self, role: str) -> None:
        place = self.rng.choice([place for place, here in enumerate(ROLES) if here == role])
        self.stage.kill(self.players[place])
        self.players[place] = self._start(place)

    def kill_worker(self) -> None:
        """SIGKILL, and a new one at once."""
        self._kill("worker")

    def kill_producer(self) -> None:
        """SIGKILL in the middle of a call, a transaction, or a commit."""
        self._kill("producer")

    def stop(self, seconds: float = LEASE / 4) -> None:
        """SIGSTOP and SIGCONT."""
        player = self.rng.choice(self.players)
        self.stage.freeze(player)
        time.sleep(self.rng.uniform(0, seconds))
        self.stage.thaw(player)

    def stop_past_lease(self) -> None:
        """SIGSTOP until others have taken a worker's jobs over."""
        player = self.rng.choice([one for one, role in zip(self.players, ROLES, strict=True) if role == "worker"])
        self.stage.freeze(player)
        time.sleep(1.5 * LEASE)
        self.stage.thaw(player)

    def cut(self) -> None:
        """RST to the connections of half of the processes."""
        self.rng.choice(self.proxies).cut()

    def hold(self, seconds: float = LEASE / 4) -> None:
        """Half of the processes hear nothing for a while, and can say nothing; or only one of both."""
        side = self.rng.randrange(2)
        ways: Sequence[Direction] = self.rng.choice([("to_server",), ("to_client",), BOTH])
        with self.stage.away(self.players[side::2]):
            self.proxies[side].silence(*ways)
            time.sleep(seconds)
            self.proxies[side].heal()

    def hold_past_lease(self) -> None:
        """The same, until the others have taken their jobs over."""
        self.hold(1.5 * LEASE)

    def fast(self) -> None:
        """The server restarts."""
        with self.stage.away():
            self.server.restart("fast")

    def immediate(self) -> None:
        """The server restarts without having tidied up."""
        with self.stage.away():
            self.server.restart("immediate")

    def sigkill(self) -> None:
        """SIGKILL for the whole server."""
        with self.stage.away():
            self.server.kill()
            self.server.start()

    def _rest(self) -> str:
        for player in self.players:
            self.stage.seen("ready", pid=player.pid)
        for producer in self.players[4:]:
            self.stage.stop(producer)
        self.stage.rest()
        for worker in self.players[:4]:
            self.stage.stop(worker)
        verdict = self.stage.verdict()
        assert not verdict.wrong, verdict
        assert verdict.promised > 30, "too little was in flight for the faults to mean anything"
        return f"{verdict.promised} promised, {verdict.again} ran again"


def _round(folder: Path, version: int, number: int) -> None:
    print(f"ONCUE_CRASH_SEED={SEED} round {number} on PostgreSQL {version}")
    with pg.Server(version, settings=pg.DURABLE) as server:
        database = server.create_database()
        with psycopg.connect(database.dsn) as conn:
            conn.execute("CREATE TABLE note (token text PRIMARY KEY)")
        with Stage(folder, database.dsn) as stage:
            print(Weather(stage, server, database, random.Random(f"{SEED}-{number}")).play(), flush=True)


@pytest.mark.slow
def test_nothing_is_lost_early_doubled_or_overlaps_on_postgresql_through_faults_at_random_moments(
    tmp_path: Path,
) -> None:
    _round(tmp_path, pg.NEWEST, 0)


@pytest.mark.slow
@pytest.mark.skipif(not SOAK, reason="make soak sets ONCUE_SOAK_MINUTES")
@pytest.mark.timeout(SOAK + 300)
def test_soak(tmp_path: Path) -> None:
    end, number = time.monotonic() + SOAK, 1
    while time.monotonic() < end:
        folder = tmp_path / str(number)
        folder.mkdir()
        _round(folder, pg.VERSIONS[number % len(pg.VERSIONS)], number)
        number += 1
