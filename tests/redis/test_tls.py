"""TLS: waking, adoption and hand-over through it, and what a person is told where a certificate doesn't fit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oncue import OnCue
from oncue.bridge.examine import adoption_checks, node_checks
from tests.adopt.stage import Producer, Trial, question
from tests.databases import database
from tests.handoff.stage import Stage as HandOff
from tests.nodejs import Node
from tests.pgprocess import make_folder
from tests.redis.conftest import Make
from tests.redis.secure import SecureServer, authority, certificate, needed


@pytest.fixture(scope="module")
def ca() -> Path:
    needed()
    return authority(make_folder("oncue-ca-"))


@pytest.fixture(scope="module")
def secure(ca: Path) -> Iterator[SecureServer]:
    """A server that also asks for our certificate."""
    with SecureServer(ca, clients=True) as server:
        yield server


async def test_wake_hints_and_deliveries_come_over_tls(make: Make, secure: SecureServer) -> None:
    """BullMQ's workers and the thread that publishes hints have connections of their own."""
    options = secure.url.partition("?")[2]
    stage = make(f"timers=off&{options}", url=secure.address)
    other = make(f"mode=pubsub&{options}", url=secure.address)
    async with stage.app.worker():
        await stage.until_healthy()
        await stage.schedule(range(5), 0.2, 0.02)
        await stage.once_each(5)
        heard = stage.wake.stats.hints
        async with other.app:
            await other.app.schedule(other.note.call(9), delay=3600)
            await stage.until(lambda: stage.wake.stats.hints > heard)
        assert other.wake.unsent == 0


async def test_a_job_of_node_is_adopted_over_tls(secure: SecureServer, node: Node, tmp_path: Path) -> None:
    with database("sqlite", tmp_path) as made, node.start("producer.mjs") as program:
        await asyncio.to_thread(program.expect, "ready")
        producer, trial = Producer(program, secure.url), Trial(made.url, secure.url)
        async with trial.app.worker():
            await producer.add(question("t-1", delay=0))
            assert await trial.wait_sent(1) == ["t-1"]
            await trial.adopted(1)
        assert await producer.left() == {}


async def test_a_job_is_handed_to_node_over_tls(secure: SecureServer, node: Node, tmp_path: Path) -> None:
    with database("sqlite", tmp_path) as made:
        stage = HandOff(made.url, secure.url, tmp_path, node)
        async with stage.worker(), stage.node():
            assert (await (await stage.resize("cat")).result(timeout=20)).path == "cat.png"
            (check,) = await node_checks(stage.app)
    assert (check.level, "1 worker in Node" in check.found) == ("ok", True)


Wrong = Callable[[SecureServer, Path], str]
_KNOWN = "&ssl_certfile={0}/client.pem&ssl_keyfile={0}/client.key"
WRONG: dict[str, tuple[Wrong, str]] = {
    "another authority": (
        lambda server, folder: f"{server.address}?ssl_ca_certs={authority(folder, 'other')}",
        "signed by no authority that is trusted here",
    ),
    "no authority": (lambda server, _: server.address, "rediss://host?ssl_ca_certs=/path/ca.pem"),
    "no such file": (lambda server, _: f"{server.address}?ssl_ca_certs=/no/ca.pem", "ssl_ca_certs=/no/ca.pem: No such"),
    "another name": (
        lambda server, _: server.url.replace("127.0.0.1", "localhost"),
        "connect by a name that its certificate has",
    ),
    # Why a server breaks off may be lost on the way.
    "none of ours": (lambda server, _: server.url.partition("&")[0], "a certificate of ours"),
    "one of ours by another": (
        lambda server, folder: server.url.partition("&")[0] + _of_another(folder),
        "that it trusts",
    ),
    "without TLS": (lambda server, _: server.plain_url, "write rediss:// instead"),
}


def _of_another(folder: Path) -> str:
    certificate(authority(folder, "other"), "client")
    return _KNOWN.format(folder)


@pytest.mark.parametrize("which", WRONG)
async def test_what_does_not_fit_is_refused_and_said(
    make: Make, secure: SecureServer, tmp_path: Path, which: str
) -> None:
    wrong, said = WRONG[which]
    url = wrong(secure, tmp_path)
    stage = make(url.partition("?")[2], url=url.partition("?")[0].removesuffix("/0"))
    async with stage.app.worker():
        await stage.schedule(range(3), 0.05)
        await stage.once_each(3)
        await stage.until(lambda: "failed" in (stage.wake.healthy or ""))
        assert said in (stage.wake.healthy or "")
    app = OnCue(stage.app.url)
    app.adopt("here", redis=url)(lambda job: None)
    app.node_task("there", redis=url)(_resize)
    for check in (*await adoption_checks(app), *await node_checks(app)):
        assert (check.level, said in check.found) == ("FAIL", True), check


async def _resize(image: str) -> None: ...
