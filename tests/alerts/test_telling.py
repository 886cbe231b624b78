"""Who is told, how often, and by which process. Real HTTP on loopback; the clock is moved."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from oncue import OnCue
from oncue.alerts import Alert, Late
from oncue.clock import SECOND
from oncue.testing import TestClock
from tests.clocked import Make


class Something:
    """A rule that finds what a test says."""

    name = "something"
    to = None

    def __init__(self, found: str | None = "it is broken", repeat: float | None = 3600.0) -> None:
        self.found, self.repeat = found, repeat

    async def find(self, _: OnCue) -> str | None:
        return self.found


class Hook(HTTPServer):
    """Takes what is posted, and answers ``status``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status, self.got, self.paths = 200, list[dict[str, Any]](), list[str]()
        self.headers: dict[str, str] = {}
        self.open = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/a-secret"


class _Answer(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.headers["content-type"] == "application/json"
        self.server.got.append(json.loads(body))
        self.server.paths.append(self.path)
        self.send_response(self.server.status)
        for header in self.server.headers.items():
            self.send_header(*header)
        self.end_headers()
        if self.server.open:
            self.rfile.read(1)

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_it_is_told_once_and_once_more_when_it_is_well(app: OnCue, clock: TestClock) -> None:
    told: list[Alert] = []
    rule = Something()
    app.alert(rule, to=told.append)
    async with app:
        began = clock.moment
        await app.alerts.run_once()
        clock.advance(60)
        rule.found = "it is more broken"
        await app.alerts.run_once()
        assert [(one.state, one.text) for one in told] == [("firing", "OnCue (default): something: it is broken.")]
        clock.advance(60)
        rule.found = None
        for _ in range(3):
            await app.alerts.run_once()
        (firing, well) = told
        assert (firing.since, firing.ended, firing.again) == (began, None, False)
        assert (well.state, well.since, well.ended, well.id) == ("recovered", began, clock.moment, firing.id)
        assert well.text == "OnCue (default): something is well again after 2 min; it was: it is broken."
        clock.advance(5)
        rule.found = "it is broken once more"
        await app.alerts.run_once()

    assert told[2].since == clock.moment
    assert told[2].id != firing.id


async def test_what_begins_anew_before_anybody_was_told_of_its_end_is_the_same_alert(
    app: OnCue, clock: TestClock, hook: Hook
) -> None:
    rule = Something()
    app.alert(rule, to=hook.url)
    async with app:
        for found, status in (("it is broken", 200), (None, 503), ("it is broken", 200), (None, 200)):
            rule.found, hook.status = found, status
            await app.alerts.run_once()
            clock.advance(5)

    assert [(one["state"], one["id"]) for one in hook.got] == [
        (state, hook.got[0]["id"]) for state in ("firing", "recovered", "firing", "recovered")
    ]
    assert len({one["since"] for one in hook.got}) == 1


async def test_news_is_not_put_off_by_how_often_older_news_was_tried_in_vain(
    app: OnCue, clock: TestClock, hook: Hook
) -> None:
    rule = Something()
    app.alert(rule, to=hook.url)
    async with app:
        await app.alerts.run_once()
        hook.status, rule.found = 503, None
        for _ in range(4):
            await app.alerts.run_once()
            clock.advance(1800)
        rule.found = "it is broken"
        await app.alerts.run_once()
        hook.status = 200
        before = len(hook.got)
        clock.advance(60)
        await app.alerts.run_once()
    assert [one["state"] for one in hook.got[before:]] == ["firing"]


async def test_while_it_lasts_it_is_told_again_only_after_a_while(app: OnCue, clock: TestClock) -> None:
    told: list[Alert] = []
    rule = Something(repeat=600)
    app.alert(rule, to=told.append)
    async with app:
        for _ in range(25):
            await app.alerts.run_once()
            clock.advance(60)
            rule.found = "it is still broken"

    assert [one.again for one in told] == [False, True, True]
    assert told[1].text == "OnCue (default): something still: it is still broken."
    assert told[1].id == told[0].id


async def test_of_many_processes_one_tells(make: Make) -> None:
    told: list[Alert] = []
    others_are_through = asyncio.Event()

    async def tell(alert: Alert) -> None:
        told.append(alert)
        await others_are_through.wait()

    async def all_look() -> None:
        others_are_through.clear()
        turns = {asyncio.create_task(app.alerts.run_once()) for app in apps}
        async with asyncio.timeout(20):
            # While it is being told, nobody else does.
            while sum(turn.done() for turn in turns) < len(turns) - 1:
                await asyncio.wait([turn for turn in turns if not turn.done()], return_when=asyncio.FIRST_COMPLETED)
            others_are_through.set()
            await asyncio.gather(*turns)

    apps = [make() for _ in range(4)]
    rules = [Something() for _ in apps]
    async with contextlib.AsyncExitStack() as stack:
        for app, rule in zip(apps, rules, strict=True):
            app.alert(rule, to=tell)
            await stack.enter_async_context(app)
        await all_look()
        assert [one.state for one in told] == ["firing"]
        for rule in rules:
            rule.found = None
        await all_look()

    assert [one.state for one in told] == ["firing", "recovered"]


async def test_two_applications_on_one_database_alert_apart(make: Make) -> None:
    told: list[Alert] = []
    for name in ("one", "two"):
        app = make(name=name)
        app.alert(Something(), to=told.append)
        async with app:
            await app.alerts.run_once()

    assert [one.app for one in told] == ["one", "two"]


@pytest.mark.parametrize("client", ["httpx", "urllib"])
async def test_a_hook_gets_it_as_json(
    app: OnCue, clock: TestClock, hook: Hook, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if client == "urllib":
        monkeypatch.setitem(sys.modules, "httpx", None)
    app.alert(Something(), to=hook.url)
    async with app:
        await app.alerts.run_once()

    (got,) = hook.got
    assert hook.paths == ["/a-secret"]
    assert got == {
        "id": f"default/something/{clock.now()}",
        "app": "default",
        "name": "something",
        "state": "firing",
        "text": "OnCue (default): something: it is broken.",
        "found": "it is broken",
        "since": "2030-01-01T12:00:00Z",
        "ended": None,
        "again": False,
    }


@pytest.mark.parametrize("client", ["httpx", "urllib"])
async def test_what_could_not_be_told_is_tried_again_with_growing_pauses(
    app: OnCue, clock: TestClock, hook: Hook, client: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    if client == "urllib":
        monkeypatch.setitem(sys.modules, "httpx", None)
    hook.status = 503
    app.alert(Something(), to=hook.url)
    tried = []
    async with app:
        with caplog.at_level(logging.ERROR):
            for second in range(0, 300, 15):
                before = len(hook.got)
                await app.alerts.run_once()
                if len(hook.got) > before:
                    tried.append(second)
                clock.advance(15)
        assert tried == [0, 60, 180]
        assert "the alert could not be told; again in 60 s: OnCue (default): something" in caplog.text
        assert "127.0.0.1" in caplog.text
        assert "a-secret" not in caplog.text
        hook.status = 204
        clock.advance(1800)
        await app.alerts.run_once()
        await app.alerts.run_once()

    assert len(hook.got) == 4


@pytest.mark.parametrize("client", ["httpx", "urllib"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_no_proof_that_somebody_was_told(
    app: OnCue, hook: Hook, client: str, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if client == "urllib":
        monkeypatch.setitem(sys.modules, "httpx", None)
    hook.status, hook.headers = status, {"Location": "/elsewhere"}
    app.alert(Something(), to=hook.url)
    async with app:
        assert await app.alerts.run_once() == []
    assert hook.paths == ["/a-secret"]
    assert f"it answered {status}" in caplog.text


@pytest.mark.parametrize("client", ["httpx", "urllib"])
async def test_what_a_hook_says_besides_its_status_is_not_waited_for(
    app: OnCue, hook: Hook, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if client == "urllib":
        monkeypatch.setitem(sys.modules, "httpx", None)
    # It promises a long answer and says no word of it while the connection lasts.
    hook.headers, hook.open = {"Content-Length": str(10**12)}, True
    app.alert(Something(), to=hook.url)
    async with app:
        assert len(await app.alerts.run_once()) == 1


async def test_a_hooks_address_is_in_no_log(app: OnCue, hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    app.alert(Something(), to=hook.url)
    async with app:
        with caplog.at_level(logging.DEBUG):
            assert len(await app.alerts.run_once()) == 1
    assert "a-secret" not in caplog.text
    logging.getLogger("httpx").warning("of others")
    assert "of others" in caplog.text


async def test_what_a_process_did_not_live_to_tell_another_one_tells(make: Make, clock: TestClock) -> None:
    def dies(_: Alert) -> None:
        raise KeyboardInterrupt

    first, second, told = make(), make(), list[Alert]()
    first.alert(Something(), to=dies)
    second.alert(Something(), to=told.append)
    async with first, second:
        with pytest.raises(KeyboardInterrupt):
            await first.alerts.run_once()
        await second.alerts.run_once()
        assert told == []
        clock.advance(61)
        await second.alerts.run_once()

    assert [one.text for one in told] == ["OnCue (default): something: it is broken."]


async def test_a_rule_that_fails_keeps_no_other_from_its_turn(app: OnCue, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Something):
        name = "broken"

        async def find(self, _: OnCue) -> str | None:
            raise ZeroDivisionError

    told: list[Alert] = []
    app.alert(Broken(), Something(), to=told.append)
    async with app:
        await app.alerts.run_once()

    assert [one.name for one in told] == ["something"]
    assert "the alert broken failed" in caplog.text


async def test_a_worker_looks_by_itself_and_tells_an_async_function(make: Make, clock: TestClock) -> None:
    told: asyncio.Queue[Alert] = asyncio.Queue()
    app = make(alerts=[Late(after=1, to=told.put)])

    @app.task(name="send", queue="mail")
    async def send() -> None: ...

    async with app:
        await app.schedule(send.call())
        clock.advance(5)
        ready = asyncio.Event()
        async with app.alerts.watching(ready, every=0.01):
            # A worker that is about to register is not missing.
            for _ in range(20):
                await asyncio.sleep(0)
            assert told.empty()
            ready.set()
            async with asyncio.timeout(20):
                assert (await told.get()).found == "1 job late, the first for 5.0 s in queue mail"
            await app.drain()
            async with asyncio.timeout(20):
                assert (await told.get()).state == "recovered"


async def test_a_drain_and_a_sweep_tell_too(app: OnCue, clock: TestClock) -> None:
    told: list[Alert] = []
    rule = Something()
    app.alert(rule, to=told.append)
    await app.drain()
    assert [one.state for one in told] == ["firing"]
    rule.found = None
    async with app:
        await app.service(worker=False).sweep()

    assert [one.state for one in told] == ["firing", "recovered"]
    assert told[1].ended is not None
    assert clock.now() % SECOND == 0


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_function_that_blocks_holds_up_nothing_else(
    app: OnCue, monkeypatch: pytest.MonkeyPatch, *, comes_back: bool
) -> None:
    begun, go_on, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()
    told: list[str] = []

    def tell(alert: Alert) -> None:
        loop.call_soon_threadsafe(begun.set)
        if go_on.wait(20):
            told.append(alert.state)

    if not comes_back:
        monkeypatch.setattr("oncue.alerts.PATIENCE", 0.01)
    app.alert(Something(), to=tell)
    async with app:
        looking = asyncio.create_task(app.alerts.run_once())
        await begun.wait()
        if comes_back:
            assert not told
            go_on.set()
        assert len(await looking) == comes_back
        assert told == ["firing"] * comes_back
    go_on.set()
