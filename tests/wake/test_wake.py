"""Wake queues: hints reach those that listen, and nothing depends on any one of them."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from oncue.clock import SystemClock
from oncue.errors import ConfigError
from oncue.store import open_store
from oncue.wake import Wake, open_wake
from oncue.wake.watch import watch_file
from tests.store.kit import T0, job
from tests.wake.conftest import Backend, Ear

Start = Callable[[], Awaitable[Wake]]


def none_left(*args: object) -> None:
    raise OSError(24, "Too many open files")


async def test_a_hint_reaches_every_listener_in_the_process(started: Start) -> None:
    first, second = await started(), await started()
    ears = [Ear(), Ear(), Ear()]
    for wake, ear in zip((first, first, second), ears, strict=True):
        wake.listen(ear)
    first.hint(T0)
    for ear in ears:
        await ear.until(lambda heard: T0 in heard)


async def test_a_hint_from_another_thread_is_heard_on_the_listeners_loop(started: Start) -> None:
    wake = await started()
    threads: list[int] = []
    ear = Ear()

    def heard(due: int | None) -> None:
        threads.append(threading.get_ident())
        ear(due)

    wake.listen(heard)
    await asyncio.to_thread(wake.hint, T0)
    await ear.until(lambda heard: T0 in heard)
    assert set(threads) == {threading.get_ident()}


async def test_a_commit_of_another_process_by_plain_sql_is_heard(started: Start, backend: Backend) -> None:
    wake, ear = await started(), Ear()
    wake.listen(ear)
    await backend.foreign_commit()
    await ear.anything()


async def test_every_commit_is_heard_however_close_they_come(started: Start, backend: Backend) -> None:
    """A burst may be heard as one; what may not happen is that the last one is missed."""
    wake, ear = await started(), Ear()
    wake.listen(ear)
    watching, acting = open_store(backend.database, SystemClock()), open_store(backend.database, SystemClock())
    await watching.open()
    await acting.open()
    await watching.changed_elsewhere()
    for n in range(30):
        ear.heard.clear()
        for _ in range(n % 3 + 1):
            await acting.insert(job())
        while not await watching.changed_elsewhere():
            await ear.anything()
            ear.heard.clear()
    await watching.close()
    await acting.close()


async def test_who_does_not_listen_any_more_hears_nothing(started: Start) -> None:
    wake, gone, stays = await started(), Ear(), Ear()
    unlisten = wake.listen(gone)
    wake.listen(stays)
    unlisten()
    unlisten()
    wake.hint(T0)
    await stays.until(lambda heard: T0 in heard)
    assert gone.heard == []


async def test_a_closed_wake_queue_tells_nobody_and_hurts_nobody(started: Start) -> None:
    closing, staying = await started(), await started()
    gone, stays = Ear(), Ear()
    closing.listen(gone)
    staying.listen(stays)
    await closing.close()
    await closing.close()
    closing.hint(T0)
    staying.hint(T0 + 1)
    await stays.until(lambda heard: T0 + 1 in heard)
    assert gone.heard == []


async def test_a_listener_may_leave_while_it_is_told(started: Start) -> None:
    wake, other = await started(), Ear()
    leave: list[Callable[[], None]] = []
    heard: list[int | None] = []

    def once(due: int | None) -> None:
        heard.append(due)
        leave[0]()

    leave.append(wake.listen(once))
    wake.listen(other)
    for n in range(3):
        wake.hint(T0 + n)
    await other.until(lambda got: T0 + 2 in got)
    assert len(heard) == 1


def test_a_hint_to_a_loop_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    wake = open_wake(None, f"sqlite:///{tmp_path / 'jobs.db'}")

    async def listen_and_go() -> None:
        wake.listen(lambda due: None)

    asyncio.run(listen_and_go())
    wake.hint(T0)
    wake.hint(T0)


async def test_a_hint_nobody_listens_to_is_harmless(started: Start) -> None:
    (await started()).hint(T0)


async def test_a_healthy_wake_queue_says_so(started: Start) -> None:
    assert (await started()).healthy is None


def test_an_unknown_wake_queue_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="local://"):
        open_wake("carrier-pigeon://roof", "sqlite:///x.db")


async def test_where_files_cannot_be_watched_it_looks_again_and_again_and_says_so(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not backend.database.startswith("sqlite"):
        pytest.skip("watches no file")

    monkeypatch.setattr("oncue.wake.watch._Inotify", none_left)
    monkeypatch.setattr("oncue.wake.watch._Kqueue", none_left)
    wake, ear = open_wake(backend.wake, backend.database), Ear()
    with caplog.at_level(logging.WARNING, "oncue.wake"):
        await wake.start()
    assert wake.healthy is not None
    assert "Too many open files" in wake.healthy
    assert "looking every 50 ms" in wake.healthy
    assert wake.healthy in caplog.text
    wake.listen(ear)
    await backend.foreign_commit()
    await ear.anything()
    await wake.close()


async def test_a_watch_ends_without_leaving_a_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    lowest = os.dup(0)
    os.close(lowest)
    for _ in range(20):
        watch, problem = watch_file(path, lambda: None)
        assert problem is None
        watch.close()
    again = os.dup(0)
    os.close(again)
    assert again == lowest


async def test_a_watch_that_is_closed_in_the_moment_of_a_change_stays_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    heard = Ear()
    watch, _ = watch_file(path, lambda: heard(None))
    path.write_text("y")
    await heard.anything()
    watch.close()
    seen = len(heard.heard)
    path.write_text("z")
    other = Ear()
    another, _ = watch_file(path, lambda: other(None))
    path.write_text("zz")
    await other.anything()
    another.close()
    assert len(heard.heard) == seen
