"""Whose wall clock is wrong starts jobs neither early nor late: the server's time is measured, and how exactly."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from oncue.clock import from_us
from oncue.store.postgres.clock import ServerClock
from tests import pg
from tests.databases import database
from tests.postgres.failure import Ledger, application, holding, rows

S = 1_000_000
SERVER = 1_800_000_000 * S


class Steady:
    """A clock that tests move, in microseconds, and the answers of a server whose clock runs as given."""

    def __init__(self) -> None:
        self.at = 5_000 * S
        self.ahead = SERVER

    def __call__(self) -> int:
        return self.at

    @property
    def server(self) -> int:
        return self.at + self.ahead

    def ask(self, clock: ServerClock, there: int, back: int) -> None:
        """A question that takes so long to arrive, and its answer so long to come back."""
        began = clock.began()
        self.at += there
        said = self.server
        self.at += back
        clock.learn(began, said)


@pytest.fixture
def steady() -> Steady:
    return Steady()


@pytest.mark.parametrize(("there", "back"), [(0, 0), (500, 500), (0, 3_000), (3_000, 0), (1, 0)])
def test_the_clock_is_never_ahead_of_the_server_and_behind_by_a_round_trip_at_most(
    steady: Steady, there: int, back: int
) -> None:
    clock = ServerClock(steady)
    steady.ask(clock, there, back)
    # Two clocks may drift apart by 50 us a second.
    aged = 0
    for _ in range(3):
        assert steady.server - (there + back) - aged - 2 <= clock.now() <= steady.server
        steady.at += 7 * S
        aged += 351
    assert clock.uncertainty == pytest.approx((there + back) / 2e6, abs=2e-6)


def test_of_two_measurements_the_more_exact_one_is_kept(steady: Steady) -> None:
    clock = ServerClock(steady)
    steady.ask(clock, 100, 100)
    steady.ask(clock, 40_000, 0)
    assert steady.server - clock.now() <= 202
    steady.ask(clock, 10, 10)
    assert steady.server - clock.now() <= 22


def test_an_exact_measurement_grows_old_by_the_drift_of_clocks(steady: Steady) -> None:
    clock = ServerClock(steady)
    steady.ask(clock, 10, 10)
    # In 100 s two clocks may have drifted apart by 5 ms: a measurement to within 1 ms says more by then.
    for _ in range(100):
        steady.at += S
        steady.ahead -= 40
    steady.ask(clock, 1_000, 1_000)
    assert 0 <= steady.server - clock.now() <= 2_002


def test_between_measurements_the_clock_is_not_ahead_of_a_server_that_is_slower(steady: Steady) -> None:
    clock = ServerClock(steady)
    steady.ask(clock, 100, 100)
    for _ in range(200):
        steady.at += S
        steady.ahead -= 40
        assert clock.now() <= steady.server


@pytest.mark.parametrize("step", [-3_600 * S, -50_000, 50_000, 3_600 * S])
def test_a_servers_clock_that_is_set_is_believed_at_the_next_answer(steady: Steady, step: int) -> None:
    clock = ServerClock(steady)
    steady.ask(clock, 10, 10)
    steady.ahead += step
    steady.ask(clock, 2_000, 2_000)
    assert 0 <= steady.server - clock.now() <= 4_002


def test_the_skew_is_told_against_the_wall_clock(monkeypatch: pytest.MonkeyPatch, steady: Steady) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: (steady.server - 300 * S) * 1000)
    clock = ServerClock(steady)
    assert clock.skew == 0
    steady.ask(clock, 10, 10)
    assert clock.skew == pytest.approx(300, abs=1e-4)


def wrong_by(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(right: Callable[[], float], by: float) -> Callable[[], float]:
        return lambda: right() + by

    monkeypatch.setattr(time, "time", off(time.time, seconds))
    monkeypatch.setattr(time, "time_ns", off(time.time_ns, seconds * 1_000_000_000))


@pytest.mark.parametrize("seconds", [-300, 300])
async def test_a_machine_whose_clock_is_five_minutes_off_starts_neither_early_nor_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    wrong_by(seconds, monkeypatch)
    with database(f"postgres{pg.NEWEST}", tmp_path) as made:
        with holding(made.url, "CREATE TABLE started (number int, at timestamptz)") as owner:
            owner.commit()
        app = application(made.url, Ledger())

        @app.task(name="note it")
        def note_it(number: int) -> None:
            with psycopg.connect(made.url, autocommit=True) as connection:
                connection.execute("INSERT INTO oncue.started VALUES (%s, clock_timestamp())", [number])

        async with app.worker():
            handles = [await app.schedule(note_it.call(number), delay=0.05 + number / 20) for number in range(10)]
            # An instant of the server's, wherever this machine takes itself to be.
            handles.append(
                await app.schedule(note_it.call(10), at=from_us(server_time(made.url)) + timedelta(seconds=0.3))
            )
            for handle in handles:
                await handle.result(timeout=20)
        assert abs(app.store.clock.skew + seconds) < 60  # type: ignore[attr-defined]
        early = """SELECT count(*) FROM started JOIN oncue_finished ON (args::json->>'number')::int = number
                   WHERE extract(epoch FROM at) * 1000000 < scheduled_at OR started_at < scheduled_at"""
        assert rows(made.url, early) == [(0,)]
        assert rows(made.url, "SELECT count(*) FROM started") == [(11,)]
        lag = (
            "SELECT count(*) FROM oncue_finished WHERE abs(created_at - extract(epoch FROM now()) * 1000000) > 60000000"
        )
        assert rows(made.url, lag) == [(0,)]


def server_time(url: str) -> int:
    [(now,)] = rows(url, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    return int(now)
