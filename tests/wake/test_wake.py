"""Wake queues: hints reach those that listen, and nothing depends on any one of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from oncue.clock import SystemClock
from oncue.errors import ConfigError
from oncue.store import open_store
from oncue.wake import Wake, open_wake
from tests.store.kit import T0, S, job
from tests.wake.conftest import Backend, Ear

Start = Callable[[], Awaitable[Wake]]


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
    now = time.time() - T0 / S
    for n in range(30):
        ear.heard.clear()
        for _ in range(n % 3 + 1):
            await acting.insert(job(now))
        await ear.anything()
        ear.heard.clear()
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


async def test_a_hint_to_a_loop_that_is_gone_is_forgotten(started: Start) -> None:
    wake, here = await started(), Ear()

    async def listen_and_go() -> None:
        wake.listen(lambda due: None)

    await asyncio.to_thread(asyncio.run, listen_and_go())
    wake.listen(here)
    wake.hint(T0)
    wake.hint(T0 + 1)
    await here.until(lambda heard: heard == [T0, T0 + 1])


async def test_a_hint_nobody_listens_to_is_harmless(started: Start) -> None:
    (await started()).hint(T0)


async def test_a_healthy_wake_queue_says_so(started: Start) -> None:
    assert (await started()).healthy is None


def test_an_unknown_wake_queue_is_refused_with_those_there_are() -> None:
    for database, known in (("sqlite:///x.db", "local://"), ("postgresql://h/db", "postgresql://")):
        with pytest.raises(ConfigError, match=f"'carrier-pigeon://'.*{known}.*redis://") as refused:
            open_wake("carrier-pigeon://user:secret@roof", database)
        assert "secret" not in str(refused.value)
