"""A worker that hears late says so in its row, to every face, and connects anew when an operator asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from oncue import OnCue
from oncue.ears import Ears
from oncue.operate import Operator
from oncue.operate.views import Health
from oncue.store import WorkerRow
from oncue.testing import TestClock
from tests import pg, pgfaults

S = 1_000_000
WHY = "LISTEN on db failed: no answer."


class Mute:
    """A wake channel that works or doesn't, as the test says; and how often it was to connect anew."""

    healthy: str | None = None
    tries = 0

    def reconnect(self) -> None:
        self.tries += 1


Listening = Callable[[], Awaitable[tuple[Mute, Callable[[], Awaitable[None]]]]]


@pytest.fixture
def listening(app: OnCue) -> Listening:
    """Registers a worker with a wake channel; answers that, and what its rounds report."""

    async def begin() -> tuple[Mute, Callable[[], Awaitable[None]]]:
        mute, now = Mute(), app.clock.now()
        ears = Ears(app.store, mute, app.clock)  # type: ignore[arg-type]
        row = WorkerRow(0, "w-1", "elsewhere", 1, None, now, now, now + 1000 * S)
        worker, _ = await app.store.register(row)
        return mute, lambda: ears.report(worker)

    return begin


async def _deafen(mute: Mute, report: Callable[[], Awaitable[None]], clock: TestClock) -> None:
    """Have the channel fail for long enough to be told."""
    mute.healthy = WHY
    await report()
    clock.advance(1)
    await report()


async def _check(operator: Operator) -> Health:
    operator.look.forget()
    return next(one for one in await operator.checks() if one.name == "wake of workers")


async def test_what_lasts_a_second_is_told_with_the_time_it_began_and_so_is_its_end(
    operator: Operator, app: OnCue, clock: TestClock, listening: Listening
) -> None:
    assert (await _check(operator)).found == "no worker is alive"
    mute, report = await listening()
    await report()
    assert (await _check(operator)).state == "ok"
    began, mute.healthy = clock.now(), WHY
    await report()
    assert (await _check(operator)).state == "ok"
    clock.advance(1)
    await report()
    (worker,) = await app.jobs.workers()
    assert (worker.wake, worker.wake_since) == (WHY, began)
    (shown,) = await operator.flows.workers()
    assert shown.wake == WHY
    found = await _check(operator)
    assert (found.state, found.found) == ("warn", f"w-1 since 1.0 s ago: {WHY.rstrip('.')}")
    mute.healthy = None
    await report()
    (worker,) = await app.jobs.workers()
    assert (worker.wake, worker.wake_since, (await _check(operator)).state) == (None, None, "ok")


async def test_who_hears_late_is_asked_once_for_each_request_and_the_audit_names_them(
    operator: Operator, clock: TestClock, listening: Listening
) -> None:
    mute, report = await listening()
    other, _ = await listening()
    nobody = await operator.reconnect()
    assert (nobody.done, (await operator.audit()).items) == (False, [])
    await _deafen(mute, report, clock)
    assert mute.tries == 0
    for tries in (1, 2):
        clock.advance(1)
        done = await operator.reconnect()
        assert done.done
        assert done.text.startswith("Connecting anew: w-1. ")
        for _ in range(3):
            clock.advance(1)
            await report()
        assert (mute.tries, other.tries) == (tries, 0)
    lines = [(line.action, line.target, line.count) for line in (await operator.audit()).items]
    assert lines == [("reconnect", "wake", 1)] * 2


async def test_a_worker_that_is_gone_is_neither_asked_nor_said_to_hear_late(
    operator: Operator, clock: TestClock, listening: Listening
) -> None:
    mute, report = await listening()
    await _deafen(mute, report, clock)
    clock.advance(600)
    assert not (await operator.reconnect()).done
    (worker,) = await operator.flows.workers()
    assert (worker.state, worker.wake, worker.wake_since) == ("silent", None, None)
    assert (await _check(operator)).found == "no worker is alive"


async def test_a_request_of_a_trouble_that_is_over_is_not_heeded_at_the_next(
    operator: Operator, clock: TestClock, listening: Listening
) -> None:
    mute, report = await listening()
    await _deafen(mute, report, clock)
    await operator.reconnect()
    mute.healthy = None
    await report()
    clock.advance(60)
    mute.healthy = WHY
    for _ in range(3):
        await report()
        clock.advance(1)
    assert mute.tries == 0


async def test_a_worker_with_a_new_id_tells_it_anew(
    operator: Operator, app: OnCue, clock: TestClock, listening: Listening
) -> None:
    now, mute = clock.now(), Mute()
    ears = Ears(app.store, mute, clock)  # type: ignore[arg-type]
    mute.healthy = WHY
    for name in ("before", "after"):
        id, _ = await app.store.register(WorkerRow(0, name, "elsewhere", 1, None, now, now, now + 1000 * S))
        for _ in range(2):
            await ears.report(id)
            clock.advance(1)
    assert {one.name: one.wake for one in await app.jobs.workers()} == {"before": WHY, "after": WHY}


async def test_a_database_that_is_away_is_no_error_of_the_worker(
    pg_database: pg.Database, pg_proxy: pgfaults.Proxy, clock: TestClock
) -> None:
    async with OnCue(pg_proxy.dsn(pg_database.dsn), clock=clock) as app, OnCue(pg_database.dsn) as other:
        now, mute = clock.now(), Mute()
        id, _ = await app.store.register(WorkerRow(0, "w-1", "elsewhere", 1, None, now, now, now + 1000 * S))
        ears, mute.healthy = Ears(app.store, mute, clock), WHY  # type: ignore[arg-type]
        await ears.report(id)
        clock.advance(1)
        pg_proxy.refuse()
        pg_proxy.cut()
        await ears.report(id)
        pg_proxy.heal()
        # Each connection of the pool that was cut fails once.
        while [one.wake for one in await other.jobs.workers()] == [None]:
            clock.advance(1)
            await ears.report(id)
