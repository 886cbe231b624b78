"""Writing what this process counted to ``oncue_minute``, where every face reads what was done in which minute."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from oncue.clock import Clock
from oncue.errors import StoreError
from oncue.metrics import Minute, Recorder, to_json
from oncue.store import Store
from oncue.store.operating import MinuteRow
from oncue.store.steps.operate import save_minutes
from oncue.words import counted

log = logging.getLogger("oncue.minutes")
EVERY = 5.0
"""Seconds between two writes while there is work: so much is lost of these figures, and of nothing else, when a
process dies. Nothing is written while there is none."""


@contextlib.asynccontextmanager
async def writing_minutes(store: Store, clock: Clock, recorder: Recorder, every: float = EVERY) -> AsyncIterator[None]:
    """For the length of an ``async with`` block write what is counted, every few seconds, and in the end the rest."""
    news = asyncio.Event()
    recorder.listeners.append(news.set)
    if recorder.news:
        news.set()

    async def write_on() -> None:
        while True:
            await news.wait()
            await asyncio.sleep(every)
            news.clear()
            if not await write(store, clock, recorder):
                news.set()

    writer = asyncio.create_task(write_on())
    try:
        yield
    finally:
        recorder.listeners.remove(news.set)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        await write(store, clock, recorder)


async def write(store: Store, clock: Clock, recorder: Recorder) -> bool:
    """Write the minutes that have new figures. False where the database fails: they are kept for another try."""
    minutes = recorder.take_minutes(clock.now())
    if not minutes:
        return True
    rows = [_row(one) for one in minutes]
    try:
        await store.change(lambda: save_minutes(rows))
    except StoreError as error:
        log.warning("%s of figures can't be written now: %s", counted(len(rows), "row"), error)
        recorder.give_back(minutes)
        return False
    except BaseException:
        recorder.give_back(minutes)
        raise
    return True


def _row(one: Minute) -> MinuteRow:
    return MinuteRow(
        one.minute,
        one.worker,
        one.task,
        one.started,
        one.completed,
        one.retried,
        one.discarded,
        one.skipped,
        one.ran_us,
        to_json(one.lateness),
    )
