"""SQLite connections as OnCue wants them, and a thread that owns one and commits in groups."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from oncue.errors import (
    ConfigError,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
)

T = TypeVar("T")
Outcome = tuple[Any, BaseException | None]
log = logging.getLogger("oncue.store")
_GROUP = 256
_BUSY_PAUSE = 0.005


def path_of(url: str) -> Path:
    """Return the file that a ``sqlite://`` URL names. Raises ConfigError for one that names none."""
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/") or len(parts.path) < 2:
        raise ConfigError(
            f"{url!r} names no file: write sqlite:///relative/file.db or sqlite:////absolute/file.db, with three or "
            "four slashes (an in-memory database can't survive a restart, so there is none)."
        )
    if "#" in url or "\0" in unquote(url):
        raise ConfigError(f"{url!r}: a '#' in a file's name is written %23 in a URL, and a NUL can't be in one.")
    if "?" in url:
        raise ConfigError(f"{url!r}: options after '?' are not known here; pass them to OnCue(...).")
    name = unquote(parts.path[1:])
    if name == ":memory:":
        raise ConfigError(f"{url!r}: an in-memory database can't survive a restart. Give a file.")
    # A process that changes its folder later, as daemons do, still means this file.
    return Path(name).absolute()


def connect(path: Path, busy_timeout: float = 10.0) -> sqlite3.Connection:
    """Open the file with write-ahead logging and full durability. ``busy_timeout`` in seconds."""
    with translated(path):
        conn = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
        try:
            _use_wal(conn, busy_timeout)
            conn.execute("PRAGMA synchronous = FULL")
        except BaseException:
            conn.close()
            raise
        return conn


def _use_wal(conn: sqlite3.Connection, busy_timeout: float) -> None:
    """Turn write-ahead logging on. SQLite refuses that at once, without its busy timeout, while others do the same."""
    end = time.monotonic() + busy_timeout
    while True:
        try:
            conn.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        time.sleep(_BUSY_PAUSE)


@contextmanager
def translated(path: Path | str) -> Iterator[None]:
    """Turn SQLite's errors into ours, which name the file and say what to do."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        raise translate(error, path) from error


def translate(error: sqlite3.DatabaseError, path: Path | str) -> StoreError:
    """Return our error for SQLite's."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(f"No room left for {path} ({error}). Nothing unconfirmed was stored; free space and go on.")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return StoreReadOnly(f"{path} can't be written ({error}). Give this user write access to it and to its folder.")
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreReadOnly(f"{path} can't be opened ({error}). Does its folder exist, and may this user write there?")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreCorrupt(f"{path} is damaged or no SQLite database ({error}). Restore a backup or check the URL.")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(f"{path} stayed locked by another process ({error}). Look for a long write transaction there.")
    return StoreError(f"{path}: {error}")


class ConnectionThread:
    """A thread that owns one connection. Operations that are waiting when it is free share one commit.

    Each operation runs in a savepoint, so that one that fails takes only itself back.
    """

    def __init__(self, path: Path, name: str, *, write: bool, busy_timeout: float = 10.0) -> None:
        self.path = path
        self.commits = 0
        self.trace: Callable[[str], object] | None = None
        self._begin = "BEGIN IMMEDIATE" if write else "BEGIN"
        self._busy_timeout = busy_timeout
        self._work: queue.SimpleQueue[tuple[Callable[[Any], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._started = False
        self._closed = False

    def submit(self, operation: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Have ``operation(connection)`` run inside a transaction; the future resolves after its commit."""
        if self._closed:
            raise StoreError(f"{self.path}: the store is closed. Open the application (async with app) first.")
        if not self._started:
            self._started = True
            self._thread.start()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._work.put((operation, future))
        return future

    async def close(self) -> None:
        """Finish what was submitted and close the connection."""
        if self._closed:
            return
        self._closed = True
        if self._started:
            self._work.put(None)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        conn: sqlite3.Connection | None = None
        going = True
        while going:
            batch: list[tuple[Callable[[Any], Any], asyncio.Future[Any]]] = []
            item = self._work.get()
            while True:
                if item is None:
                    going = False
                    break
                batch.append(item)
                if len(batch) >= _GROUP or self._work.empty():
                    break
                item = self._work.get()
            if not batch:
                continue
            try:
                if conn is None:
                    conn = connect(self.path, self._busy_timeout)
                    conn.set_trace_callback(self.trace)
                results = self._transaction(conn, [operation for operation, _ in batch])
            except BaseException as error:
                results = [(None, error)] * len(batch)
            _deliver([(future, *result) for (_, future), result in zip(batch, results, strict=True)])
        if conn is not None:
            conn.close()

    def _transaction(self, conn: sqlite3.Connection, operations: list[Callable[[Any], Any]]) -> list[Outcome]:
        results: list[Outcome] = []
        try:
            conn.execute(self._begin)
            for operation in operations:
                results.append(_guarded(conn, operation, alone=len(operations) == 1))  # noqa: PERF401 - kept on error
            conn.execute("COMMIT")
            self.commits += 1
        except BaseException as error:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            known = translate(error, self.path) if isinstance(error, sqlite3.DatabaseError) else error
            failed: list[Outcome] = [(None, earlier or known) for _, earlier in results]
            return failed + [(None, known)] * (len(operations) - len(results))
        return results


def data_version(conn: sqlite3.Connection) -> int:
    """Return a number that changes when another connection has committed to the file.

    To be asked with the write lock: a commit writes to the log, which wakes us, before others can see it. Without the
    lock the answer would be "nothing new" for a job that is there a moment later, and nothing would wake us again.
    """
    return int(conn.execute("PRAGMA data_version").fetchone()[0])


def _guarded(conn: sqlite3.Connection, operation: Callable[[Any], Any], *, alone: bool) -> Outcome:
    if alone:
        return operation(conn), None
    conn.execute("SAVEPOINT oncue_op")
    try:
        result = operation(conn)
    except BaseException as error:
        # The database itself failed (locked, full, damaged): that is no matter of one operation.
        if type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError):
            raise
        conn.execute("ROLLBACK TO oncue_op")
        conn.execute("RELEASE oncue_op")
        return None, error
    conn.execute("RELEASE oncue_op")
    return result, None


def _deliver(results: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, BaseException | None]]] = {}
    for entry in results:
        by_loop.setdefault(entry[0].get_loop(), []).append(entry)
    for loop, entries in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, entries)
        except RuntimeError:
            log.debug("a loop closed before its database work was answered")


def _resolve(entries: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for future, result, error in entries:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
