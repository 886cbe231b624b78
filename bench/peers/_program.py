"""The command line of a peer's program: ``python -m bench.peers.NAME OPERATION [JSON]``.

A peer runs in its own interpreter with its own packages, so the runner speaks to it by processes:
one JSON object as argument, one JSON value printed as the last line.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from sqlite3 import dbapi2
from typing import Any, Protocol

WORK = Path(os.environ.get("BENCH_DIR", "."))
WAKE = os.environ.get("BENCH_WAKE")
REDIS_URL = os.environ.get("BENCH_REDIS_URL", "")
DSN = os.environ.get("BENCH_DSN", "")
_FAR_S = 7 * 86_400
CALLERS = 50  # of single calls, where the API is asynchronous
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "0"))  # 0: the peer's default


class Peer(Protocol):
    """What each peer's file offers. Times are seconds since the epoch, durations seconds."""

    def prepare(self) -> None:
        """Make the store ready, so that no measured step creates tables."""

    def enqueue_at(self, dues: Sequence[float]) -> None:
        """Schedule no-op job i for dues[i], by single calls as a program would."""

    def enqueue_many(self, count: int, due: float, kind: str) -> None:
        """Schedule ``count`` jobs of kind ``noop`` or ``sleep``, by the peer's bulk call if it has one."""

    def worker_command(self) -> list[str]:
        """The command that starts one worker process with default settings."""

    def results(self) -> dict[str, int | None]:
        """How many jobs the store holds: ``left`` (waiting or running) and ``completed``."""


class AsyncPeer:
    """A peer whose API is asynchronous. What it opens stays open from the first call on: only the calls are timed."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.wait(self.open())

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do it and return what it found."""
        return self._runner.run(work)

    def close(self) -> None:
        """End what `open` began."""
        self.wait(self.shut())
        self._runner.close()

    async def open(self) -> None:
        """Connect."""

    async def shut(self) -> None:
        """Disconnect."""

    async def one(self, kind: str, index: int, due: float) -> None:
        """Schedule one job by a single call."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Nothing, where opening makes what is needed."""

    def enqueue_at(self, dues: Sequence[float]) -> None:
        self.wait(by_callers([functools.partial(self.one, "noop", i, due) for i, due in enumerate(dues)]))

    def enqueue_many(self, count: int, due: float, kind: str) -> None:
        """By single calls too, where there is no call for many."""
        dues = enumerate(due_times(count, due))
        self.wait(by_callers([functools.partial(self.one, kind, i, at) for i, at in dues]))


@functools.cache  # a peer's file may be imported twice, as __main__ too
def trace_sqlite() -> None:
    """Write every SQL statement with its time to BENCH_TRACE, if set. Call it before connecting."""
    path = os.environ.get("BENCH_TRACE")
    if not path:
        return
    out = Path(path).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115 - lives as long as the process
    real: Callable[..., sqlite3.Connection] = sqlite3.connect

    def note(statement: str) -> None:
        out.write(f"{time.time():.3f}\t{' '.join(statement.split())}\n")

    class Traced(sqlite3.Connection):
        """A library that sets (or clears) its own trace does not end ours."""

        def set_trace_callback(self, _theirs: Callable[[str], object] | None, /) -> None:
            super().set_trace_callback(note)

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = real(*args, factory=Traced, **kwargs)
        connection.set_trace_callback(None)
        return connection

    sqlite3.connect = connect  # type: ignore[assignment]
    dbapi2.connect = connect  # type: ignore[assignment]


def due_times(count: int, due: float) -> list[float]:
    """When each of many jobs is due: all at once, but the many far ones a millisecond apart."""
    apart = 0.001 if count >= 100_000 and due > time.time() + _FAR_S else 0.0
    return [due + index * apart for index in range(count)]


async def by_callers(calls: Sequence[Callable[[], Awaitable[Any]]], callers: int = CALLERS) -> None:
    """Make the calls, so many at a time: each caller makes its next one when it has the answer to the last."""
    waiting = iter(calls)

    async def caller() -> None:
        for call in waiting:
            await call()

    await asyncio.gather(*(caller() for _ in range(callers)))


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    value = action()
    return time.perf_counter() - start, value


def run(peer: Peer) -> None:
    """Carry out the operation named on the command line and print its answer."""
    operation = sys.argv[1]
    options = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    answer: Any = None
    if operation == "prepare":
        peer.prepare()
    elif operation == "enqueue_at":
        base, first, last = time.time(), options["first"], options["last"]
        step = (last - first) / max(1, options["count"] - 1)
        dues = [round(base + first + i * step, 3) for i in range(options["count"])]
        answer = _timed(lambda: peer.enqueue_at(dues))[0]
    elif operation == "enqueue_single":
        far = time.time() + options["delay"]
        answer = []
        for _ in range(options["rounds"]):
            answer.append(_timed(lambda: peer.enqueue_at([far] * options["count"]))[0])
    elif operation == "enqueue_many":
        due = options["due"] if "due" in options else time.time() + options["delay"]
        answer = {"seconds": _timed(lambda: peer.enqueue_many(options["count"], due, options["kind"]))[0]}
    elif operation == "worker_command":
        answer = peer.worker_command()
    elif operation == "results":
        answer = peer.results()
    else:
        raise SystemExit(f"unknown operation {operation!r}")
    print(json.dumps(answer))
