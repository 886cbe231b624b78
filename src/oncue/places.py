"""A worker's places: claimed jobs wait here for one, start exactly when due, and leave their outcome to be written."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from oncue.clock import SECOND, Clock
from oncue.job import Ack, Claimed, Failed, Outcome, Snoozed
from oncue.logs import about
from oncue.runner import Run, Runner, Why, describe

log = logging.getLogger("oncue.worker")
Settled = tuple[Claimed, Ack]
_PART = 50
_PACE_OVER = 20_000
_LEAD = 6
_MOST_SPARE = 1_000
_AFTER_BUG = 60 * SECOND


class Places:
    """Runs up to ``concurrency`` claimed jobs at a time and gathers their acks; ``signal`` asks for a round trip.

    ``recorded``: outcomes that stand in the database already, by the handlers' own transactions.

    A little more than fits may be claimed: what the present pace starts within ``_LEAD`` times ``ahead``
    (microseconds), at most half of it at a time, so that what is here lasts until the next half has come. ``delay``:
    the longest that an outcome waits for others, in seconds.
    """

    def __init__(
        self, runner: Runner, clock: Clock, concurrency: int, ahead: int, delay: float, signal: Callable[[], None]
    ) -> None:
        self.acks: list[Settled] = []
        self.recorded: list[Settled] = []
        self.runs: dict[int, Run] = {}
        self._runner, self._clock, self._ahead, self._delay, self._signal = runner, clock, ahead, delay, signal
        self._concurrency = concurrency
        self._batch = max(1, concurrency // 2)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Run] = deque()
        self._begun = 0
        self._beginning = False
        self._ack_timer: asyncio.TimerHandle | None = None
        self._spare_timer: asyncio.TimerHandle | None = None
        self._measured_at = 0
        self._pace = 0.0
        self._spare = 0

    @property
    def room(self) -> int:
        """How many more jobs may be claimed."""
        room = self._concurrency + self._spare - len(self.runs)
        # While so many are fetched, as many are left to run.
        return min(room, max(self._concurrency, (self._concurrency + self._spare) // 2))

    @property
    def worthwhile(self) -> bool:
        """Whether there is room for a batch; a trickle of free places waits for the next outcomes instead."""
        return self.room >= max(1, (self._concurrency + self._spare) // 3)

    def hand_in(self, now: int) -> list[Settled]:
        """Take the acks to write now, and learn the pace from how many there are."""
        entries, self.acks = self.acks, []
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        passed = max(1, now - self._measured_at)
        self._measured_at = now
        pace = len(entries) / passed
        self._pace = pace if passed > SECOND else self._pace + (pace - self._pace) * min(1.0, passed / _PACE_OVER)
        self._spare = min(_MOST_SPARE, int(self._pace * self._ahead * _LEAD))
        return entries

    def take(self, jobs: Sequence[Claimed]) -> None:
        """Give claimed jobs a place, or let them wait for one."""
        for job in jobs:
            self.runs[job.id] = run = Run(job)
            self._waiting.append(run)
        if jobs:
            self._begin_some()

    def _begin_some(self) -> None:
        """Start a part of what waits; between parts the loop can hand in outcomes and take the next batch."""
        self._beginning = False
        part = min(_PART, len(self._waiting), self._concurrency - self._begun)
        for _ in range(part):
            run = self._waiting.popleft()
            self._begun += 1
            run.task = asyncio.Task(self._perform(run), loop=self._loop)
        if self._waiting and part == _PART:
            self._begin_more()
        elif self._waiting and self._spare_timer is None:
            self._spare_timer = self._loop.call_later(self._ahead / SECOND, self._give_spare_back)

    def _begin_more(self) -> None:
        if not self._beginning and self._waiting:
            self._beginning = True
            self._loop.call_soon(self._begin_some)

    async def _perform(self, run: Run) -> None:
        run.entered = True
        try:
            ack = await self._ack_of(run)
        finally:
            self._begun -= 1
        self._finish(run, ack)
        self._begin_more()

    async def _ack_of(self, run: Run) -> Ack:
        """Run one attempt when it is due, to its end."""
        due, now = run.job.start_at, 0
        try:
            # Timers may fire up to a millisecond before their time: ask the clock again.
            while (now := self._clock.now()) < due and not run.why:  # noqa: ASYNC110 - time is no event
                await asyncio.sleep((due - now) / SECOND)
        except asyncio.CancelledError:
            if not run.why:
                raise
        try:
            return await self._runner.run(run, now)
        except Exception as error:
            told = "OnCue itself failed around job %s; the attempt counts as failed"
            log.exception(told, run.job.id, extra=about(run.job))
            return self._runner.settle(run, Failed(*describe(error), delay=_AFTER_BUG))

    def _finish(self, run: Run, ack: Ack) -> None:
        if self.runs.get(run.job.id) is not run:
            log.warning(
                "job %s attempt %s ended (%s) when it was this worker's no more",
                run.job.id,
                run.job.attempt,
                ack.outcome,
                extra=about(run.job),
            )
            return
        del self.runs[run.job.id]
        (self.recorded if run.recorded else self.acks).append((run.job, ack))
        if not self.runs or len(self.acks) >= max(self._batch, (self._concurrency + self._spare) // 3):
            self._signal()
        elif self._ack_timer is None:
            self._ack_timer = self._loop.call_later(self._delay, self._signal)

    def _give_spare_back(self) -> None:
        """Give back what was claimed beyond the places where the running jobs turned out to be slow."""
        self._spare_timer = None
        late = self._clock.now() - 2 * _LEAD * self._ahead
        while self._waiting and self._waiting[0].job.claimed_at < late:
            self._give_back(self._waiting.popleft(), "every place of the worker stayed busy")
        if self._waiting:
            self._spare_timer = self._loop.call_later(self._ahead / SECOND, self._give_spare_back)

    def _give_back(self, run: Run, reason: str) -> None:
        outcome: Outcome = Snoozed(0, f"given back: {reason}", released=True)
        self._finish(run, self._runner.settle(run, outcome))

    def give_waiting_back(self) -> None:
        """At shutdown: give back what has no place, and tell what waits for its due time to end."""
        while self._waiting:
            self._give_back(self._waiting.popleft(), "shutdown")
        for run in list(self.runs.values()):
            if not run.started_at:
                run.stop("shutdown")

    def stop_all(self, why: Why) -> None:
        """Ask every running handler to end."""
        for run in list(self.runs.values()):
            run.stop(why)

    def give_up(self) -> None:
        """Give back the jobs whose handlers do not end."""
        for run in list(self.runs.values()):
            told = "job %s does not end at shutdown; it is given back while its handler may still run"
            log.error(told, run.job.id, extra=about(run.job))
            run.leave()
            self._give_back(run, "shutdown")

    def lose(self) -> None:
        """The lease was lost: tell all handlers, and forget what they bring."""
        self.stop_all("lease lost")
        for run in self.runs.values():
            run.leave()
        self.runs.clear()
        self.acks.clear()
        self._waiting.clear()

    async def next_end(self, timeout: float) -> None:
        """Wait until a run ends, at most ``timeout`` seconds."""
        tasks = {run.task for run in self.runs.values() if run.task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(0)

    def close(self) -> None:
        """Cancel the timers."""
        for timer in (self._ack_timer, self._spare_timer):
            if timer is not None:
                timer.cancel()
