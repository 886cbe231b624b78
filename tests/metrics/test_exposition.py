"""``GET /metrics`` on a real server: the figures of the process, and of the fleet by its database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request

from oncue import Limit, OnCue, Retry
from oncue.errors import StoreUnavailable
from oncue.exposition import Exposition
from oncue.fleet import look
from oncue.store.steps.watch import message_states
from oncue.testing import TestClock
from oncue.web.metrics import Kept, Metrics, metrics_routes
from tests.databases import Backend

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def of(found: Samples, name: str, /, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


async def scraped(app: OnCue, accept: str = "") -> httpx.Response:
    web = Starlette(routes=metrics_routes(app))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://test") as client:
        return await client.get("/metrics", headers={"accept": accept})


async def test_a_scrape_tells_of_this_process_and_of_the_fleet(app: OnCue, clock: TestClock) -> None:
    @app.task(name="send", limit=Limit(1, per=3600))
    async def send() -> None:
        clock.advance(0.004)

    @app.task(name="call", queue="slow")
    async def call() -> None: ...

    async with app:
        await app.schedule(send.call())
        await app.schedule(send.call())
        clock.advance(2)
        await app.drain()
        await app.schedule(call.call(), group="g")
        await app.schedule(call.call(), delay=60)
        await app.store.set_queue("elsewhere", True)
        clock.advance(7)
        answer = await scraped(app)
    found = samples(answer.text)

    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"].startswith("text/plain")
    assert of(found, "oncue_attempts_total", task="send", outcome="completed") == 1
    assert of(found, "oncue_lateness_seconds_bucket", task="send", le="1.0") == 0
    assert of(found, "oncue_lateness_seconds_bucket", task="send", le="5.0") == 1
    assert of(found, "oncue_lateness_seconds_count", task="send") == 1
    assert of(found, "oncue_duration_seconds_sum", task="send") == 0.004
    assert of(found, "oncue_limited_jobs_total") == 1
    assert of(found, "oncue_acks_total") == 1
    assert of(found, "oncue_sweeps_total", result="ok") == 1
    assert of(found, "oncue_hints_sent_total") > 0
    assert of(found, "oncue_jobs", state="due") == 1
    assert of(found, "oncue_jobs", state="scheduled") == 2
    assert of(found, "oncue_due_jobs", queue="slow") == 1
    assert of(found, "oncue_oldest_due_seconds", queue="slow") == 7
    assert of(found, "oncue_paused", what="queue", name="elsewhere") == 1
    assert of(found, "oncue_sweep_age_seconds") >= 7
    assert of(found, "oncue_database_up") == 1
    assert of(found, "oncue_schema_version") == (await schema(app))


async def test_a_first_outcome_is_an_increase_of_a_series_that_is_there(app: OnCue) -> None:
    @app.task(name="fail", aliases=("old",), retry=Retry.never())
    async def fail() -> None:
        raise ValueError("no")

    async with app:
        before = samples((await scraped(app)).text)
        await app.schedule(fail.call())
        await app.drain()
        after = samples((await scraped(app)).text)
    counts = [of(found, "oncue_attempts_total", task="fail", outcome="discarded") for found in (before, after)]
    assert counts == [0, 1]
    assert not [labels for _, labels in before if ("task", "old") in labels]


async def schema(app: OnCue) -> int:
    return (await app.store.schema()).found


async def test_open_metrics_are_to_be_had_too(app: OnCue) -> None:
    async with app:
        answer = await scraped(app, "application/openmetrics-text; version=1.0.0")

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.rstrip().endswith("# EOF")


async def test_the_database_is_asked_once_a_second_at_most(app: OnCue, clock: TestClock) -> None:
    metrics = Metrics(app, lambda: clock.now() / 1_000_000)

    async def asked_at() -> int:
        found = await metrics.fleet()
        assert found is not None
        return found.now

    async with app:
        first = await asked_at()
        clock.advance(0.9)
        assert await asked_at() == first
        clock.advance(0.2)
        assert await asked_at() == clock.now()
        # Many ask at once: one look answers them all.
        clock.advance(2)
        times = [one.now for one in await asyncio.gather(*(metrics.fleet() for _ in range(5))) if one is not None]
        assert times == [clock.now()] * 5


async def test_what_is_slow_to_answer_is_asked_less_often_and_what_fails_is_asked_again() -> None:
    seconds, asked = 0.0, 0

    async def slow() -> int:
        nonlocal seconds, asked
        seconds, asked = seconds + 2, asked + 1
        if asked == 2:
            raise StoreUnavailable("away")
        return asked

    kept = Kept(slow, 1.0, lambda: seconds)
    assert await kept.get() == 1
    seconds = 41.9
    assert await kept.get() == 1
    seconds = 42
    assert await kept.get() is None
    # No longer than it took to fail.
    seconds = 45.9
    assert await kept.get() is None
    assert asked == 2
    seconds = 46
    assert await kept.get() == 3


async def test_what_has_ended_is_counted_too(app: OnCue) -> None:
    @app.task(name="send")
    async def send() -> None: ...

    async with app:
        for _ in range(3):
            await app.schedule(send.call())
        await app.cancel(id=1)
        await app.drain()
        found = samples((await scraped(app)).text)

    assert of(found, "oncue_jobs", state="completed") == 2
    assert of(found, "oncue_jobs", state="cancelled") == 1
    assert of(found, "oncue_jobs", state="discarded") == 0


async def test_without_its_database_a_process_still_tells_of_itself(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path / 'nowhere' / 'jobs.db'}")
    found = samples((await scraped(app)).text)

    assert of(found, "oncue_database_up") == 0
    assert of(found, "oncue_claims_total") == 0
    assert not [name for name, _ in found if name == "oncue_jobs"]


async def test_without_the_extra_the_route_says_what_to_install(app: OnCue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client.exposition", None)
    answer = await Metrics(app).answer(Request({"type": "http", "headers": []}))

    assert answer.status_code == 501
    assert b"oncue[metrics]" in answer.body


async def test_every_family_has_one_name_and_a_text(app: OnCue) -> None:
    async with app:
        families = list(Exposition(app, await look(app)).collect())

    assert len({one.name for one in families}) == len(families)
    assert all(one.documentation.endswith(".") for one in families)


async def test_messages_of_conversations_count_by_channel_and_state(app: OnCue, backend: Backend) -> None:
    async with app:
        assert await app.store.look(message_states) == []
        for id, state in enumerate(("queued", "queued", "unknown"), 1):
            backend.execute(
                "INSERT INTO oncue_message (id, ref, channel, person, kind, content, state, due, created_at, options) "
                f"VALUES ({id}, 'r-{id}', 'whatsapp', 1, 'say', '{{}}', '{state}', 1, 1, '{{}}')"
            )
        found = await app.store.look(message_states)
        fleet = (await look(app))._replace(messages=found)
        text = generate_latest(Exposition(app, fleet)).decode()

    assert found == [("whatsapp", "queued", 2), ("whatsapp", "unknown", 1)]
    assert of(samples(text), "oncue_messages", channel="whatsapp", state="queued") == 2


async def test_what_a_redis_beside_the_database_did_is_told_with_it(tmp_path: Path) -> None:
    app = OnCue(f"sqlite:///{tmp_path / 'jobs.db'}", wake="redis://127.0.0.1:1/0")
    app.wake.stats.delivered = 3  # type: ignore[attr-defined]
    app.wake.stats.hints = 2  # type: ignore[attr-defined]
    app.wake.hint(app.clock.now())
    found = samples(generate_latest(Exposition(app)).decode())
    await app.wake.close()

    assert of(found, "oncue_hints_sent_total") == 1
    assert of(found, "oncue_hints_heard_total") == 2
    assert of(found, "oncue_announcements_total", what="delivered") == 3


async def test_no_caller_can_make_any_number_of_series(app: OnCue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.exposition.MOST_NAMES", 3)

    @app.task(name="send")
    async def send() -> None: ...

    async with app:
        for number in range(6):
            for _ in range(number + 1):
                await app.schedule(send.call(), queue=f"q-{number}")
            await app.store.set_queue(f"p-{number}", True)
        found = samples((await scraped(app)).text)

    due = {dict(labels)["queue"]: value for (name, labels), value in found.items() if name == "oncue_due_jobs"}
    assert due == {"q-5": 6, "q-4": 5, "q-3": 4, "(others)": 6}
    paused = {dict(labels)["name"] for (name, labels) in found if name == "oncue_paused"}
    assert paused == {"p-0", "p-1", "p-2", "(others)"}
