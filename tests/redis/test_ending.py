"""A worker beside Redis ends, and nothing of it stays in its loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from oncue.wake import bullmq
from tests.redis.conftest import Make
from tests.valkey import Server


async def test_an_end_that_was_broken_off_is_finished_before_the_next_returns(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BullMQ's worker goes on with its end when it is cancelled, and would hold up the loop's."""
    monkeypatch.setattr(bullmq, "_CLOSING", 0.1)
    begun = asyncio.Event()

    async def hang(id: int, due: int) -> bool:
        begun.set()
        await asyncio.get_running_loop().create_future()
        return True

    stage = make()
    async with stage.app:
        stage.wake.listen(lambda _: None)
        await stage.until_healthy()
        carrier = stage.wake.carrier
        assert carrier is not None
        await carrier.receive(hang)
        await carrier.announce([(1, 1)], 1)
        await begun.wait()
        first = asyncio.create_task(carrier.forget())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await carrier.forget()
    assert len(asyncio.all_tasks()) == 1


async def test_a_proof_that_is_broken_off_while_it_clears_up_leaves_nothing_in_redis(
    make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, clearing = bullmq._close, asyncio.Event()

    async def close_and_tell(*args: Any, **options: Any) -> None:
        clearing.set()
        await close(*args, **options)

    stage = make()
    async with stage.app:
        stage.wake.listen(lambda _: None)
        await stage.until_healthy()
        carrier = stage.wake.carrier
        assert carrier is not None
        monkeypatch.setattr(bullmq, "_close", close_and_tell)
        proof = asyncio.create_task(carrier.prove(10))
        await clearing.wait()
        proof.cancel()
        with pytest.raises(asyncio.CancelledError):
            await proof
        with server.client() as link:
            await stage.until(lambda: not link.keys("*doctor*"))
    assert len(asyncio.all_tasks()) == 1
