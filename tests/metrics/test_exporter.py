"""``GET /metrics`` of a process that only works, by a server of a few lines."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import httpx
import pytest

from oncue import OnCue
from oncue.errors import ConfigError
from oncue.exporter import address_of, exporting
from tests.cli.stage import Running, environment
from tests.metrics.test_exposition import of, samples
from tests.metrics.test_logs import APP


@pytest.fixture
def one(tmp_path: Path) -> OnCue:
    return OnCue(f"sqlite:///{tmp_path / 'jobs.db'}")


async def said(url: str, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    return answer


async def test_it_tells_of_the_process_and_asks_the_database_nothing(one: OnCue) -> None:
    one.metrics.limited = 7
    async with exporting(one, ("127.0.0.1", 0)) as url, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url)
        other = await client.get(url.removesuffix("metrics"))
        posted = await client.post(url)

    found = samples(answer.text)
    assert of(found, "oncue_limited_jobs_total") == 7
    assert not [name for name, _ in found if name in ("oncue_jobs", "oncue_database_up")]
    assert answer.headers["content-type"].startswith("text/plain")
    assert (other.status_code, posted.status_code) == (404, 404)


@pytest.mark.parametrize(
    "sent", [b"\r\n\r\n", b"nonsense\r\n\r\n", b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 200, b"x" * 20_000 + b"\n"]
)
async def test_what_is_no_request_gets_no_answer_and_keeps_no_other_from_one(one: OnCue, sent: bytes) -> None:
    async with exporting(one, ("127.0.0.1", 0)) as url, asyncio.timeout(20):
        with contextlib.suppress(ConnectionResetError):
            assert await said(url, sent) == b""
        assert b"oncue_build_info" in await said(url, b"GET /metrics HTTP/1.0\r\n\r\n")


async def test_on_loopback_it_answers_to_its_own_name_only(one: OnCue) -> None:
    async with exporting(one, ("127.0.0.1", 0)) as url, asyncio.timeout(20):
        for host in ("localhost", "LOCALHOST:9464", "127.0.0.1:9464", "[::1]:9464", "[::1]"):
            assert b"oncue_build_info" in await said(url, b"GET /metrics HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
        for host in ("evil.example", "evil.example:9464", "localhost.evil.example", "10.0.0.1:9464"):
            answer = await said(url, b"GET /metrics HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert b"oncue_" not in answer
    # Whoever lets it listen elsewhere may call that as they like.
    async with exporting(one, ("0.0.0.0", 0)) as url, asyncio.timeout(20):
        assert b"oncue_build_info" in await said(url, b"GET /metrics HTTP/1.1\r\nHost: worker.internal\r\n\r\n")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_an_address_is_a_port_on_loopback_or_says_where(text: str, address: tuple[str, int]) -> None:
    assert address_of(text) == address


@pytest.mark.parametrize("text", ["", "metrics", "70000", ":9464", "host:", "-1", "9464/metrics"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="An address for metrics"):
        address_of(text)


async def test_a_port_that_is_taken_is_told(one: OnCue) -> None:
    async with exporting(one, ("127.0.0.1", 0)) as url:
        with pytest.raises(ConfigError, match="Nobody can listen"):
            async with exporting(one, ("127.0.0.1", httpx.URL(url).port or 0)):
                pass


async def test_a_worker_is_scraped(tmp_path: Path) -> None:
    (tmp_path / "trial.py").write_text(APP)
    worker = Running(tmp_path, environment(tmp_path / "trial.db"), ["worker", "trial:app", "--metrics", "0"])
    try:
        url = worker.says("ready").rpartition(" ")[2]
        async with httpx.AsyncClient(trust_env=False) as client:
            found = samples((await client.get(url)).text)
        assert of(found, "oncue_wake_up") == 1
        assert worker.ends(signal.SIGTERM) == 0
    finally:
        worker.close()
