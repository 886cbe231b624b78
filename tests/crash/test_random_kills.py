"""SIGKILL at 200 random moments, with jobs in flight all the time.

ONCUE_CRASH_SEED replays a run, ONCUE_SOAK_MINUTES goes on with others.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.crash.stage import SEED, SOAK, Player, Stage

ROUNDS, KILLS = 10, 20
ROLES = ("worker", "worker", "producer")


def _start(stage: Stage, role: str, rng: random.Random) -> Player:
    if role == "worker":
        return stage.start("worker", concurrency=20)
    return stage.start("producer", kind="mixed", seed=rng.randrange(1 << 30))


def _round(stage: Stage, rng: random.Random, kills: int = KILLS) -> str:
    players = [_start(stage, role, rng) for role in ROLES]
    stage.seen("end", 3)
    for _ in range(kills):
        time.sleep(rng.uniform(0, 0.25))  # the random moment itself: nothing is awaited
        (victim,) = rng.choices(range(len(ROLES)), weights=(2, 2, 1))
        if ROLES[victim] == "producer":
            stage.seen("promised", pid=players[victim].pid)
        stage.kill(players[victim])
        players[victim] = _start(stage, ROLES[victim], rng)
    first, second, producer = players
    stage.seen("ready", pid=producer.pid)
    stage.stop(producer)
    stage.rest()
    # Only one that is ready hears SIGTERM as a request.
    for worker in (first, second):
        stage.seen("ready", pid=worker.pid)
        stage.stop(worker)
    verdict = stage.verdict()
    assert not verdict.wrong, verdict
    assert verdict.promised > kills // 2, "too little was in flight for the kills to mean anything"
    return f"{verdict.promised} promised, {verdict.again} ran again"


@pytest.mark.slow
@pytest.mark.parametrize("number", range(ROUNDS))
def test_nothing_is_lost_or_overlaps_through_kills_at_random_moments(tmp_path: Path, number: int) -> None:
    print(f"ONCUE_CRASH_SEED={SEED} round {number}")
    with Stage(tmp_path) as stage:
        print(_round(stage, random.Random(f"{SEED}-{number}")))


@pytest.mark.slow
@pytest.mark.skipif(not SOAK, reason="make soak sets ONCUE_SOAK_MINUTES")
@pytest.mark.timeout(SOAK + 300)
def test_soak(tmp_path: Path) -> None:
    end, number = time.monotonic() + SOAK, ROUNDS
    while time.monotonic() < end:
        folder = tmp_path / str(number)
        folder.mkdir()
        print(f"ONCUE_CRASH_SEED={SEED} round {number}")
        with Stage(folder) as stage:
            print(_round(stage, random.Random(f"{SEED}-{number}")), flush=True)
        number += 1
