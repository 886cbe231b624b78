"""The live stream: what changes is told, who comes back finds what came meanwhile, and no gap is silent."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from oncue import OnCue, Scheduled
from oncue.operate import Filter, Operator, events
from oncue.operate.events import Event, Watcher
from oncue.testing import TestClock
from tests.operate.conftest import declare

Listening = AsyncGenerator[tuple[str, Event], None]


@pytest.fixture
async def app(tmp_path: Path, clock: TestClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OnCue]:
    monkeypatch.setattr(events, "_TICK", 0.01)
    monkeypatch.setattr(events, "RING", 20)
    async with declare(OnCue(f"sqlite:///{tmp_path}/jobs.db", clock=clock)) as made:
        yield made


@pytest.fixture
async def watcher(operator: Operator) -> AsyncIterator[Watcher]:
    made = operator.watcher
    yield made
    made._listeners.clear()
    made._stop()


async def _next(listening: Listening, name: str) -> tuple[str, Event]:
    """Await the next event of that name."""
    async with asyncio.timeout(20):
        async for id, event in listening:
            if event.name == name:
                return id, event
    raise AssertionError("the stream ended")


async def test_a_new_job_and_the_counts_are_told(app: OnCue, operator: Operator, watcher: Watcher) -> None:
    listening = watcher.listen(None, operator.jobs)
    await _next(listening, "overview")
    handle = await app.schedule(app.tasks["note"].call(), delay=50)
    _, event = await _next(listening, "job")
    assert f'"id":{handle.id},"state":"scheduled"' in event.data
    _, event = await _next(listening, "overview")
    assert '"scheduled":1' in event.data
    await app.cancel(id=handle.id)
    _, event = await _next(listening, "job")
    assert '"state":"cancelled"' in event.data
    await listening.aclose()


async def test_a_job_between_attempts_is_told_with_its_error_as_in_a_list(
    app: OnCue, operator: Operator, watcher: Watcher
) -> None:
    listening = watcher.listen(None, operator.jobs)
    await _next(listening, "overview")
    await app.schedule(app.tasks["again"].call())
    await app.drain()
    async with asyncio.timeout(20):
        told: dict[str, Any] = {}
        while (told.get("state"), told.get("attempt")) != ("scheduled", 1):
            told = msgspec.json.decode((await _next(listening, "job"))[1].data)
    assert told["error"] == "ValueError: not yet"
    assert told == msgspec.to_builtins((await operator.page(Filter(task="again"))).items[0])
    await listening.aclose()


@pytest.mark.parametrize("action", ["run-now", "reschedule", "cancel"])
async def test_what_is_done_to_a_job_that_nobody_watches_is_told_too(
    app: OnCue, operator: Operator, watcher: Watcher, action: Literal["run-now", "reschedule", "cancel"]
) -> None:
    """It was stored before anybody listened, is far away, and may be over before the next look."""
    id = (await app.schedule(app.tasks["note"].call(), delay=86_400)).id
    listening = watcher.listen(None, operator.jobs)
    await _next(listening, "overview")
    await watcher.looking()
    await operator.act(action, id, delay=172_800 if action == "reschedule" else None)
    if action == "run-now":
        await app.drain()
    await _next(listening, "more")
    await listening.aclose()


async def test_who_comes_back_hears_what_came_meanwhile_and_nothing_twice(
    app: OnCue, operator: Operator, watcher: Watcher
) -> None:
    one, other = watcher.listen(None, operator.jobs), watcher.listen(None, operator.jobs)
    last, _ = await _next(one, "overview")
    await one.aclose()
    reading = asyncio.create_task(_next(other, "job"))
    await asyncio.sleep(0)
    handle = await app.schedule(app.tasks["note"].call(), delay=50)
    heard = await reading
    back = watcher.listen(last, operator.jobs)
    assert await _next(back, "job") == heard
    assert f'"id":{handle.id}' in heard[1].data
    await other.aclose()
    await back.aclose()


async def test_a_database_that_cannot_be_asked_is_told_at_once_and_so_is_its_return(
    app: OnCue, operator: Operator, watcher: Watcher, tmp_path: Path
) -> None:
    """The stream goes on meanwhile: a page that shows the last overview would say for ever that all is well."""
    listening = watcher.listen(None, operator.jobs)
    _, event = await _next(listening, "overview")
    assert "can't be asked" not in event.data
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as other:
        other.execute("ALTER TABLE oncue_job RENAME TO gone")
        _, event = await _next(listening, "overview")
        (told,) = msgspec.json.decode(event.data)["health"]
        assert (told["name"], told["state"]) == ("database", "fail")
        assert told["found"].startswith("it can't be asked, so the rest is as it was at 20")
        other.execute("ALTER TABLE gone RENAME TO oncue_job")
    _, event = await _next(listening, "overview")
    assert "can't be asked" not in event.data
    await listening.aclose()


async def test_a_gap_is_said_and_never_silent(operator: Operator, watcher: Watcher) -> None:
    listening = watcher.listen(None, operator.jobs)
    last, _ = await _next(listening, "overview")
    assert watcher.since(last) is not None
    for number in range(25):
        watcher._publish("job", {"id": number})
    # The ring holds the last twenty: five and the overview are gone.
    back = watcher.listen(last, operator.jobs)
    id, event = await anext(back)
    assert (event.name, id) == ("reset", f"{watcher.epoch}-{watcher._number}")
    # Who is too slow hears of it too.
    assert (await anext(listening))[1].name == "reset"
    for wrong in ("other-1", f"{watcher.epoch}-999", f"{watcher.epoch}-x", "", "\u00b2", f"{watcher.epoch}-\u00b2"):
        assert watcher.since(wrong) is None
    await listening.aclose()
    await back.aclose()


async def test_it_looks_only_while_somebody_listens(
    operator: Operator, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_LINGER", 0.01)
    listening = watcher.listen(None, operator.jobs)
    last, _ = await _next(listening, "overview")
    running = watcher._running
    assert running is not None
    await listening.aclose()
    await asyncio.wait({running}, timeout=20)
    assert running.cancelled()
    # Nobody looked meanwhile, so whoever comes back then is told of the gap.
    back = watcher.listen(last, operator.jobs)
    assert (await anext(back))[1].name == "reset"
    await back.aclose()


async def test_it_ends_where_the_host_closes_the_application(app: OnCue, operator: Operator, watcher: Watcher) -> None:
    listening = watcher.listen(None, operator.jobs)
    await _next(listening, "overview")
    await listening.aclose()
    running = watcher._running
    assert running is not None
    await app.close()
    watcher._heard.set()
    await asyncio.wait({running}, timeout=20)
    assert running.done()
    assert running.exception() is None
    await app.open()


async def test_a_look_that_fails_loses_nothing_and_the_next_one_tells(
    app: OnCue, operator: Operator, watcher: Watcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    listening = watcher.listen(None, operator.jobs)
    await _next(listening, "overview")
    failed = asyncio.Event()
    summary = operator.jobs.summary

    def broken(*_: object) -> None:
        failed.set()
        raise ZeroDivisionError

    monkeypatch.setattr(operator.jobs, "summary", broken)
    handle = await app.schedule(app.tasks["note"].call(), delay=50)
    async with asyncio.timeout(20):
        await failed.wait()
    monkeypatch.setattr(operator.jobs, "summary", summary)
    _, event = await _next(listening, "job")
    assert f'"id":{handle.id},' in event.data
    assert "the live view failed" in caplog.text
    await listening.aclose()


async def test_that_more_changed_than_is_told_is_told(
    app: OnCue, operator: Operator, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "A_TICK", 3)
    listening = watcher.listen(None, operator.jobs)
    await _next(listening, "overview")
    await app.schedule_many([Scheduled(app.tasks["note"].call(), delay=50) for _ in range(5)])
    names = [(await anext(listening))[1].name for _ in range(4)]
    assert names == ["job", "job", "job", "more"]
    await listening.aclose()


async def test_it_says_from_when_on_it_looks(app: OnCue, operator: Operator, watcher: Watcher) -> None:
    listening = watcher.listen(None, operator.jobs)
    first = asyncio.ensure_future(anext(listening))
    looking = asyncio.ensure_future(watcher.looking())
    await looking
    # What changes from here on is told.
    handle = await app.schedule(app.tasks["note"].call(), delay=50)
    assert (await first)[1].name == "overview"
    assert f'"id":{handle.id},' in (await _next(listening, "job"))[1].data
    await listening.aclose()
