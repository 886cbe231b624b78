"""Users with the rights that docs/how-to/redis.md gives can do all of it, and with one less the doctor says so."""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from oncue import OnCue
from oncue.bridge.examine import adoption_checks, node_checks
from oncue.store.views import Check
from oncue.wake.redis import RedisWake
from tests.adopt.stage import Producer, Trial, question
from tests.databases import database
from tests.handoff.stage import Stage as HandOff
from tests.nodejs import Node
from tests.redis.conftest import QUICK, Make
from tests.valkey import KINDS, Server, running

doctor = importlib.import_module("oncue.cli.doctor")
PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/redis.md"
ROLES = ("waking", "waking, `mode=pubsub`", "adoption of `messageQueue`", "hand-over to `images`")


def documented(role: str) -> list[str]:
    """The rights that the page gives for a purpose, as ACL SETUSER takes them."""
    found = re.search(rf"^\| {re.escape(role)} \| `cue on >password (.*)` \|$", PAGE.read_text(), re.MULTILINE)
    assert found, role
    return found[1].replace("\\|", "|").split()


class Guarded:
    """A server with a user whose rights a test says."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.address = server.url.replace("//", "//cue:password@")

    def allow(self, rights: list[str]) -> None:
        with self._server.client() as link:
            link.execute_command("ACL", "SETUSER", "cue", "reset", "on", ">password", *rights)
            link.execute_command("ACL", "LOG", "RESET")

    def refused(self) -> list[str]:
        with self._server.client() as link:
            return [str(one) for one in link.execute_command("ACL", "LOG")]

    def clear(self) -> None:
        with self._server.client() as link:
            link.flushall()
            link.execute_command("ACL", "DELUSER", "cue")


@pytest.fixture(params=KINDS)
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    server = Guarded(running(request.param))
    try:
        yield server
    finally:
        server.clear()


@pytest.mark.parametrize("options", ["timers=off", "mode=pubsub"])
async def test_waking(make: Make, guarded: Guarded, options: str) -> None:
    guarded.allow(documented(ROLES[options == "mode=pubsub"]))
    stage, other = make(options, url=guarded.address), make(options, url=guarded.address)
    async with stage.app.worker():
        await stage.until_healthy()
        await stage.schedule(range(10), 0.2, 0.02)
        await stage.once_each(10)
        async with other.app:
            heard = stage.wake.stats.hints
            await other.app.schedule(other.note.call(9), delay=3600)
            await stage.until(lambda: stage.wake.stats.hints > heard)
        if stage.wake.carrier is not None:
            await stage.wake.carrier.prove(10)
    assert guarded.refused() == []


async def test_adoption(guarded: Guarded, node: Node, tmp_path: Path) -> None:
    guarded.allow(documented(ROLES[2]))
    with database("sqlite", tmp_path) as made, node.start("producer.mjs") as program:
        await asyncio.to_thread(program.expect, "ready")
        producer = Producer(program, guarded._server.url)
        trial = Trial(made.url, guarded.address)
        async with trial.app.worker():
            await producer.add(question("t-1", delay=0), question("t-2", priority=3, delay=0))
            assert sorted(await trial.wait_sent(2)) == ["t-1", "t-2"]
            (check,) = await adoption_checks(trial.app)
        assert (check.level, await producer.left()) == ("ok", {})
    assert guarded.refused() == []


async def test_hand_over(guarded: Guarded, node: Node, tmp_path: Path) -> None:
    """The worker in Node has the same user: it needs no more."""
    guarded.allow(documented(ROLES[3]))
    with database("sqlite", tmp_path) as made:
        stage = HandOff(made.url, guarded.address, tmp_path, node)
        async with stage.worker():
            waits = await stage.resize("cat")
            await stage.until(waits, lambda job: job.state == "running")
            assert await stage.app.cancel(id=waits.id) == "requested"
            await stage.until(waits, lambda job: job.state == "cancelled")
            async with stage.node():
                assert (await (await stage.resize("dog")).result(timeout=20)).path == "dog.png"
                (check,) = await node_checks(stage.app)
        assert (check.level, check.found) == ("ok", "1 worker in Node; 0 jobs wait, 0 run")
    assert guarded.refused() == []


async def _wake_check(app: OnCue) -> list[Check]:
    assert isinstance(app.wake, RedisWake)
    app.wake._timing = QUICK
    found: list[Check] = await doctor._wake(app)
    return found


# PING, which is sent once a connection was idle for half a minute.
LATER = "+@connection"
Examine = Callable[[OnCue], Awaitable[list[Check]]]
EXAMINE: dict[str, tuple[str, Examine]] = {
    ROLES[0]: ("?queue=oncue", _wake_check),
    ROLES[1]: ("?mode=pubsub", _wake_check),
    ROLES[2]: ("", adoption_checks),
    ROLES[3]: ("", node_checks),
}


# redis-py leaves a connection that is refused something at the wrong moment to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("role", ROLES)
async def test_with_one_right_less_the_doctor_says_what_is_refused(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_PATIENCE", 0.3)
    monkeypatch.setattr(doctor, "_PROOF", 2.0)
    # Who is refused all the time meets redis-py at a bad moment now and then: see `oncue.redis_link.end`.
    monkeypatch.setattr("oncue.wake.redis._CLOSING", 0.5)
    options, examine = EXAMINE[role]
    guarded, rights = Guarded(running(KINDS[0])), documented(role)
    with database("sqlite", tmp_path) as made:
        try:
            for less in [None, *(one for one in rights if not one.startswith("-") and one != LATER)]:
                guarded.allow([one for one in rights if one != less])
                url = f"{guarded.address}/0{options}"
                app = OnCue(made.url, wake=url if options else None)
                if not options:
                    app.adopt("messageQueue", redis=url)(lambda job: None)
                    app.node_task("images", redis=url)(_resize)
                async with app:
                    found = [one for one in await examine(app) if "right" in one.found]
                assert bool(found) == (less is not None) == bool(guarded.refused()), (less, found, guarded.refused())
        finally:
            guarded.clear()


async def _resize(image: str) -> None: ...
