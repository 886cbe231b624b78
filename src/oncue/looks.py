"""Who asked a worker to look for due jobs, and up to when it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from oncue.job import Claimed
from oncue.store import Claims


class Looks:
    """Lets a worker without ``timers`` look only when asked, with outcomes to hand in, or when it knows of more."""

    def __init__(self, *, timers: bool) -> None:
        self.timers = timers
        self.until = 0
        """What was due by then (microseconds) has been looked for, and nothing of it was left behind."""
        self.more = False
        """Whether the last claim left due jobs behind."""
        self.on_news: Callable[[], None] | None = None
        """Called where a claim shows that the next job comes at another time than it seemed before: after a retry,
        a snooze or a limit, of which no hint tells."""
        self.on_claimed: Callable[[Sequence[Claimed]], None] | None = None
        """Called with the jobs of each claim that was made and holds."""
        self._next: int | None = None
        self._asked: list[asyncio.Future[bool]] = []
        self._closed = False

    @property
    def asked(self) -> bool:
        """Whether somebody waits for a claim."""
        return bool(self._asked)

    def ask(self) -> asyncio.Future[bool]:
        """Return what becomes True once a claim was made that began after this call; False where none will be."""
        asked: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._closed:
            asked.set_result(False)
        else:
            self._asked.append(asked)
        return asked

    def begin(self, room: int, *, acks: bool) -> tuple[int, list[asyncio.Future[bool]]]:
        """Return how many jobs this round may claim of those that there is room for, and who waits for that."""
        if room <= 0 or not (self.timers or self._asked or acks or self.more):
            return min(room, 0), []
        asked, self._asked = self._asked, []
        return room, asked

    def made(self, asked: list[asyncio.Future[bool]], room: int, found: Claims, until: int) -> None:
        """The claim was made: tell those who waited for it."""
        if room > 0:
            self.more = found.more
            if not found.more:
                self.until = until
        for one in asked:
            if not one.done():
                one.set_result(True)
        if found.jobs and self.on_claimed is not None:
            self.on_claimed(found.jobs)
        if found.next_eligible != self._next:
            self._next = found.next_eligible
            if self.on_news is not None and self._next is not None:
                self.on_news()

    def failed(self, asked: list[asyncio.Future[bool]]) -> None:
        """The claim was not made: they wait for the next one."""
        self._asked[:0] = asked

    def close(self) -> None:
        """No more claims are made."""
        self._closed = True
        for one in self._asked:
            if not one.done():
                one.set_result(False)
        self._asked.clear()
