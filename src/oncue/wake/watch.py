"""Hearing that a file was written: inotify on Linux, kqueue on macOS and BSD, else short polling."""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

_IN_MODIFY, _IN_NONBLOCK, _IN_CLOEXEC = 0x2, 0o4000, 0o2000000
_POLL = 0.05
_QUIET = 0.001


class FileWatch(Protocol):
    """A running watch."""

    def close(self) -> None:
        """End the watch."""
        ...


def watch_file(path: Path, changed: Callable[[], None]) -> tuple[FileWatch, str | None]:
    """Call ``changed`` on the running loop after each write to the file.

    Returns the watch, and why it is only a poll where it is one.
    """
    problem = "this platform has no file notification that Python can reach"
    try:
        if sys.platform == "linux":
            return _Inotify(path, changed), None
        if hasattr(select, "kqueue"):
            return _Kqueue(path, changed), None
    except (OSError, NotImplementedError, AttributeError) as error:
        problem = str(error)
    told = (
        f"{path} can't be watched ({problem}): other processes' jobs are noticed by looking every {_POLL * 1000:g} ms."
    )
    return _Poll(path, changed), told


class _Quietened:
    """Reads notifications of a descriptor; after one it looks away for a moment, so that a burst costs one call."""

    def __init__(self, fd: int, read: Callable[[], object], changed: Callable[[], None]) -> None:
        self._fd, self._take, self._changed = fd, read, changed
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._fd, self._read)

    def _read(self) -> None:
        self._take()
        self._loop.remove_reader(self._fd)
        self._pause = self._loop.call_later(_QUIET, self._listen)
        self._changed()

    def close(self) -> None:
        """End the watch."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._fd)


class _Inotify(_Quietened):
    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._events = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._events < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1 failed")
        if libc.inotify_add_watch(self._events, os.fsencode(path), _IN_MODIFY) < 0:
            error = ctypes.get_errno()
            os.close(self._events)
            raise OSError(error, f"inotify_add_watch failed: {os.strerror(error)}")
        super().__init__(self._events, lambda: os.read(self._events, 65536), changed)

    def close(self) -> None:
        super().close()
        os.close(self._events)


class _Kqueue(_Quietened):
    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        self._file = os.open(path, os.O_RDONLY)
        queue = self._queue = select.kqueue()  # type: ignore[attr-defined,unused-ignore]
        event = select.kevent(  # type: ignore[attr-defined,unused-ignore]
            self._file,
            filter=select.KQ_FILTER_VNODE,  # type: ignore[attr-defined,unused-ignore]
            flags=select.KQ_EV_ADD | select.KQ_EV_CLEAR,  # type: ignore[attr-defined,unused-ignore]
            fflags=select.KQ_NOTE_WRITE | select.KQ_NOTE_EXTEND,  # type: ignore[attr-defined,unused-ignore]
        )
        queue.control([event], 0)
        super().__init__(queue.fileno(), lambda: queue.control([], 16, 0), changed)

    def close(self) -> None:
        super().close()
        self._queue.close()
        os.close(self._file)


class _Poll:
    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        self._path, self._changed, self._seen = path, changed, self._stamp(path)
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(_POLL, self._look)

    @staticmethod
    def _stamp(path: Path) -> tuple[int, int]:
        try:
            stat = path.stat()
        except OSError:
            return (0, 0)
        return (stat.st_mtime_ns, stat.st_size)

    def _look(self) -> None:
        stamp = self._stamp(self._path)
        if stamp != self._seen:
            self._seen = stamp
            self._changed()
        self._handle = self._loop.call_later(_POLL, self._look)

    def close(self) -> None:
        self._handle.cancel()
