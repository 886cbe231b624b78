"""Starting, stopping and killing the processes of a test, and waiting for what they write in the ledger."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.crash.check import EVERYBODY, Verdict, judge, rows
from tests.crash.ledger import Ledger, Line, Reader
from tests.crash.orders import Orders

# Replays what a run has printed.
SEED = int(os.environ.get("ONCUE_CRASH_SEED", "20261124"))
# A third of it for SQLite, one for PostgreSQL, one for Redis beside both.
SOAK = float(os.environ.get("ONCUE_SOAK_MINUTES", "0")) * 60 / 3
ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 40.0
_LOOK = 0.005


class Player:
    """One process of a test."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log
        self.pid = process.pid
        self.ending = False

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None


class Stage:
    """A folder with a ledger and a database (SQLite's file or PostgreSQL's URL), and the processes that share them."""

    def __init__(self, folder: Path, database: Path | str | None = None) -> None:
        self.folder = folder
        self.database = database or folder / "jobs.db"
        self.path = folder / "ledger"
        self.ledger = Ledger(self.path)
        self.reader = Reader(self.path)
        self.players: list[Player] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for player in self.players:
            if player.alive:
                os.kill(player.pid, signal.SIGKILL)
            player.process.wait()
        self.ledger.close()
        self.reader.close()
        if error is not None:
            error.add_note(self.logs())

    def start(self, role: str, **orders: Any) -> Player:
        """Start a process with these orders; it runs at once, but may not be ready yet."""
        given = Orders(**{"role": role, "folder": str(self.folder), "database": str(self.database), **orders})
        log = self.folder / f"log-{len(self.players)}-{role}"
        command = [sys.executable, "-m", "tests.crash.program", msgspec.json.encode(given).decode()]
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
        self.players.append(Player(process, log))
        return self.players[-1]

    def ready(self, role: str, **orders: Any) -> Player:
        """Start a process and wait until it says that it is ready."""
        player = self.start(role, **orders)
        self.wait(lambda lines: any(one.event == "ready" and one.pid == player.pid for one in lines), f"{role} ready")
        return player

    def kill(self, player: Player) -> None:
        """SIGKILL, noted in the ledger as of just before."""
        self.ledger.write("killed", pid=player.pid)
        player.ending = True
        player.process.kill()
        player.process.wait()

    def dies(self, player: Player) -> None:
        """Wait until a process has killed itself at its named point."""
        player.ending = True
        self._ends(player, -signal.SIGKILL, "a death at the named point")
        assert any(one.event == "dying" and one.pid == player.pid for one in self.lines())

    def stop(self, player: Player) -> None:
        """SIGTERM, and wait for the clean end."""
        player.ending = True
        player.process.terminate()
        self._ends(player, 0, "a clean end on SIGTERM")

    def finish(self, player: Player) -> None:
        """Wait for a process that ends by itself."""
        player.ending = True
        self._ends(player, 0, "its end")

    def _ends(self, player: Player, code: int, what: str) -> None:
        try:
            found = player.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            found = None
        assert found == code, f"process {player.pid}: {what} was expected, not {found}\n{self.logs()}"

    def freeze(self, player: Player) -> None:
        """SIGSTOP; on SQLite between two transactions: one stopped in the middle keeps the lock for ever."""
        while True:
            self.ledger.write("frozen", pid=player.pid)
            player.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, player.pid, os.WSTOPPED)
            if isinstance(self.database, str) or _may_write(self.database):
                return
            self.thaw(player)

    def thaw(self, player: Player) -> None:
        """SIGCONT."""
        player.process.send_signal(signal.SIGCONT)
        self.ledger.write("thawed", pid=player.pid)

    @contextmanager
    def away(self, players: Sequence[Player] = ()) -> Iterator[None]:
        """For so long these processes (all, where none is named) can't reach the database; the ledger says so."""
        pids = [player.pid for player in players] or [EVERYBODY]
        for pid in pids:
            self.ledger.write("away", pid=pid)
        yield
        for pid in pids:
            self.ledger.write("back", pid=pid)

    def lines(self, event: str = "", pid: int = 0) -> list[Line]:
        """Return the ledger, or those lines of it that have this event and process."""
        return [one for one in self.reader.lines() if event in ("", one.event) and pid in (0, one.pid)]

    def wait(self, until: Callable[[list[Line]], bool], what: str) -> None:
        """Wait until the ledger shows it; fails when a process has ended that should not have."""
        end = time.monotonic() + _PATIENCE
        while not until(self.reader.lines()):
            gone = [player for player in self.players if not player.ending and player.process.poll() not in (None, 0)]
            assert not gone, f"a process ended unasked while waiting for: {what}\n{self.logs()}"
            assert time.monotonic() < end, f"not seen within {_PATIENCE:g} s: {what}\n{self.logs()}"
            time.sleep(_LOOK)

    def seen(self, event: str, count: int = 1, pid: int = 0) -> None:
        """Wait until the ledger has ``count`` lines of an event (of one process)."""
        self.wait(lambda _: len(self.lines(event, pid)) >= count, f"{count} x {event} of {pid or 'any'}")

    def rest(self) -> None:
        """Wait until everything promised has ended and the database has no job left."""

        def quiet(lines: list[Line]) -> bool:
            ended = {one.token for one in lines if one.event == "end"}
            left = [one.token for one in lines if one.event == "promised" and one.token not in ended]
            return not left and not rows(self.database, "SELECT 1 FROM oncue_job LIMIT 1")

        try:
            self.wait(quiet, "all jobs done")
        except AssertionError as error:
            error.add_note(str(self.verdict().wrong))
            raise

    def stop_after_rest(self, player: Player) -> None:
        """Wait until all is done, then stop the worker cleanly."""
        self.rest()
        self.stop(player)

    def verdict(self) -> Verdict:
        """Judge what happened."""
        return judge(self.path, self.database)

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Read the database with a connection of its own."""
        return rows(self.database, query, *values)

    def logs(self) -> str:
        """The end of what each process said."""
        return "\n".join(f"--- {player.log.name}\n{player.log.read_text()[-3000:]}" for player in self.players)


def _may_write(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        db.execute("ROLLBACK")
        return True
