"""Three nodes of a cluster that share the slots: all keys of a queue lie on one, and any node may be named."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oncue.bridge.examine import node_checks
from tests.adopt.stage import Producer, Trial, question
from tests.databases import database
from tests.handoff.stage import Stage as HandOff
from tests.nodejs import Node
from tests.pgprocess import free_port
from tests.redis.conftest import Make
from tests.redis.test_rights import ROLES, Guarded, documented
from tests.valkey import KINDS, Server

FORMED = 20.0
TAG = "prefix=%7Bbull%7D"


@pytest.fixture(scope="module", params=KINDS[-1:])
def nodes(request: pytest.FixtureRequest) -> Iterator[list[Server]]:
    """The nodes, the one first that has the slot of the tag."""
    buses = [free_port() for _ in range(3)]
    with contextlib.ExitStack() as stack:
        made = [
            stack.enter_context(Server(request.param, settings=["cluster-enabled yes", f"cluster-port {bus}"]))
            for bus in buses
        ]
        links = [stack.enter_context(server.client()) for server in made]
        for place, link in enumerate(links):
            link.execute_command("CLUSTER", "ADDSLOTSRANGE", place * 5461, min(16383, place * 5461 + 5460))
            link.execute_command("CLUSTER", "MEET", "127.0.0.1", made[0].port, buses[0])
        links[2].execute_command("CLUSTER", "ADDSLOTS", 16383)
        deadline = time.monotonic() + FORMED
        while any(b"cluster_state:ok" not in link.execute_command("CLUSTER", "INFO") for link in links):
            assert time.monotonic() < deadline, [link.execute_command("CLUSTER", "NODES") for link in links]
            time.sleep(0.02)
        owner = links[0].execute_command("CLUSTER", "KEYSLOT", "{bull}") // 5461
        yield [made[owner], *(server for server in made if server is not made[owner])]


def keys(nodes: list[Server]) -> list[set[str]]:
    found = []
    for server in nodes:
        with server.client() as link:
            found.append({key.decode() for key in link.keys("*")})
    return found


async def test_wake_by_a_user_with_the_least_rights(make: Make, nodes: list[Server]) -> None:
    guarded = [Guarded(server) for server in nodes]
    for each in guarded:
        each.allow([one.replace("bull:", "{bull}:") for one in documented(ROLES[0])] + ["+cluster|slots"])
    stage = make(f"timers=off&{TAG}", url=guarded[1].address)
    other = make(f"mode=pubsub&{TAG}", url=guarded[2].address)
    async with stage.app.worker():
        await stage.until_healthy()
        await stage.schedule(range(5), 0.2, 0.02)
        await stage.once_each(5)
        async with other.app:
            heard = stage.wake.stats.hints
            await other.app.schedule(other.note.call(9), delay=3600)
            await stage.until(lambda: stage.wake.stats.hints > heard)
        assert stage.wake.carrier is not None
        await stage.wake.carrier.prove(20)
    assert [each.refused() for each in guarded] == [[], [], []]
    mine, *others = keys(nodes)
    assert any(key.startswith("{bull}:oncue:") for key in mine)
    assert others == [set(), set()]


async def test_adoption_and_hand_over(nodes: list[Server], node: Node, tmp_path: Path) -> None:
    owner, named = (f"{server.url}/0?{TAG}" for server in nodes[:2])
    with database("sqlite", tmp_path) as made, node.start("producer.mjs") as program:
        await asyncio.to_thread(program.expect, "ready")
        trial = Trial(made.url, named)
        async with trial.app.worker():
            await Producer(program, owner).add(question("t-1", delay=0), question("t-2", delay=100))
            assert await trial.wait_sent(2) == ["t-1", "t-2"]
    (tmp_path / "other").mkdir()
    with database("sqlite", tmp_path / "other") as made:
        stage = HandOff(made.url, owner, tmp_path, node)
        there = HandOff(made.url, named, tmp_path, node)
        async with stage.node(prefix="{bull}"), there.worker():
            assert (await (await there.resize("cat")).result(timeout=20)).path == "cat.png"
            (check,) = await node_checks(there.app)
    assert check.level == "ok", check
    assert keys(nodes)[1:] == [set(), set()]
