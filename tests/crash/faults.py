"""Named points at which a test's process kills or stops itself. They are put in from outside; src knows nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from oncue.job import Completed, Inserted
from oncue.runner import Runner
from oncue.store import sqlite as store
from oncue.store.sqlite import SqliteStore, schema
from oncue.store.sqlite.connection import ConnectionThread
from oncue.store.steps import Steps, claim, manage, schedules
from tests.crash.ledger import Ledger

When = Callable[..., bool]


def _always(*args: Any) -> bool:
    return True


class Faults:
    """Reaching the armed ``point`` for the ``nth`` time ends (or stops) this process there and then."""

    def __init__(self, ledger: Ledger, point: str, nth: int, sent: int) -> None:
        self._ledger, self._point, self._left, self._signal = ledger, point, nth, sent
        self._lock = threading.Lock()
        if point:
            self._install()

    def reach(self, point: str) -> None:
        """Say that execution is at ``point``."""
        if point != self._point:
            return
        with self._lock:
            self._left -= 1
            if self._left != 0:
                return
            self._ledger.write("dying" if self._signal == signal.SIGKILL else "stopping", note=point)
            os.kill(os.getpid(), self._signal)

    def _install(self) -> None:
        self._after_steps(store, "insert_jobs", "inserted, not committed")
        self._after(ConnectionThread, "_transaction", "committed, not promised", _has_inserted)
        self._after_steps(claim, "claim", "claim not committed", lambda found, *_: bool(found.jobs))
        self._after(Runner, "settle", "handled", lambda _, self, run, outcome: isinstance(outcome, Completed))
        self._after_steps(claim, "write_acks", "ack not committed")
        self._after_steps(manage, "rescue", "rescue not committed", lambda taken, *_: bool(taken))
        self._after_steps(schedules, "advance_schedule", "fire not committed", lambda fired, *_: bool(fired))
        self._after_async("claim", "claimed", lambda found, *_: bool(found.jobs))
        self._after_async("claim", "acked", lambda found, self, request: bool(request.acks))
        self._after_async("rescue", "rescued", lambda taken, *_: bool(taken))
        self._after_async("advance_schedule", "fired", lambda fired, *_: bool(fired))
        self._before_async("unregister", "signing off")
        self._before_async("advance_schedule", "about to fire")
        self._before_async("claim", "handing in", lambda self, request: bool(request.acks))
        self._in_migration()

    def _after(self, owner: Any, name: str, point: str, when: When = _always) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **named: Any) -> Any:
            result = original(*args, **named)
            if when(result, *args):
                self.reach(point)
            return result

        setattr(owner, name, wrapped)

    def _after_steps(self, owner: Any, name: str, point: str, when: When = _always) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **named: Any) -> Steps[Any]:
            result = yield from original(*args, **named)
            if when(result, *args):
                self.reach(point)
            return result

        setattr(owner, name, wrapped)

    def _after_async(self, name: str, point: str, when: When = _always) -> None:
        original = getattr(SqliteStore, name)

        async def wrapped(*args: Any) -> Any:
            result = await original(*args)
            if when(result, *args):
                self.reach(point)
            return result

        setattr(SqliteStore, name, wrapped)

    def _before_async(self, name: str, point: str, when: When = _always) -> None:
        original = getattr(SqliteStore, name)

        async def wrapped(*args: Any) -> Any:
            if when(*args):
                self.reach(point)
            return await original(*args)

        setattr(SqliteStore, name, wrapped)

    def _in_migration(self) -> None:
        original = schema.statements

        def statements(script: str) -> Iterator[str]:
            for statement in original(script):
                yield statement
                self.reach("migrating")

        schema.statements = statements


def _has_inserted(results: Any, *_: Any) -> bool:
    return any(isinstance(result, list) and result and isinstance(result[0], Inserted) for result, _ in results)


def note_acks(store: Any, ledger: Ledger) -> None:
    """Have the ledger say which outcomes are durable: those jobs may never start again.

    Also from when on a job with a limit was allowed to start: how late it then does is the machine's affair.
    """
    original = store.claim

    async def noted(self: Any, request: Any) -> Any:
        found = await original(self, request)
        for ack in request.acks:
            if ack.id not in found.lost and ack.id not in found.unwritten and ack.state != "scheduled":
                ledger.write("acked", job=ack.id, attempt=ack.attempt)
        for job in found.jobs:
            if job.task == "limited":
                ledger.write("allowed", now=max(request.now, job.start_at), job=job.id)
        return found

    store.claim = noted
